"""A static folder that a browser runs the phone models from, with no request to anywhere else."""

import json
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

from lepton_jax.checks import UserError
from lepton_jax.export.outline import Tensor
from lepton_jax.export.web.signatures import INFER, TRAINING, check, signatures
from lepton_jax.untrusted import read_json

BUNDLE = Path(__file__).with_name("bundle")
_FORMAT = 1
_MODEL, _LEARNER, _SETTINGS = "model.tflite", "training.tflite", "settings.json"
_PAGE = ("app.js", "icon.svg", "index.html", "licence.txt", "style.css")
_RUNTIMES = ("wasm/litert_wasm_internal", "wasm/litert_wasm_compat_internal")
_BUNDLED = (*_PAGE, *(f"{name}.{kind}" for name in _RUNTIMES for kind in ("js", "wasm")))


class Facts(NamedTuple):
    """What the page tells of the model and starts its controls with.

    Attributes:
      name: of the model, the page's title.
      accuracy: on test images, in [0, 1].
      learning_rate: of training in the page, as `epochs`.
      epochs: passes over the visitor's examples.
      clip_norm: L2 norm that an update is clipped to; above 0.
      noise_multiplier: the noise's deviation over `clip_norm`; 0: none.
      data: the data set's name: drawings are brought to its look.
    """

    name: str
    accuracy: float
    learning_rate: float = 0.05
    epochs: int = 10
    clip_norm: float = 1.0
    noise_multiplier: float = 0.5
    data: str = ""


class Pen(NamedTuple):
    """How a data set of drawings looks, in parts of an image's shorter side.

    Attributes:
      box: what a drawing is scaled to.
      width: of its strokes.
      centre: what is in the middle: `mass` or `box`.
    """

    box: float
    width: float
    centre: str


# MNIST puts digits into 20 of 28 pixels around their centre of mass (LeCun et al., 1998); the
# embedded digits fill their 8 pixels. Widths are those that give the data sets' share of ink.
_MNIST, _PENS = Pen(20 / 28, 0.095, "mass"), {"digits": Pen(1.0, 0.16, "box")}


def write_page(
    out: Path,
    *,
    infer: bytes,
    training: bytes | None,
    labels: Mapping[str, tuple[str, ...]],
    facts: Facts,
    bundle: Path = BUNDLE,
) -> list[Path]:
    """Writes a page that runs the models in a browser; any static web server can serve it.

    The page asks its own folder for its files and nothing else for anything: its content security
    policy forbids it. What is drawn, the examples and the trained weights stay in its memory.

    Args:
      out: the folder: new, empty, or an earlier page, which is replaced.
      infer: a .tflite file: `classify`, image uint8 [1,H,W,F] -> probabilities float32 [1,K].
      training: one with the signatures infer, train, evaluate, get_weights and set_weights of
        `learning`, or None: a page that can't train.
      labels: the K classes' names by locale; the first is for browsers that ask for no other.
      facts: of the model.
      bundle: what `make web` built.

    Returns:
      The files written, sorted.

    Raises:
      UserError: the bundle is not built, `out` holds something else or can't be written, or the
        models, labels and facts don't fit each other; then `out` is as it was.
    """
    check_place(out, bundle)
    _check_facts(facts)
    content = {_MODEL: infer, **({} if training is None else {_LEARNER: training})}
    files = sorted((*_BUNDLED, *content, _SETTINGS))
    settings = _settings(infer, training, labels, facts) | {"files": files}
    content[_SETTINGS] = (json.dumps(settings, ensure_ascii=False, indent=1) + "\n").encode()
    try:
        _write(out, bundle, content)
    except OSError as error:
        told = error.strerror or str(error)
        raise UserError(str(out), "a folder that can be written", told, "nothing stayed") from error
    return [out / name for name in files]


def _settings(
    infer: bytes, training: bytes | None, labels: Mapping[str, tuple[str, ...]], facts: Facts
) -> dict[str, Any]:
    found = signatures(infer, "infer")
    check(found, INFER, "infer")
    image, output = found["classify"].inputs["image"], found["classify"].outputs["probabilities"]
    shape = image.shape[1:]
    if image.shape[0] != 1 or len(shape) != 3 or shape[2] not in (1, 3):
        raise UserError("infer", "an image [1,H,W,1] or [1,H,W,3]", list(image.shape))
    if (image.dtype, output.dtype) != ("uint8", "float32"):
        got = f"{image.dtype} -> {output.dtype}"
        raise UserError("infer", "a uint8 image -> float32 probabilities", got)
    _check_labels(labels, output.shape[-1])
    pen = _PENS.get(facts.data, _MNIST)._asdict() if shape[2] == 1 else None
    return {
        "lepton_page": _FORMAT,
        **{key: value for key, value in facts._asdict().items() if key != "data"},
        "image": list(shape),
        "labels": {locale: list(names) for locale, names in labels.items()},
        "pen": pen,
        "infer": {"file": _MODEL, "bytes": len(infer), **_named(INFER)["classify"]},
        "training": None if training is None else _learner(training, image, output),
    }


