"""A small CNN on the embedded digits, in JAX and as the two files that a page runs."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.flatten_util import ravel_pytree

from lepton_jax import config, data
from lepton_jax.config import Data
from lepton_jax.export.convert import Entry, convert
from lepton_jax.export.learning import Learner, training_model
from lepton_jax.typing import Logits, Pixels, PyTree

SHAPE, CLASSES, BATCH, MOMENTUM = (8, 8, 1), 10, 16, 0.9


class Digits(NamedTuple):
    """Weights of a model that knows the digits rather well, and images it has not seen."""

    weights: np.ndarray
    images: np.ndarray
    labels: np.ndarray


_SHAPES = {"bias": (16,), "dense": (4 * 4 * 16, CLASSES), "kernel": (3, 3, 1, 16)}
_ZEROS, _unravel = ravel_pytree({name: jnp.zeros(shape) for name, shape in _SHAPES.items()})
_SIZE = _ZEROS.size


def logits(flat: jax.Array, image: jax.Array) -> jax.Array:
    parts = _unravel(flat)
    x = image.astype(jnp.float32) / np.float32(255)
    axes = ("NHWC", "HWIO", "NHWC")
    x = jax.lax.conv_general_dilated(x, parts["kernel"], (1, 1), "SAME", dimension_numbers=axes)
    x = jax.nn.relu(x + parts["bias"][None, None, None])
    x = x.reshape(x.shape[0], 4, 2, 4, 2, 16).mean((2, 4))
    return x.reshape(x.shape[0], -1) @ parts["dense"]


def losses(flat: jax.Array, image: jax.Array, label: jax.Array) -> jax.Array:
    own = (label[:, None] == jnp.arange(CLASSES)[None]).astype(jnp.float32)
    return -(jax.nn.log_softmax(logits(flat, image)) * own).sum(-1)


def train(
    flat: jax.Array,
    trace: jax.Array,
    image: jax.Array,
    label: jax.Array,
    weight: jax.Array,
    learning_rate: jax.Array,
) -> tuple[jax.Array, jax.Array, jax.Array]:
    """One step of SGD with momentum; the loss is of before it."""

    def loss(flat: jax.Array) -> jax.Array:
        return (losses(flat, image, label) * weight).sum() / jnp.maximum(
            weight.sum(), np.float32(1)
        )

    value, gradient = jax.value_and_grad(loss)(flat)
    trace = gradient + np.float32(MOMENTUM) * trace
    return flat - learning_rate * trace, trace, value[None]


def evaluate(
    flat: jax.Array, image: jax.Array, label: jax.Array, weight: jax.Array
) -> dict[str, jax.Array]:
    right = (logits(flat, image).argmax(-1) == label).astype(jnp.float32)
    total = (losses(flat, image, label) * weight).sum()[None]
    return {"loss": total, "correct": (right * weight).sum()[None], "weight": weight.sum()[None]}


def make_digits() -> Digits:
    splits = data.load(Data(name="digits", validation_fraction=0.0))
    images, labels = jnp.asarray(splits.train.images), jnp.asarray(splits.train.labels)
    flat = np.float32(0.1) * jax.random.normal(jax.random.key(0), (_SIZE,), jnp.float32)
    step, trace = jax.jit(train), jnp.zeros_like(flat)
    for i in range(250):
        at = (np.arange(64) + 64 * i) % len(images)
        rate = jnp.full((1,), 0.1, jnp.float32)
        flat, trace, _ = step(flat, trace, images[at], labels[at], jnp.ones(64), rate)
    return Digits(np.asarray(flat), splits.test.images, splits.test.labels)


def infer_file(weights: np.ndarray) -> bytes:
    def classify(image: jax.Array) -> dict[str, jax.Array]:
        return {"probabilities": jax.nn.softmax(logits(jnp.asarray(weights), image))}

    image = jax.ShapeDtypeStruct((1, *SHAPE), jnp.uint8)
    return convert([Entry("classify", classify, {"image": image})], "jax2tf")


def training_file(weights: np.ndarray) -> bytes:
    """The signatures of a phone that trains, as `lepton export` makes them."""

    def apply(params: PyTree, pixels: Pixels) -> Logits:
        return logits(ravel_pytree(params)[0], pixels)

    params = jax.tree.map(np.asarray, _unravel(jnp.asarray(weights)))
    learner = Learner(apply, params, SHAPE, config.CrossEntropy())
    return training_model(learner, config.TrainOnPhone(batch_size=BATCH, momentum=MOMENTUM))
