"""Does the phone's model say what JAX says? Measured image by image, and judged."""

from typing import NamedTuple

import numpy as np
from jaxtyping import Float, Int32, UInt8

from lepton_jax.checks import UserError
from lepton_jax.export import phone
from lepton_jax.export.convert import Variant
from lepton_jax.export.flatbuffer import ops

_TIE = 1e-6  # JAX's own first and second choice, no further apart than rounding
_FLOAT32_DIFFERENCE = 1e-3
_INT8_ACCURACY_LOSS = 0.01


class Agreement(NamedTuple):
    """How a phone model compares with JAX on the same images.

    Attributes:
      bytes: size of the .tflite file.
      max_abs_diff: largest difference of a probability, over all images and classes.
      top1_agreement: part of the images with the same most probable class; where JAX holds two
        classes for equally probable (to 1e-6), either one agrees.
      accuracy: of the phone model, in [0, 1].
      jax_accuracy: of JAX, in [0, 1].
      latency_ms: `median` and `p95` of one image: one thread of this machine's CPU, warm.
      ops: how often each op occurs.
    """

    bytes: int
    max_abs_diff: float
    top1_agreement: float
    accuracy: float
    jax_accuracy: float
    latency_ms: dict[str, float]
    ops: dict[str, int]


def verify(
    model: bytes,
    images: UInt8[np.ndarray, "N H W F"],
    labels: Int32[np.ndarray, "N"],
    expected: Float[np.ndarray, "N K"],
) -> Agreement:
    """Runs a phone model on images and compares it with JAX.

    Args:
      model: the content of an exported .tflite file.
      images: at least one, as bytes.
      labels: their classes.
      expected: the probabilities that JAX gives them.
    """
    probabilities, seconds = phone.run(model, images)
    choice, jax_choice = probabilities.argmax(axis=-1), expected.argmax(axis=-1)
    every = np.arange(len(images))
    behind = expected[every, jax_choice] - expected[every, choice]
    return Agreement(
        bytes=len(model),
        max_abs_diff=float(np.abs(probabilities - expected).max()),
        top1_agreement=float((behind <= _TIE).mean()),
        accuracy=float((choice == labels).mean()),
        jax_accuracy=float((jax_choice == labels).mean()),
        latency_ms={
            "median": float(np.median(seconds) * 1e3),
            "p95": float(np.percentile(seconds, 95) * 1e3),
        },
        ops=ops(model),
    )


def judge(variant: Variant, found: Agreement) -> bool:
    """Whether a model is within its tolerance.

    Returns:
      `float32`: True; `int8`: whether it loses at most one point of accuracy.

    Raises:
      UserError: `float32` chooses another class anywhere, or a probability is off by more than
        1e-3: the conversion went wrong, and the model is not to be kept.
    """
    if variant == "int8":
        return round(found.jax_accuracy - found.accuracy, 6) <= _INT8_ACCURACY_LOSS
    if found.top1_agreement < 1 or not found.max_abs_diff <= _FLOAT32_DIFFERENCE:
        raise UserError(
            variant,
            f"JAX's classes on all test images and probabilities within {_FLOAT32_DIFFERENCE}",
            f"agreement on {found.top1_agreement:.2%} and a difference of {found.max_abs_diff:.2g}",
            "nothing was written",
        )
    return True
