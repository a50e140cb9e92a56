"""Image classification sets that TensorFlow Datasets has prepared, read without TensorFlow.

Whether a set can be used is read from its own JSON files, so that a start from the cache doesn't
wait for an import. Only a set prepared as tfrecord needs TensorFlow, and only while it is decoded.
"""

import contextlib
import importlib.util
import os
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

from lepton_jax.checks import UserError, suggestion
from lepton_jax.data.source import SPLITS, Record, Source
from lepton_jax.untrusted import JSON_BYTES, read_bytes, read_json

_INFO = "dataset_info.json"
_VERSION = re.compile(r"(\d+)\.(\d+)\.(\d+)")
_CLASSES = 1_000_000
_ROWS = 1024  # read at a time: array_record is six times faster so than one by one


class Prepared(NamedTuple):
    """A prepared image classification set, as its JSON files tell.

    Attributes:
      folder: `data_dir/name[/config]/version`.
      name: the set's name.
      file_format: `array_record` or `tfrecord`.
      image: the image feature's name.
      label: the label feature's name.
      channels: 1 or 3, or None where images differ.
      classes: the class names; numbers where the set has no names.
      splits: examples by split, as the set calls them.
    """

    folder: Path
    name: str
    file_format: str
    image: str
    label: str
    channels: int | None
    classes: tuple[str, ...]
    splits: dict[str, int]


def source(name: str, path: str | None) -> Source:
    """A prepared set as a source.

    Args:
      name: its TFDS name.
      path: the `data_dir`, or the prepared folder itself; None: `TFDS_DATA_DIR`, else TFDS' own.

    Raises:
      UserError: not prepared there (with the command that does it), or no image classification.
    """
    prepared = describe(find(name, path))
    if prepared.name != name:
        got, remedy = f"{prepared.name} in {prepared.folder}", f"set data.name={prepared.name}"
        raise UserError("data.name", f"the set that data.path holds, {name}", got, remedy)
    ours = {
        SPLITS[name]: name for name, count in prepared.splits.items() if name in SPLITS and count
    }
    if "train" not in ours:
        found = ", ".join(prepared.splits) or "no split"
        raise UserError(str(prepared.folder), "a training split", found)
    counts = {split: prepared.splits[theirs] for split, theirs in ours.items()}
    return Source(
        name=prepared.name,
        classes=prepared.classes,
        regions=(),
        channels=prepared.channels,
        counts=counts,
        records=lambda split: _records(prepared, ours[split]),
        identity=[prepared.name, prepared.splits, _files(prepared.folder)],
    )


def data_dir(path: str | None) -> Path:
    """Where TFDS keeps prepared sets: `path`, else `TFDS_DATA_DIR`, else TFDS' own default."""
    return Path(path or os.environ.get("TFDS_DATA_DIR") or "~/tensorflow_datasets").expanduser()


def find(name: str, path: str | None) -> Path:
    """The newest prepared version of a set.

    Raises:
      UserError: there is none, or several configurations.
    """
    root = data_dir(path)
    if (root / _INFO).is_file():
        return root
    if path is not None and not root.is_dir():
        got = "a file" if root.exists() else "nothing there"
        raise UserError("data.path", f"a folder of prepared sets at {root}", got)
    found = folders(root, name)
    if not found:
        raise _missing(name, path)
    if len({folder.parent for folder in found}) > 1:
        configs = ", ".join(sorted({folder.parent.name for folder in found}))
        remedy = f"set data.path={found[-1]} or the like"
        raise UserError("data.name", f"one prepared configuration of {name}", configs, remedy)
    return found[-1]


def folders(root: Path, name: str) -> list[Path]:
    """The prepared versions of a set, of all its configurations, the newest last."""
    found = [
        path.parent for depth in ("*", "*/*") for path in (root / name).glob(f"{depth}/{_INFO}")
    ]
    versions = [(match, folder) for folder in found if (match := _VERSION.fullmatch(folder.name))]
    versions.sort(key=lambda item: [int(number) for number in item[0].groups()])
    return [folder for _, folder in versions]


def describe(folder: Path) -> Prepared:
    """Reads what a prepared set says of itself.

    Raises:
      UserError: it is damaged, or holds something else than labelled images.
    """
    info, features = _json(folder / _INFO), _json(folder / "features.json")
    try:
        return _described(folder, info, features)
    except (LookupError, AttributeError, OSError, TypeError, ValueError) as error:
        got = f"other JSON ({type(error).__name__}: {error})"
        raise UserError(str(folder), "what TFDS writes", got, "prepare the set again") from error


