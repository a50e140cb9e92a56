"""A small model, its batches and its runs, for the tests of DP-SGD."""

from functools import cache
from typing import Any

import jax
import jax.numpy as jnp
import msgspec
import numpy as np

from lepton_jax import config
from lepton_jax.data.splits import Examples
from lepton_jax.models import build
from lepton_jax.training.losses import cross_entropy
from lepton_jax.training.private import private_gradient
from lepton_jax.training.step import Gradient
from lepton_jax.typing import Batch, PyTree

SHAPE, CLASSES, KEY = (6, 6, 1), 3, jax.random.key(5)
NETWORK = config.Model(name="cnn", blocks=(config.ConvBlock(filters=4, pool=2),), norm="none")
MODEL = build(NETWORK, SHAPE, CLASSES, mean=(0.0,), std=(1.0,), in_loop=True)
VARIABLES = MODEL.init(jax.random.key(0))


def as_floats(images: jax.Array, key: jax.Array) -> jax.Array:
    return images.astype(jnp.float32)


def batch(count: int, padding: int = 0) -> Batch:
    rng = np.random.default_rng(count)
    images = rng.integers(256, size=(count + padding, *SHAPE)).astype(np.uint8)
    labels = rng.integers(CLASSES, size=count + padding).astype(np.int32)
    return Batch(
        jnp.asarray(images), jnp.asarray(labels), jnp.asarray(np.arange(count + padding) < count)
    )


def gradient_of(examples: Batch, noise: float = 0.0, clip: float = 1.0, size: int = 4) -> PyTree:
    return _gradient(noise, clip, size)(VARIABLES, examples, KEY)


@cache
def _gradient(noise: float, clip: float, size: int) -> Gradient:
    settings = config.Privacy(noise_multiplier=noise, clip_norm=clip, microbatch=size)
    return jax.jit(
        private_gradient(MODEL, cross_entropy(), settings, augment=as_floats, batch_size=10)
    )


def numbered(count: int) -> Examples:
    images = np.zeros((count, *SHAPE), np.uint8)
    return Examples(images, np.arange(count, dtype=np.int32), None)


REPEATABLE = config.Privacy(noise_multiplier=1.0, microbatch=32, randomness="reproducible")
SECURE = msgspec.structs.replace(REPEATABLE, randomness="secure")


def private_run(**train: Any) -> config.Run:
    settings: dict[str, Any] = {
        "epochs": 2,
        "batch_size": 128,
        "optimizer": config.Sgd(learning_rate=1.0),
        "privacy": REPEATABLE,
    }
    return config.Run(
        data=config.Data(normalization="unit"),
        model=NETWORK,
        train=config.Train(**{**settings, **train}),
    )
