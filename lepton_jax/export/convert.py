"""JAX to TFLite: one fixed shape, normalization and softmax inside, raw camera bytes in."""

import re
import tempfile
from collections.abc import Callable, Iterator
from typing import Any, Literal

import jax
import numpy as np
from jaxtyping import UInt8

from lepton_jax.checks import UserError
from lepton_jax.export.extras import quiet, tensorflow
from lepton_jax.export.flatbuffer import shorten_names
from lepton_jax.export.interpreter import INPUT, OUTPUT, SIGNATURE
from lepton_jax.typing import Logits, Pixels

Variant = Literal["float32", "int8"]
VARIANTS: tuple[Variant, ...] = ("float32", "int8")


def convert(
    apply: Callable[[Pixels], Logits],
    image_shape: tuple[int, int, int],
    variant: str,
    calibration: UInt8[np.ndarray, "N H W F"] | None = None,
) -> bytes:
    """Converts a classifier to a TFLite model of built-in ops.

    The model has one signature, `classify`: `image`, uint8 [1,H,W,F] of raw bytes, to
    `probabilities`, float32 [1,K]. Inside, `int8` computes with 8-bit integers throughout: weights
    by channel, activations by tensor, over the ranges that they take on the calibration images
    (Jacob et al., 2018). The same arguments give the same bytes.

    Args:
      apply: pixels [1,H,W,F] on 0..255, uint8 or float32 -> logits [1,K]; its variables as NumPy
        constants.
      image_shape: (H, W, F).
      variant: `float32` or `int8`.
      calibration: images that fix the ranges of `int8`; not used by `float32`.

    Returns:
      The content of a .tflite file.

    Raises:
      UserError: an unknown variant, `int8` without calibration images, a model with an op that
        TFLite lacks, or TensorFlow is not installed.
    """
    if variant not in VARIANTS:
        raise UserError("variant", f"one of {', '.join(VARIANTS)}", repr(variant))
    ranges = calibration if variant == "int8" else None
    if variant == "int8" and (ranges is None or len(ranges) == 0):
        raise UserError("calibration", "at least one image for int8", "none")
    tf = tensorflow()

    # Traced from floats, int8's first op takes bytes to integers; from bytes it would be a float
    # cast and then a quantization.
    pixels = tf.uint8 if ranges is None else tf.float32
    with quiet(), tempfile.TemporaryDirectory() as folder:
        _save(tf, apply, tf.TensorSpec((1, *image_shape), pixels, name=INPUT), folder)
        converter = tf.lite.TFLiteConverter.from_saved_model(folder, signature_keys=[SIGNATURE])
        if ranges is not None:
            _quantize(tf, converter, ranges)
        return shorten_names(_run(converter))


def _save(tf: Any, apply: Callable[[Pixels], Logits], image: Any, folder: str) -> None:
    """Writes a SavedModel, the only input of the converter that keeps a signature's names."""
    from jax.experimental import jax2tf

    def classify(pixels: Pixels) -> jax.Array:
        return jax.nn.softmax(apply(pixels), axis=-1)

    # Lowered for a CPU wherever JAX runs: TFLite converts no GPU kernels.
    lowered = jax2tf.convert(classify, with_gradient=False, native_serialization_platforms=("cpu",))
    module = tf.Module()
    module.classify = tf.function(
        lambda image: {OUTPUT: lowered(image)}, input_signature=[image], autograph=False
    )
    tf.saved_model.save(module, folder, signatures={SIGNATURE: module.classify})


def _run(converter: Any) -> bytes:
    from tensorflow.lite.python.convert import ConverterError

    try:
        return converter.convert()
    except ConverterError as error:
        op = re.search(r"'[\w.]+' op .*", str(error))
        raise UserError(
            "model", "only ops that TFLite has", op[0] if op else str(error)[:200]
        ) from error


def _quantize(tf: Any, converter: Any, calibration: np.ndarray) -> None:
    """Asks for int8 throughout, calibrated by exact minima and maxima."""
    shape = calibration.shape[1:]
    # Black and white pin the input's range to 0..255: its scale is 1, and raw bytes are its integers.
    extremes = np.stack([np.zeros(shape, np.uint8), np.full(shape, 255, np.uint8)])

    def representative() -> Iterator[tuple[str, dict[str, np.ndarray]]]:
        for image in (*calibration, *extremes):
            yield SIGNATURE, {INPUT: image[None].astype(np.float32)}

    converter.optimizations = [tf.lite.Optimize.DEFAULT]
    converter.representative_dataset = representative
    converter.target_spec.supported_ops = [tf.lite.OpsSet.TFLITE_BUILTINS_INT8]
    converter.inference_input_type = tf.uint8
    converter.inference_output_type = tf.float32
