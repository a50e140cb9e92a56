"""A tiny CNN with BatchNorm, made by hand: 8x8 colour images, three classes, random weights."""

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from lepton_jax.typing import Logits, Pixels

SHAPE, CLASSES = (8, 8, 3), 3


class Net(NamedTuple):
    """A function from pixels to logits, with images to try it on."""

    apply: Callable[[Pixels], Logits]
    images: np.ndarray
    probabilities: np.ndarray


def _conv(x: jax.Array, kernel: jax.Array) -> jax.Array:
    axes = ("NHWC", "HWIO", "NHWC")
    return jax.lax.conv_general_dilated(x, kernel, (1, 1), "SAME", dimension_numbers=axes)


def make_net() -> Net:
    """Two convolutions with BatchNorm and ReLU, max-pooling, the mean, a dense layer."""
    rng = np.random.default_rng(0)

    def normal(*shape: int) -> np.ndarray:
        return rng.normal(size=shape, scale=0.5).astype(np.float32)

    kernels = [normal(3, 3, 3, 4), normal(3, 3, 4, 8)]
    norms = [(normal(f), np.abs(normal(f)) + 1, normal(f), normal(f)) for f in (4, 8)]
    centre, spread = np.array([[120, 110, 90], [70, 60, 65]], np.float32)
    dense, bias = normal(8, CLASSES), normal(CLASSES)

    def apply(pixels: Pixels) -> Logits:
        x = (pixels.astype(jnp.float32) - centre[None, None, None]) / spread[None, None, None]
        for kernel, (mean, var, scale, shift) in zip(kernels, norms, strict=True):
            x = _conv(x, jnp.asarray(kernel)) - mean[None, None, None]
            x = x * (jax.lax.rsqrt(var + 1e-5) * scale)[None, None, None]
            x = jax.nn.relu(x + shift[None, None, None])
        window = (1, 2, 2, 1)
        x = jax.lax.reduce_window(x, -jnp.inf, jax.lax.max, window, window, "VALID")
        return x.mean((1, 2)) @ dense + bias[None]

    images = rng.integers(256, size=(40, *SHAPE)).astype(np.uint8)
    return Net(apply, images, np.asarray(jax.nn.softmax(apply(jnp.asarray(images)), axis=-1)))


@pytest.fixture(scope="session")
def net() -> Net:
    return make_net()
