"""What a phone model takes and gives: pixels of the camera in, the likely classes out."""

from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Num

from lepton_jax.checks import UserError
from lepton_jax.config import Interface
from lepton_jax.export.affine import fold_affine
from lepton_jax.export.batch import convert_batch
from lepton_jax.export.convert import Entry
from lepton_jax.export.flatbuffer import ops
from lepton_jax.export.interpreter import INPUT, OUTPUT, SIGNATURE
from lepton_jax.export.ranking import top_k
from lepton_jax.typing import Logits, Pixels

_BRANCHING = {"IF", "WHILE"}  # ops with graphs of their own, which no quantizer reads
Frames = Num[Array, "B H W F"]


def phone_model(
    apply: Callable[[Pixels], Logits],
    image_shape: tuple[int, int, int],
    classes: int,
    interface: Interface,
    converter: str = "auto",
) -> bytes:
    """A classifier as a float32 phone model, which `quantize` makes the other variants of.

    Args:
      apply: pixels [B,H,W,F] on 0..255 -> logits [B,K]; its variables as NumPy constants.
      image_shape: (H, W, F) that `apply` takes.
      classes: K.
      interface: what the model takes and gives, and how many at a time.
      converter: as `convert` takes it.

    Returns:
      The content of a .tflite file with the signature `classify`: as the function of that name
      says, or `scores` [B,k], the k largest probabilities, and their `classes`, int32 [B,k].

    Raises:
      UserError: a `top_k` of more than K, a loop in the graph; as `convert_batch`.
    """
    if interface.output == "top_k" and interface.top_k > classes:
        raise UserError("export.interface.top_k", f"at most {classes}", interface.top_k)
    model = convert_batch(
        lambda batch: [classify(apply, image_shape, interface, batch)], interface.batch, converter
    )
    if branching := _BRANCHING & ops(model).keys():
        got = ", ".join(sorted(branching))
        raise UserError("model", "a graph without loops and branches", got)
    model = fold_affine(model)
    return top_k(model, interface.top_k) if interface.output == "top_k" else model


def classify(
    apply: Callable[[Pixels], Logits],
    image_shape: tuple[int, int, int],
    interface: Interface,
    batch: int = 1,
) -> Entry:
    """The signature `classify` of a float32 model; the same one is what `quantize` starts from.

    It takes `image` [B,H,W,F], or frames of another size that it resizes: uint8 of raw bytes, or
    float32 of bytes divided by 255. With `int8` it takes uint8 here, and int8 once quantized.
    It gives `probabilities` or `logits` [B,K]; for `top_k` the probabilities, of which `top_k`
    makes the largest.

    Args:
      apply: pixels [B,H,W,F] on 0..255 -> logits [B,K]; its variables as NumPy constants.
      image_shape: (H, W, F) that `apply` takes.
      interface: the input, the output and the frames' size.
      batch: B.
    """
    height, width, channels = image_shape
    frame = interface.frame or (height, width)
    dtype = jnp.float32 if interface.input == "float32" else jnp.uint8

    def function(image: Frames) -> dict[str, Array]:
        pixels = image * jnp.float32(255) if interface.input == "float32" else image
        if frame != (height, width):
            pixels = resize(pixels.astype(jnp.float32), height, width)
        logits = apply(pixels)
        if interface.output == "logits":
            return {"logits": logits}
        return {OUTPUT: jax.nn.softmax(logits, axis=-1)}

    return Entry(
        SIGNATURE, function, {INPUT: jax.ShapeDtypeStruct((batch, *frame, channels), dtype)}
    )


def resize(frames: Frames, height: int, width: int) -> Float[Array, "B h w F"]:
    """Resizes bilinearly, with a wider triangle where it makes smaller, as `jax.image.resize` does.

    As two products with constant matrices, since neither converter makes RESIZE_BILINEAR of what
    JAX writes, and gathers are slow on phones.

    Args:
      frames: [B,H,W,F], float32.
      height: h, to resize to.
      width: w.
    """
    rows, columns = _weights(frames.shape[1], height), _weights(frames.shape[2], width)
    if frames.shape[0] * frames.shape[3] == 1:  # the converters refuse what they make of it below
        x = _product(frames[..., 0], columns)
        return jnp.matmul(rows.T[None], x, precision=jax.lax.Precision.HIGHEST)[..., None]
    x = _product(frames.transpose(0, 1, 3, 2), columns)
    return _product(x.transpose(0, 3, 2, 1), rows).transpose(0, 3, 1, 2)


def _product(x: Array, matrix: np.ndarray) -> Array:
    """Over the last axis; of plain matrices, since of more axes the converters may make nonsense."""
    flat = x.reshape(-1, x.shape[-1])
    y = jnp.matmul(flat, matrix, precision=jax.lax.Precision.HIGHEST)
    return y.reshape(*x.shape[:-1], matrix.shape[-1])


def _weights(source: int, target: int) -> np.ndarray:
    """Of each source row in each target row [source, target] (Wolberg, 1990)."""
    scale = source / target
    support = max(scale, 1.0)
    centres = (np.arange(target) + 0.5) * scale - 0.5
    distance = np.abs(np.arange(source)[:, None] - centres[None]) / support
    triangle = np.maximum(0.0, 1.0 - distance)
    return (triangle / triangle.sum(0, keepdims=True)).astype(np.float32)