def _described(folder: Path, info: dict[str, Any], features: dict[str, Any]) -> Prepared:
    by_name = features.get("featuresDict", {}).get("features", {})
    images = {key for key, feature in by_name.items() if "image" in feature}
    labels = {key for key, feature in by_name.items() if "classLabel" in feature}
    items = info.get("supervisedKeys", {}).get("tuple", {}).get("items", [])
    supervised = {item.get("featureKey") for item in items}
    image, label = _only(images, supervised), _only(labels, supervised)
    if image is None or label is None:
        held = ", ".join(by_name) or "none"
        raise UserError(
            str(folder), "one image and one class label per example", f"features {held}"
        )
    form = by_name[image]["image"]
    if form.get("dtype", "uint8") not in ("uint8", "uint16"):
        raise UserError(str(folder), "images of uint8", form["dtype"])
    channels = int(form.get("shape", {}).get("dimensions", [-1])[-1])
    return Prepared(
        folder=folder,
        name=info["name"],
        file_format=info.get("fileFormat", "tfrecord"),
        image=image,
        label=label,
        channels={1: 1, 3: 3, 4: 3}.get(channels),
        classes=_class_names(folder, label, int(by_name[label]["classLabel"]["numClasses"])),
        splits={
            split["name"]: sum(int(length) for length in split.get("shardLengths", []))
            for split in info.get("splits", [])
        },
    )


def _json(path: Path) -> dict[str, Any]:
    try:
        found = read_json(path)
    except UserError as error:
        remedy = "prepare the set again"
        raise UserError(error.where, "readable JSON of TFDS", error.got, remedy) from error
    if not isinstance(found, dict):
        raise UserError(str(path), "readable JSON of TFDS", "no object", "prepare the set again")
    return found


def _only(found: set[str], supervised: set[str]) -> str | None:
    """The one feature of a kind, or the one that the set learns from."""
    chosen = found & supervised or found
    return next(iter(chosen)) if len(chosen) == 1 else None


def _class_names(folder: Path, label: str, count: int) -> tuple[str, ...]:
    names = folder / f"{label}.labels.txt"
    if names.parent == folder and names.is_file():  # a feature's name may be any text
        return tuple(read_bytes(names, JSON_BYTES).decode().split("\n")[:count])
    if not 0 <= count <= _CLASSES:
        raise ValueError(f"{count} classes")
    return tuple(str(number) for number in range(count))


def _files(folder: Path) -> list[tuple[str, int, int]]:
    stats = [(path.name, path.stat()) for path in sorted(folder.iterdir())]
    return [(name, stat.st_size, stat.st_mtime_ns) for name, stat in stats]


def _missing(name: str, path: str | None) -> UserError:
    import tensorflow_datasets as tfds

    known = ["digits", "folder", *tfds.list_builders(with_community_datasets=False)]
    if name not in known:
        expected = "digits, folder or a TFDS image set"
        return UserError("data.name", expected, repr(name), suggestion(name, known))
    where = "" if path is None else f" --data-dir {path}"
    got = f"{name}, which is not prepared in {data_dir(path)}"
    return UserError(
        "data.name", "a prepared data set", got, f"run: lepton data prepare {name}{where}"
    )


# --- reading --------------------------------------------------------------------------------------


def _records(prepared: Prepared, split: str) -> Iterator[Record]:
    """Encoded images as they are stored; Pillow decodes them, whatever the format around them."""
    try:
        for i, example in enumerate(_examples(prepared, split)):
            place = f"{prepared.name}, {split} example {i}"
            label = int(example[prepared.label])
            if not 0 <= label < len(prepared.classes):
                expected = f"a label in 0..{len(prepared.classes) - 1}"
                raise UserError(place, expected, label, "use a set whose splits are labelled")
            yield Record(place, bytes(example[prepared.image]), label, 0)
    except UserError:
        raise
    except Exception as error:  # readers fail in many ways on damaged files
        what = str(error).split("\n")[0]
        remedy = "remove the folder and prepare the set again"
        raise UserError(str(prepared.folder), "whole files of TFDS", what, remedy) from error


def _examples(prepared: Prepared, split: str) -> Iterator[dict[str, Any]]:
    if prepared.file_format == "tfrecord":
        _take_tensorflow(prepared.name)
    elif prepared.file_format != "array_record":
        remedy = f"run: lepton data prepare {prepared.name} --data-dir DIR"
        raise UserError(str(prepared.folder), "array_record files", prepared.file_format, remedy)
    import tensorflow_datasets as tfds

    builder = tfds.builder_from_directory(prepared.folder)
    decoders = {prepared.image: tfds.decode.SkipDecoding()}
    if prepared.file_format == "tfrecord":
        one_by_one = tfds.ReadConfig(interleave_cycle_length=1)  # in the order of the files
        yield from tfds.as_numpy(
            builder.as_dataset(split=split, decoders=decoders, read_config=one_by_one)
        )
        return
    rows = builder.as_data_source(split=split, decoders=decoders)
    for start in range(0, len(rows), _ROWS):
        yield from rows.__getitems__(list(range(start, min(start + _ROWS, len(rows)))))


def _take_tensorflow(name: str) -> None:
    if importlib.util.find_spec("tensorflow") is None:
        remedy = (
            "pip install 'lepton-jax[export]', or prepare it as array_record in another folder: "
            f"lepton data prepare {name} --data-dir DIR"
        )
        raise UserError("data.path", "TensorFlow, to read tfrecord files", "none", remedy)
    import tensorflow as tf

    with contextlib.suppress(RuntimeError):  # TensorFlow is at work already
        tf.config.set_visible_devices([], "GPU")  # else it takes the memory that JAX needs
