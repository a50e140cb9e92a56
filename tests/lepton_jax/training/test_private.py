"""DP-SGD: what an example adds is bounded, noise is what was said, and equals its slow twin."""

from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from lepton_jax import config, trees
from lepton_jax.checks import UserError
from lepton_jax.data.batches import poisson_batches
from lepton_jax.data.load import load
from lepton_jax.data.splits import Examples
from lepton_jax.models import build
from lepton_jax.privacy.accounting import epsilon
from lepton_jax.training import finish, train
from lepton_jax.training.losses import cross_entropy
from lepton_jax.training.private import clipped_sum, private_gradient
from lepton_jax.training.records import read_records
from lepton_jax.training.step import mean_gradient
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
    settings = config.Privacy(noise_multiplier=noise, clip_norm=clip, microbatch=size)
    gradient = private_gradient(MODEL, cross_entropy(), settings, augment=as_floats, batch_size=10)
    return jax.jit(gradient)(VARIABLES, examples, KEY)


def each_gradient(examples: Batch) -> list[PyTree]:
    """The slow twin: one example after another."""
    plain = jax.jit(mean_gradient(MODEL, cross_entropy(), augment=as_floats))
    return [
        plain(VARIABLES, jax.tree.map(lambda x, i=i: x[i : i + 1], examples), KEY)[0]
        for i in range(int(examples.mask.sum()))
    ]


def assert_close(a: PyTree, b: PyTree) -> None:
    jax.tree.map(lambda x, y: np.testing.assert_allclose(x, y, rtol=1e-4, atol=1e-6), a, b)


@pytest.mark.parametrize("size", [1, 3, 16])
@pytest.mark.parametrize("padding", [0, 5])
def test_it_is_the_sum_of_each_examples_clipped_gradient(size: int, padding: int) -> None:
    examples = batch(7, padding)
    alone = each_gradient(examples)
    norms = np.array([float(trees.norm(g)) for g in alone])
    clip = float(np.median(norms))
    expected = trees.zeros_like(VARIABLES.params)
    for gradient, norm in zip(alone, norms, strict=True):
        expected = trees.add(expected, trees.scale(gradient, min(1.0, clip / norm)))
    found, (tally, _) = gradient_of(examples, clip=clip, size=size)
    assert_close(found, trees.scale(expected, 1 / 10))
    assert int(tally.count) == 7


def test_without_clipping_and_noise_it_is_the_mean_gradient() -> None:
    examples = batch(10)
    plain, (tally, _) = mean_gradient(MODEL, cross_entropy(), augment=as_floats)(
        VARIABLES, examples, KEY
    )
    found, (counted, _) = gradient_of(examples, clip=1e6)
    assert_close(found, plain)
    assert_close(tuple(counted), tuple(tally))


def test_an_example_moves_the_sum_by_no_more_than_the_bound() -> None:
    examples = batch(9)
    without = examples._replace(mask=examples.mask.at[8].set(False))
    both = [gradient_of(each, clip=0.01)[0] for each in (examples, without)]
    moved = float(trees.norm(trees.sub(*both))) * 10
    assert 0 < moved <= 0.01 * (1 + 1e-5)


def test_an_empty_batch_gives_noise_of_the_deviation_that_was_said() -> None:
    nothing = batch(0, padding=8)
    found, (tally, _) = gradient_of(nothing, noise=3.0, clip=0.5)
    drawn = np.concatenate([np.ravel(x) for x in jax.tree.leaves(found)]) * 10
    assert int(tally.count) == 0
    assert drawn.std() == pytest.approx(1.5, rel=0.2) and abs(drawn.mean()) < 0.5
    assert len(np.unique(drawn)) == len(drawn)  # no leaf has another's noise


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf, 1e30])
def test_a_gradient_that_is_not_finite_adds_nothing(bad: float) -> None:
    gradients = {"a": jnp.ones((3, 2)).at[1, 0].set(bad), "b": jnp.ones((3, 4))}
    found = clipped_sum(gradients, jnp.ones(3, bool), 10.0)
    assert_close(found, {"a": jnp.full(2, 2.0), "b": jnp.full(4, 2.0)})


