"""Downloads and prepares TFDS sets, and tells which data sets are ready."""

import os
import socket
import urllib.request
from pathlib import Path
from typing import Any, NamedTuple
from urllib.parse import urlparse

from lepton_jax.checks import UserError, suggestion
from lepton_jax.data import digits, tfds

_SUGGESTED = ("mnist", "cifar10")


class Available(NamedTuple):
    """A data set that a config may name.

    Attributes:
      name: as in `data.name`.
      where: its folder, or `embedded`.
      examples: by split, or how to get them.
    """

    name: str
    where: str
    examples: str


def available(data_dir: Path | None = None) -> list[Available]:
    """The data sets that are ready here: the embedded one, and those that TFDS has prepared.

    Args:
      data_dir: where TFDS keeps its sets; None: `TFDS_DATA_DIR`, else TFDS' own default.

    Returns:
      A row each, first the digits; MNIST and CIFAR-10 are listed even if they aren't prepared.
    """
    root = tfds.data_dir(None if data_dir is None else str(data_dir))
    names = sorted(path.name for path in root.iterdir() if path.is_dir()) if root.is_dir() else []
    ready = [row for name in names for row in _ready(root, name)]
    missing = [name for name in _SUGGESTED if name not in {row.name for row in ready}]
    return [
        Available("digits", "embedded", f"train {digits.COUNT}"),
        *ready,
        *(
            Available(name, str(root), f"not prepared: lepton data prepare {name}")
            for name in missing
        ),
    ]


def _ready(root: Path, name: str) -> list[Available]:
    rows = []
    for folder in tfds.folders(root, name):
        try:
            prepared = tfds.describe(folder)
        except UserError:  # something else than labelled images
            continue
        counts = ", ".join(f"{split} {count}" for split, count in prepared.splits.items())
        rows.append(Available(name, str(folder), counts))
    return rows


def prepare(name: str, data_dir: Path | None = None) -> Path:
    """Downloads a TFDS image classification set and prepares it as array_record.

    Args:
      name: its TFDS name, with a configuration where it has several: `eurosat/rgb`.
      data_dir: where to; None: `TFDS_DATA_DIR`, else TFDS' own default.

    Returns:
      The prepared folder; the present one where it is prepared already.

    Raises:
      UserError: no such set, no image classification, no network, or TFDS failed.
    """
    root = tfds.data_dir(None if data_dir is None else str(data_dir))
    if found := tfds.folders(root, name):
        return found[-1]
    builder = _builder(name, root)
    _refuse_other_tasks(name, builder)
    _refuse_offline(name, builder)
    try:
        builder.download_and_prepare()
    except ImportError as error:
        remedy = "pip install 'lepton-jax[export]'"
        raise UserError(name, f"{error.name}, to prepare it", "none", remedy) from error
    except Exception as error:  # downloads, checksums, disks and parsers fail in many ways
        what = str(error).split("\n")[0] or type(error).__name__
        raise UserError(name, "TFDS to prepare it", what, "try again") from error
    return Path(os.fspath(builder.data_dir))


def _builder(name: str, root: Path) -> Any:
    import tensorflow_datasets

    known = tensorflow_datasets.list_builders(with_community_datasets=False)
    base = name.split("/")[0]
    if base in ("digits", "folder"):
        raise UserError("name", "a TFDS set", base, "it needs no preparation")
    if base not in known:
        raise UserError("name", "the name of a TFDS set", repr(name), suggestion(base, known))
    try:
        return tensorflow_datasets.builder(name, data_dir=root, file_format="array_record")
    except Exception as error:  # an unknown configuration, a folder that can't be written
        what = str(error).split("\n")[0]
        raise UserError(name, "a set that TFDS can build", what) from error


def _refuse_other_tasks(name: str, builder: Any) -> None:
    kinds = {type(feature).__name__ for feature in builder.info.features.values()}
    if not {"Image", "ClassLabel"} <= kinds:
        held = ", ".join(builder.info.features)
        raise UserError(name, "a set of labelled images", f"features {held}")


def _refuse_offline(name: str, builder: Any) -> None:
    """TFDS itself retries for minutes before it says that there is no network."""
    if urllib.request.getproxies():
        return
    for host in sorted({urlparse(url).hostname for url in builder.url_infos or {}} - {None}):
        try:
            socket.getaddrinfo(host, 443)
        except OSError as error:
            remedy = "connect, or copy a prepared folder here and set TFDS_DATA_DIR"
            raise UserError(
                name, f"a network that reaches {host}", error.strerror, remedy
            ) from error
