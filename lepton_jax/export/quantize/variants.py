"""One float32 model in, any of its variants out."""

import logging
from typing import Any

import numpy as np

from lepton_jax.checks import UserError
from lepton_jax.config import Interface
from lepton_jax.export.flatbuffer import pack, unpack
from lepton_jax.export.quantize.integers import Plan, to_integer_graph
from lepton_jax.export.quantize.weights import halve, shrink
from lepton_jax.export.ranges import Ranges, measure
from lepton_jax.export.surgery import compact

_LOG = logging.getLogger(__name__)
_CALIBRATED = {"int8": (8, 8), "int8-qat": (8, 8), "16x8": (16, 8)}
_OTHERS = ("float32", "float16", "dynamic", "weight-only", "int4")


def quantize(
    model: bytes,
    variant: str,
    *,
    interface: Interface,
    calibration: np.ndarray | None = None,
    percentile: float = 100.0,
    ranges: Ranges | None = None,
) -> bytes:
    """Makes a variant of a float32 phone model. The same arguments give the same bytes.

    `float16`: weights of 16 bits, computing as before. `dynamic`: weights of 8 bits by channel,
    activations rounded while it runs. `weight-only`: weights of 8 bits, computing in float32.
    `int4`: weights of 4 bits by channel, two in a byte, computing as `dynamic`; small ones of 8.
    `int8`, `int8-qat`: 8-bit integers throughout, over ranges fixed beforehand; what has no integer
    form, or loses by it, stays in float32. `16x8`: the same with activations of 16 bits.

    Args:
      model: of `phone_model`.
      variant: one of these, or `float32`, which is given back as it is.
      interface: that of the model; `input` of `int8` and an `output_type` bear on int8 alone.
      calibration: at least 10 raw images of the shape that the model takes, for the integer forms.
      percentile: of a tensor's values that its range holds, on both sides; 100: all of them.
      ranges: of the tensors by name, in place of calibration images.

    Returns:
      The content of a .tflite file.

    Raises:
      UserError: an unknown variant, calibration images that won't do, an int8 input of another
        variant, a model of several signatures.
    """
    if variant not in (*_CALIBRATED, *_OTHERS):
        known = ", ".join((*_OTHERS, *_CALIBRATED))
        raise UserError("variant", f"one of {known}", repr(variant))
    integers = variant in ("int8", "int8-qat")
    if interface.input == "int8" and not integers:
        raise UserError("export.interface.input", f"uint8 or float32 for {variant}", "int8")
    if variant == "float32":
        return model
    content = unpack(model)
    if len(content.subgraphs) != 1 or len(content.signatureDefs) != 1:
        raise UserError(variant, "a model with one signature", len(content.signatureDefs))
    if variant in _CALIBRATED:
        if variant == "16x8":
            _LOG.warning("16x8: about 100 times slower than int8 on a CPU")
        found = measure(model, calibration, percentile) if ranges is None else ranges
        types = (interface.input, interface.output_type) if integers else ("uint8", "float32")
        to_integer_graph(content, Plan(found, *_CALIBRATED[variant], *types))
    else:
        _lighten(content, variant)
    compact(content)
    return pack(content, len(model))


def _lighten(content: Any, variant: str) -> None:
    if variant == "float16":
        halve(content)
    else:
        shrink(content, 4 if variant == "int4" else 8, in_place=variant != "weight-only")
