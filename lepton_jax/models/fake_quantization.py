"""Quantization-aware training: a form that rounds as a phone's integers do, and trains as if it didn't.

Source: Jacob et al. (2018); gradients pass straight through the rounding (Bengio et al., 2013). A
kernel's scale is that of each output channel, so it commutes with the BatchNorm that a converter
folds into the kernel: rounding before or after that is the same.
"""

from typing import Any

import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Float

from lepton_jax.models.conv import Form


def fake_quantized(
    form: Form, *, weights: int, activations: int | None = None, fine: int = 0
) -> Form:
    """A form whose convolutions and dense layers see rounded kernels and inputs.

    Args:
      form: what computes.
      weights: bits of a kernel's numbers, at least 2: symmetric, a scale for each output channel.
      activations: bits of the inputs' numbers: one scale and zero point for all of a batch, over
        the range that they have there; None leaves them as they are.
      fine: kernels of fewer numbers have 8 bits whatever `weights` says, as phone models have them.
    """

    def rounded(inputs: Array, kernel: Array) -> tuple[Array, Array]:
        inputs = inputs if activations is None else round_inputs(inputs, activations)
        return inputs, round_kernel(kernel, weights if kernel.size >= fine else 8)

    def conv(multiple: int) -> Any:
        inner = form.conv(multiple)
        return lambda lhs, rhs, *window, **options: inner(*rounded(lhs, rhs), *window, **options)

    def product(inputs: Array, kernel: Array, *dimensions: Any, **options: Any) -> Array:
        return form.product(*rounded(inputs, kernel), *dimensions, **options)

    return form._replace(name=f"{form.name}, rounded", conv=conv, product=product)


def round_kernel(kernel: Float[Array, "... O"], bits: int) -> Float[Array, "... O"]:
    """The nearest kernel of whole numbers of `bits` bits, each output channel to its own scale.

    >>> round_kernel(jnp.array([[3.2], [-7.0], [0.4]]), 4).tolist()
    [[3.0], [-7.0], [0.0]]
    """
    steps = 2 ** (bits - 1) - 1
    largest = jnp.abs(kernel).max(axis=tuple(range(kernel.ndim - 1)), keepdims=True)
    scale = jnp.where(largest > 0, largest, 1) / steps
    return _straight_through(kernel, jnp.round(kernel / scale) * scale)


def round_inputs(x: Float[Array, "..."], bits: int) -> Float[Array, "..."]:
    """The nearest array of 2^bits evenly spaced numbers that cover its range, 0 being one of them."""
    low, high = jnp.minimum(x.min(), 0), jnp.maximum(x.max(), 0)
    scale = jnp.where(high > low, high - low, 1) / (2**bits - 1)
    zero = jnp.round(low / scale)
    whole = jnp.clip(jnp.round(x / scale), zero, zero + 2**bits - 1)
    return _straight_through(x, whole * scale)


def _straight_through(x: Array, rounded: Array) -> Array:
    return x + lax.stop_gradient(rounded.astype(x.dtype) - x)
