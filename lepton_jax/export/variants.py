"""All variants of a phone model: one float32 model, and what quantization makes of it."""

import logging
from collections.abc import Callable
from typing import NamedTuple

import numpy as np

from lepton_jax import config
from lepton_jax.data import Splits
from lepton_jax.export.calibration import Images
from lepton_jax.export.fine_tune import ROUNDED, FineTuned, fine_tune, untunable
from lepton_jax.export.quantize import quantize
from lepton_jax.training.runs import SavedRun
from lepton_jax.typing import Variables

_LOG = logging.getLogger(__name__)


class Made(NamedTuple):
    """A variant.

    Attributes:
      content: of its .tflite file.
      tuned: what quantization-aware training came to; None where there was none.
    """

    content: bytes
    tuned: FineTuned | None


def make_variants(
    saved: SavedRun,
    splits: Splits,
    convert: Callable[[Variables], bytes],
    calibration: Images,
) -> dict[config.Variant, Made]:
    """Makes the variants that a run's settings name.

    Args:
      saved: the run.
      splits: its data, of which quantization-aware training takes the training images.
      convert: variables -> a float32 phone model of them.
      calibration: images that fix the ranges of integers.

    Raises:
      UserError: as `quantize` and `fine_tune`.
    """
    plain = convert(saved.variables)
    made = {}
    for variant in saved.config.export.variants:
        tuned = _tuned(saved, splits, variant)
        base = plain if tuned is None or not tuned.kept else convert(tuned.variables)
        made[variant] = Made(_quantized(base, variant, saved.config.export, calibration), tuned)
    return made


def _tuned(saved: SavedRun, splits: Splits, variant: config.Variant) -> FineTuned | None:
    if variant not in ROUNDED:
        return None
    why = untunable(saved)
    if why is not None:  # of int4, since int8-qat was refused
        _LOG.warning("%s: without quantization-aware training: this is %s", variant, why)
        return None
    return fine_tune(saved, splits, variant)


def _quantized(
    base: bytes, variant: config.Variant, settings: config.Export, calibration: Images
) -> bytes:
    return quantize(
        base,
        variant,
        interface=settings.interface,
        calibration=np.asarray(calibration),
        percentile=settings.calibration.percentile,
    )
