"""A model of one dense layer, and clients of any size: what the tests of a round share."""

import importlib
from collections.abc import Iterator
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from federated.sampling import Cohort, cohort
from federated.shards import Client
from lepton_jax import config
from lepton_jax.data.splits import DatasetInfo, Examples, Splits
from lepton_jax.training.losses import cross_entropy
from lepton_jax.typing import Batch, Classifier, Mask, Pixels, PRNGKey, PyTree, Variables

SHAPE, CLASSES = (3, 2, 1), 4
LOSS = cross_entropy()


def make_examples(count: int, seed: int = 0) -> Examples:
    """Noise, a little brighter where the class says."""
    rng = np.random.default_rng(seed)
    labels = rng.integers(CLASSES, size=count).astype(np.int32)
    images = rng.integers(120, size=(count, *SHAPE)).astype(np.uint8)
    images[np.arange(count), labels // 2, labels % 2] += np.uint8(120)
    return Examples(images, labels, None)


def make_model(*, statistics: bool = False) -> Classifier:
    """A dense layer; its statistic, if it has one, is a running mean of the pixels, taken off."""

    def init(key: PRNGKey) -> Variables:
        kernel = 0.1 * jax.random.normal(key, (6, CLASSES))
        stats = {"mean": jnp.float32(0.5)} if statistics else {}
        return Variables({"bias": jnp.zeros(CLASSES), "kernel": kernel}, stats)

    def apply(variables: Variables, pixels: Pixels) -> jax.Array:
        params, mean = variables.params, variables.stats.get("mean", 0.5)
        flat = pixels.astype(jnp.float32).reshape(pixels.shape[0], -1) / 255 - mean
        return flat @ params["kernel"] + params["bias"][None, :]

    def learn(
        variables: Variables, pixels: Pixels, mask: Mask, key: PRNGKey
    ) -> tuple[jax.Array, PyTree]:
        if not statistics:
            return apply(variables, pixels), {}
        bright = jnp.mean(pixels.astype(jnp.float32), axis=(1, 2, 3)) / 255
        mean = jnp.sum(jnp.where(mask, bright, 0.0)) / jnp.sum(mask).astype(jnp.float32)
        stats = {"mean": 0.9 * variables.stats["mean"] + 0.1 * mean}
        return apply(Variables(variables.params, stats), pixels), stats

    return Classifier(init, apply, learn)


def make_clients(*sizes: int) -> tuple[Client, ...]:
    """Clients of these sizes; their examples follow one another."""
    owned = np.split(np.arange(sum(sizes)), np.cumsum(sizes)[:-1])
    none = np.zeros(0, np.int64)
    return tuple(Client(i, "here", rows, none) for i, rows in enumerate(owned))


def make_cohort(
    *sizes: int, ids: list[int] | None = None, slots: int | None = None, **changes: Any
) -> Cohort:
    """Those of the clients of these sizes who are named, or all."""
    chosen = np.array(range(len(sizes)) if ids is None else ids, int)
    settings = config.Federated(**{"batch_size": 4, "local_epochs": 2, **changes})
    everybody, examples = make_clients(*sizes), make_examples(sum(sizes))
    return cohort(everybody, chosen, examples, settings, seed=0, round=1, slots=slots)


def as_floats(images: jax.Array, key: PRNGKey) -> jax.Array:
    """The augmentation that changes nothing."""
    return images.astype(jnp.float32)


def jitter(images: jax.Array, key: PRNGKey) -> jax.Array:
    """An augmentation that depends on its key."""
    return images.astype(jnp.float32) + jax.random.uniform(key, (images.shape[0],) + (1,) * 3) * 9


def slot(laid: Cohort, at: int) -> tuple[Batch, jax.Array]:
    """One client's batches and steps."""
    batches = Batch(*(jnp.asarray(x[at]) for x in laid.batches))
    return batches, jnp.asarray(laid.steps[at])


def close(a: PyTree, b: PyTree, tolerance: float = 1e-6) -> None:
    """Fails where two trees differ."""
    jax.tree.map(
        lambda x, y: np.testing.assert_allclose(x, y, rtol=tolerance, atol=tolerance), a, b
    )


def same(a: PyTree, b: PyTree) -> None:
    """Fails where two trees differ in any bit."""
    jax.tree.map(lambda x, y: np.testing.assert_array_equal(x, y, strict=True), a, b)


def replaced_by(model: Classifier, data_seed: int = 0) -> Iterator[None]:
    """Puts a tiny model and tiny data where the config's would be."""
    info = DatasetInfo("tiny", ("a", "b", "c", "d"), (), (0.0,), (1.0,))
    train, nothing, test = (make_examples(n, data_seed + n) for n in (60, 0, 30))
    splits = Splits(train, nothing, test, info)
    with pytest.MonkeyPatch.context() as patch:
        for name in ("parts", "evaluate"):
            module = importlib.import_module(f"federated.{name}")
            patch.setattr(module, "load", lambda data: splits)
        patch.setattr(importlib.import_module("federated.parts"), "build", lambda *a, **k: model)
        patch.setattr(importlib.import_module("federated.evaluate"), "classifier", lambda *a: model)
        yield