def test_masked_gradients_and_those_of_zero_add_nothing() -> None:
    gradients = {"a": jnp.array([[jnp.nan, 1.0], [0.0, 0.0], [3.0, 4.0]])}
    found = clipped_sum(gradients, jnp.array([False, True, True]), 1.0)
    np.testing.assert_allclose(found["a"], [0.6, 0.8], rtol=1e-5)
    assert float(trees.norm(found)) <= 1.0


# --- batches --------------------------------------------------------------------------------------


def numbered(count: int) -> Examples:
    images = np.zeros((count, *SHAPE), np.uint8)
    return Examples(images, np.arange(count, dtype=np.int32), None)


def test_every_example_is_in_a_poisson_batch_with_the_same_probability() -> None:
    drawn = poisson_batches(numbered(50), 10, seed=0, epochs=200)
    assert drawn.rate == 0.2
    counts, sizes = np.zeros(50), []
    for epoch in range(1, 201):
        for each in drawn.epoch(epoch):
            assert len(each.labels) == drawn.capacity
            size = int(each.mask.sum())
            own = each.labels[:size]
            assert each.mask[:size].all() and len(set(own.tolist())) == size
            counts[own] += 1
            sizes.append(size)
    assert max(sizes) == drawn.capacity and min(sizes) < 5
    assert np.mean(sizes) == pytest.approx(10, rel=0.03)
    assert np.var(sizes) == pytest.approx(50 * 0.2 * 0.8, rel=0.15)
    assert counts / 1000 == pytest.approx(np.full(50, 0.2), abs=0.05)


def test_poisson_batches_depend_on_seed_and_epoch_alone() -> None:
    def labels(seed: int, epoch: int) -> list[list[int]]:
        drawn = poisson_batches(numbered(30), 6, seed=seed, epochs=3)
        return [each.labels[each.mask].tolist() for each in drawn.epoch(epoch)]

    assert labels(1, 2) == labels(1, 2)
    assert labels(1, 2) != labels(1, 3)
    assert labels(1, 2) != labels(2, 2)


# --- runs -----------------------------------------------------------------------------------------


def private_run(**train: Any) -> config.Run:
    settings: dict[str, Any] = {
        "epochs": 2,
        "batch_size": 128,
        "optimizer": config.Sgd(learning_rate=1.0),
        "privacy": config.Privacy(noise_multiplier=1.0, microbatch=32),
    }
    return config.Run(
        data=config.Data(normalization="unit"),
        model=NETWORK,
        train=config.Train(**{**settings, **train}),
    )


def test_a_private_run_tells_its_epsilon_and_resumes_bitwise(tmp_path: Path) -> None:
    run = private_run()
    whole = finish(train(run, tmp_path / "whole"))
    records = read_records(tmp_path / "whole" / "metrics.jsonl")
    spent = epsilon(
        sampling_rate=128 / len(load(run.data).train.labels),
        noise_multiplier=1.0,
        steps=records[-1]["step"],
        delta=1e-5,
    )
    assert whole.epsilon == records[-1]["epsilon"] == spent
    assert records[0]["epsilon"] < records[1]["epsilon"]
    assert whole.delta == 1e-5

    progress = train(run, tmp_path / "parts")
    while "epsilon" not in next(progress).note:
        pass
    progress.close()
    resumed = finish(train(run, tmp_path / "parts", resume=True))
    assert resumed.params_sha256 == whole.params_sha256
    assert resumed.epsilon == whole.epsilon


@pytest.mark.parametrize(
    ("model", "data", "words"),
    [
        (config.Model(name="resnet8"), config.Data(normalization="unit"), "model.norm: expected"),
        (NETWORK, config.Data(), "data.normalization: expected one that tells nothing"),
    ],
)
def test_what_would_leave_unprotected_is_refused(
    model: config.Model, data: config.Data, words: str, tmp_path: Path
) -> None:
    run = config.Run(model=model, data=data, train=private_run().train)
    with pytest.raises(UserError, match=words):
        finish(train(run, tmp_path / "run"))
    assert not (tmp_path / "run").exists()


def test_clipping_twice_is_refused() -> None:
    with pytest.raises(ValueError, match="remove clip_norm"):
        private_run(clip_norm=1.0)
