"""The story of `lepton export`: a finished run in, checked phone models and their figures out."""

import logging
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import jax
import msgspec
import numpy as np

from lepton_jax import data, models
from lepton_jax.checks import UserError
from lepton_jax.data import Examples, Splits
from lepton_jax.export.convert import VARIANTS, Variant, convert
from lepton_jax.export.flatbuffer import add_notes
from lepton_jax.export.interpreter import INPUT, OUTPUT, SIGNATURE
from lepton_jax.export.verify import judge, verify
from lepton_jax.training.card import card_of
from lepton_jax.training.evaluate import predict
from lepton_jax.training.records import write_bytes, write_json
from lepton_jax.training.runs import SavedRun, load_run
from lepton_jax.typing import Classifier, Logits, Pixels

_LOG = logging.getLogger(__name__)
_FIGURES = "export.json"
CARD_NOTE = "privacy_card_sha256"


class _Model(NamedTuple):
    """A phone model on its way to disk."""

    content: bytes
    figures: dict[str, Any]


def export(folder: Path, *, variants: Sequence[str] | None = None) -> dict[str, Any]:
    """Writes a run as TFLite models that were checked against JAX on the whole test split.

    The models compute in float32 and int8 whatever `model.dtype` says, and JAX does likewise for
    the comparison. `int8` is calibrated on training images; for a run with noise on images of the
    server's own (validation, else test), since ranges taken from those whom it protects are covered
    by no epsilon. The files of a private run hold its privacy card's hash, `privacy_card_sha256`.

    Args:
      folder: of a finished run.
      variants: `float32`, `int8` or both; None: as the run's config says.

    Returns:
      The content of `export.json`: the signature with its input and output, the class names, and
      for each variant the fields of `Agreement`, `name`, `file` and `within_tolerance`.

    Raises:
      UserError: no finished run there, an unknown variant, the extra is not installed, or
        `float32` disagrees with JAX; then the folder is as it was.
    """
    saved = load_run(folder)
    wanted = _check(saved.config.export.variants if variants is None else variants)
    splits = data.load(saved.config.data)
    model = _rebuild(saved, splits)
    split, calibration = calibration_images(saved, splits)

    # On an accelerator a float32 product is not one by default, and differs by 1e-3.
    with jax.default_matmul_precision("highest"):
        logits = predict(model, saved.variables, splits.test.images)
    expected = np.asarray(jax.nn.softmax(logits, axis=-1))
    apply = partial(model.apply, jax.tree.map(np.asarray, saved.variables))

    card = card_of(folder)
    notes = {} if card is None else {CARD_NOTE: card}
    made = {name: _make(name, apply, calibration, splits.test, expected) for name in wanted}
    made = {name: _noted(each, notes) for name, each in made.items()}
    figures = {**_describe(saved, splits), **notes}
    figures["calibration"] = {"split": split, "images": len(calibration)}
    figures["variants"] = [each.figures for each in made.values()]
    _write(folder, made, figures)
    return figures


def _check(variants: Sequence[str]) -> tuple[Variant, ...]:
    wanted = tuple(variant for variant in VARIANTS if variant in variants)
    if not variants or set(wanted) != set(variants):
        raise UserError("variants", f"some of {', '.join(VARIANTS)}", ", ".join(variants) or "none")
    return wanted


def _rebuild(saved: SavedRun, splits: Splits) -> Classifier:
    # TFLite computes in no bfloat16; the parameters are float32 anyway.
    config = msgspec.structs.replace(saved.config.model, dtype="float32")
    info = splits.info
    return models.build(
        config, splits.test.images.shape[1:], len(info.classes), mean=info.mean, std=info.std
    )


def calibration_images(saved: SavedRun, splits: Splits) -> tuple[str, np.ndarray]:
    """The name of the split that fixes int8's ranges, and images drawn from it."""
    if not _is_private(saved):
        name, images = "train", splits.train.images
    elif len(splits.validation.images):
        name, images = "validation", splits.validation.images
    else:
        name, images = "test", splits.test.images
    drawn = np.random.default_rng(saved.config.seed).permutation(len(images))
    return name, images[np.sort(drawn[: saved.config.export.calibration_images])]


def _is_private(saved: SavedRun) -> bool:
    federated, train = saved.config.federated, saved.config.train
    if saved.kind == "train":
        return train.privacy is not None
    return federated.noise is not None or federated.example_privacy is not None


def _make(
    variant: Variant,
    apply: Callable[[Pixels], Logits],
    calibration: np.ndarray,
    test: Examples,
    expected: np.ndarray,
) -> _Model:
    content = convert(apply, test.images.shape[1:], variant, calibration)
    found = verify(content, test.images, test.labels, expected)
    within = judge(variant, found)
    if not within:
        _LOG.warning(
            "%s: accuracy %.4f, more than a point below JAX with %.4f",
            variant,
            found.accuracy,
            found.jax_accuracy,
        )
    names = {"name": variant, "file": f"{variant}.tflite"}
    return _Model(content, {**names, **found._asdict(), "within_tolerance": within})


def _noted(made: _Model, notes: dict[str, str]) -> _Model:
    """The same model, with what its file is to say besides."""
    if not notes:
        return made
    content = add_notes(made.content, notes)
    return _Model(content, {**made.figures, "bytes": len(content)})


def _describe(saved: SavedRun, splits: Splits) -> dict[str, Any]:
    shape = splits.test.images.shape[1:]
    classes = splits.info.classes
    return {
        "run": saved.config.name,
        "params_sha256": saved.result["params_sha256"],
        "signature": SIGNATURE,
        "input": {"name": INPUT, "dtype": "uint8", "shape": [1, *shape]},
        "output": {"name": OUTPUT, "dtype": "float32", "shape": [1, len(classes)]},
        "classes": list(classes),
        "test_images": len(splits.test.images),
    }


def _write(folder: Path, made: dict[Variant, _Model], figures: dict[str, Any]) -> None:
    """The figures go first and come last, so that they never stand beside models of another export."""
    (folder / _FIGURES).unlink(missing_ok=True)
    for variant in VARIANTS:
        path = folder / f"{variant}.tflite"
        path.unlink(missing_ok=True)
        if variant in made:
            write_bytes(path, made[variant].content)
    write_json(folder / _FIGURES, figures)