def _learner(training: bytes, image: Tensor, output: Tensor) -> dict[str, Any]:
    found = signatures(training, "training")
    check(found, TRAINING, "training")
    shapes = {name: found[name].inputs["image"].shape[1:] for name in ("train", "evaluate")}
    given = found["infer"].outputs["probabilities"].shape
    if any(shape != image.shape[1:] for shape in shapes.values()) or given != output.shape:
        raise UserError("training", "a model of the same images and classes as `infer`", shapes)
    return {"file": _LEARNER, "bytes": len(training), "signatures": _named(TRAINING)}


def _named(wanted: Mapping[str, tuple[tuple[str, ...], tuple[str, ...]]]) -> dict[str, Any]:
    """The names that the page calls a model by."""
    return {
        signature: {"signature": signature, **{name: name for name in (*inputs, *outputs)}}
        for signature, (inputs, outputs) in wanted.items()
    }


# --- checks ---------------------------------------------------------------------------------------


def check_place(out: Path, bundle: Path = BUNDLE) -> None:
    """Refuses where a page can't be written, before there are models for it.

    Args:
      out: as of `write_page`.
      bundle: what `make web` built.

    Raises:
      UserError: the bundle is not built, or `out` holds something else.
    """
    _check_bundle(bundle)
    _check_out(out)


def _check_bundle(bundle: Path) -> None:
    missing = [name for name in _BUNDLED if not (bundle / name).is_file()]
    if missing:
        got = "nothing" if len(missing) == len(_BUNDLED) else f"none of {', '.join(missing)}"
        raise UserError(f"the page's bundle, {bundle}", "its files", got, "run `make web`")


def _check_facts(facts: Facts) -> None:
    infinity = float("inf")
    for name, fine, expected in (
        ("accuracy", 0 <= facts.accuracy <= 1, "a number in [0, 1]"),
        ("learning_rate", 0 < facts.learning_rate < infinity, "a number above 0"),
        ("epochs", facts.epochs >= 1, "a whole number of at least 1"),
        ("clip_norm", 0 < facts.clip_norm < infinity, "a number above 0"),
        ("noise_multiplier", 0 <= facts.noise_multiplier < infinity, "a number of at least 0"),
    ):
        if not fine:
            raise UserError(f"facts.{name}", expected, getattr(facts, name))


def _check_labels(labels: Mapping[str, tuple[str, ...]], classes: int) -> None:
    if not labels:
        raise UserError("labels", "the classes' names in one locale at least", "none")
    for locale, names in labels.items():
        if len(names) != classes:
            raise UserError(
                f"labels.{locale}", f"{classes} names, as the model has classes", len(names)
            )


def _check_out(out: Path) -> None:
    """Refuses to write over what is no page of ours, whole and alone in its folder."""
    remedy = "name another folder"
    if out.is_symlink() or (out.exists() and not out.is_dir()):
        raise UserError(str(out), "a folder", "something else", remedy)
    there = {str(path.relative_to(out)) for path in out.rglob("*") if not path.is_dir()}
    if others := there - _written(out):
        got = f"other files: {', '.join(sorted(others)[:3])}"
        raise UserError(str(out), "no folder, an empty one or an earlier page", got, remedy)


def _written(out: Path) -> set[str]:
    try:
        settings = read_json(out / _SETTINGS)
    except UserError:
        return set()
    if not isinstance(settings, dict) or "lepton_page" not in settings:
        return set()
    files = settings.get("files")
    return {str(name) for name in files} if isinstance(files, list) else set()


# --- writing --------------------------------------------------------------------------------------


def _write(out: Path, bundle: Path, content: Mapping[str, bytes]) -> None:
    """Writes beside `out` and moves it there, so that no page is ever half there."""
    made, old = (out.with_name(f".{out.resolve().name}.{kind}") for kind in ("tmp", "old"))
    _remove(made, *([old] if out.exists() else []))  # what a kill left
    try:
        for name in (*_BUNDLED, *content):
            (made / name).parent.mkdir(parents=True, exist_ok=True)
            if name in content:
                (made / name).write_bytes(content[name])
            else:
                shutil.copyfile(bundle / name, made / name)
        if out.exists():
            out.rename(old)
        made.rename(out)
    except BaseException:
        if old.exists() and not out.exists():
            old.rename(out)
        raise
    finally:
        _remove(made, old)


def _remove(*folders: Path) -> None:
    for folder in folders:
        shutil.rmtree(folder, ignore_errors=True)
