"""A model of one dense layer with a running statistic, and a handful of images that it can learn."""

import importlib
from collections.abc import Callable, Iterator

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from lepton_jax import config
from lepton_jax.data.splits import DatasetInfo, Examples, Splits
from lepton_jax.typing import Classifier, Mask, Pixels, PRNGKey, PyTree, Variables

SHAPE, CLASSES = (4, 4, 1), 3


def make_examples(count: int, seed: int = 0) -> Examples:
    """Noise with a bright row that tells the class."""
    rng = np.random.default_rng(seed)
    labels = rng.integers(CLASSES, size=count).astype(np.int32)
    images = rng.integers(100, size=(count, *SHAPE)).astype(np.uint8)
    images[np.arange(count), labels] += np.uint8(120)
    return Examples(images, labels, None)


def make_model() -> Classifier:
    """A dense layer on centred pixels; its statistic is the running mean of the pixels."""

    def init(key: PRNGKey) -> Variables:
        kernel = 0.1 * jax.random.normal(key, (16, CLASSES))
        return Variables({"bias": jnp.zeros(CLASSES), "kernel": kernel}, {"mean": jnp.float32(0)})

    def logits(params: PyTree, mean: jax.Array, pixels: Pixels) -> jax.Array:
        flat = pixels.astype(jnp.float32).reshape(pixels.shape[0], -1) / 255 - mean
        return flat @ params["kernel"] + params["bias"][None, :]

    def apply(variables: Variables, pixels: Pixels) -> jax.Array:
        return logits(variables.params, variables.stats["mean"], pixels)

    def learn(
        variables: Variables, pixels: Pixels, mask: Mask, key: PRNGKey
    ) -> tuple[jax.Array, PyTree]:
        bright = jnp.mean(pixels.astype(jnp.float32), axis=(1, 2, 3)) / 255
        mean = jnp.sum(jnp.where(mask, bright, 0.0)) / jnp.sum(mask).astype(jnp.float32)
        stats = {"mean": 0.9 * variables.stats["mean"] + 0.1 * mean}
        return logits(variables.params, stats["mean"], pixels), stats

    return Classifier(init, apply, learn)


def as_floats(images: jax.Array, key: PRNGKey) -> jax.Array:
    """The augmentation that changes nothing."""
    return images.astype(jnp.float32)


@pytest.fixture(scope="session")
def model() -> Classifier:
    return make_model()


@pytest.fixture
def examples() -> Callable[[int], Examples]:
    return make_examples


@pytest.fixture
def augment() -> Callable[[jax.Array, PRNGKey], jax.Array]:
    return as_floats


@pytest.fixture(scope="module")
def tiny(model: Classifier) -> Iterator[config.Run]:
    """A config that trains in a moment: the data and the model are replaced by those above."""
    info = DatasetInfo("tiny", ("a", "b", "c"), (), (0.0,), (1.0,))
    splits = Splits(make_examples(44), make_examples(16, 1), make_examples(20, 2), info)
    settings = config.Train(
        epochs=4,
        batch_size=16,
        optimizer=config.Sgd(learning_rate=0.5, momentum=0.9, weight_decay=1e-3),
        schedule=config.Cosine(),
        warmup_epochs=1.0,
    )
    with pytest.MonkeyPatch.context() as patch:
        for name in ("train", "evaluate"):
            module = importlib.import_module(f"lepton_jax.training.{name}")
            patch.setattr(module, "load", lambda data: splits)
            patch.setattr(module, "classifier", lambda run, splits: model)
        yield config.Run(name="tiny", train=settings)
