"""DP-SGD: what an example adds is bounded, noise is what was said, and equals its slow twin."""

import shutil
from functools import cache
from pathlib import Path

import jax
import jax.numpy as jnp
import msgspec
import numpy as np
import pytest

from lepton_jax import config, trees
from lepton_jax.checks import UserError
from lepton_jax.data.batches import steps_per_epoch
from lepton_jax.data.load import load
from lepton_jax.privacy.accounting import epsilon
from lepton_jax.training import finish, train
from lepton_jax.training.losses import cross_entropy
from lepton_jax.training.private import clipped_sum, private_gradient
from lepton_jax.training.private_run import private_promise
from lepton_jax.training.records import read_records
from lepton_jax.training.step import mean_gradient
from lepton_jax.typing import Batch, PyTree
from tests.lepton_jax.training.tiny_private import (
    KEY,
    MODEL,
    NETWORK,
    REPEATABLE,
    SECURE,
    VARIABLES,
    as_floats,
    batch,
    gradient_of,
    private_run,
)


def each_gradient(examples: Batch) -> list[PyTree]:
    """The slow twin: one example after another."""
    return [
        _plain(VARIABLES, jax.tree.map(lambda x, i=i: x[i : i + 1], examples), KEY)[0]
        for i in range(int(examples.mask.sum()))
    ]


_plain = jax.jit(mean_gradient(MODEL, cross_entropy(), augment=as_floats))


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


# --- runs ---------------------------------------------------------------------------------------


@cache
def spent_after(epochs: int) -> float:
    count = len(load(private_run().data).train.labels)
    return epsilon(
        sampling_rate=128 / count,
        noise_multiplier=1.0,
        steps=epochs * steps_per_epoch(count, 128),
        delta=1e-5,
    )


def test_a_private_run_tells_its_epsilon_and_resumes_bitwise(tmp_path: Path) -> None:
    run = private_run(privacy=msgspec.structs.replace(REPEATABLE, epsilon=spent_after(2)))
    whole = finish(train(run, tmp_path / "whole"))
    records = read_records(tmp_path / "whole" / "metrics.jsonl")
    assert whole.epsilon == records[-1]["epsilon"] == spent_after(2)
    assert records[0]["epsilon"] == spent_after(1) < spent_after(2)
    assert whole.delta == 1e-5 and whole.randomness == "reproducible"
    assert whole.stopped is None  # a budget that pays for the whole run stops nothing

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


def test_a_secure_run_tells_its_epsilon_and_draws_anew_when_it_goes_on(tmp_path: Path) -> None:
    run, ends = private_run(privacy=SECURE), []
    progress = train(run, tmp_path / "run")
    while "epsilon" not in next(progress).note:
        pass
    progress.close()
    for name in ("first", "second"):
        shutil.copytree(tmp_path / "run", tmp_path / name)
        ends.append(finish(train(run, tmp_path / name, resume=True)))
    records = read_records(tmp_path / "first" / "metrics.jsonl")
    assert ends[0].params_sha256 != ends[1].params_sha256
    assert ends[0].epsilon == ends[1].epsilon == records[1]["epsilon"] == spent_after(2)
    for record in records:
        assert record["delta"] == 1e-5
        assert record["randomness"] == ends[0].randomness == "secure"
        assert record["not_private"] == ends[0].not_private == ["train", "validation", "test"]


# --- budgets --------------------------------------------------------------------------------------


def test_noise_that_is_not_given_is_what_the_budget_needs_for_the_whole_run() -> None:
    asked = config.Privacy(epsilon=2.0, delta=1e-4)
    terms = private_promise(private_run(privacy=asked, epochs=3), 1000).terms
    spent = epsilon(
        sampling_rate=0.128, noise_multiplier=terms.noise_multiplier, steps=24, delta=1e-4
    )
    assert 1.99 < spent <= 2.0
    assert (terms.budget, terms.delta, terms.sampling_rate) == (2.0, 1e-4, 0.128)


def test_noise_that_is_given_stays() -> None:
    asked = config.Privacy(epsilon=50.0, noise_multiplier=1.5)
    assert private_promise(private_run(privacy=asked), 1000).terms.noise_multiplier == 1.5


def test_replacing_one_needs_more_noise_than_adding_one() -> None:
    noises = [
        private_promise(
            private_run(privacy=config.Privacy(epsilon=2.0, adjacency=adjacency)), 1000
        ).terms.noise_multiplier
        for adjacency in ("add-remove", "replace-one")
    ]
    assert noises[1] > 1.2 * noises[0]


def test_a_run_stops_before_the_epoch_that_would_pass_its_budget(tmp_path: Path) -> None:
    budget = (spent_after(2) + spent_after(3)) / 2
    run = private_run(privacy=msgspec.structs.replace(SECURE, epsilon=budget), epochs=9)
    run = msgspec.structs.replace(run, checkpoint=config.Checkpoint(every=5))
    result = finish(train(run, tmp_path / "run"))
    assert len(read_records(tmp_path / "run" / "metrics.jsonl")) == 2
    assert result.stopped == "budget" and result.checkpoint == 2
    assert result.epsilon is not None and result.epsilon <= budget < spent_after(3)
    assert finish(train(run, tmp_path / "run", resume=True)) == result


def test_a_budget_below_one_epoch_is_refused(tmp_path: Path) -> None:
    asked = msgspec.structs.replace(SECURE, epsilon=spent_after(1) * 0.99)
    with pytest.raises(
        UserError, match=r"^epsilon: expected at least .*, which the first release spends"
    ):
        finish(train(private_run(privacy=asked), tmp_path / "run"))


def test_a_loss_that_is_not_finite_is_told_as_0() -> None:
    """A run that stopped for one example's loss would tell of that example."""
    known = cross_entropy()

    def loss(logits: jax.Array, labels: jax.Array) -> jax.Array:
        return jnp.where(labels == 0, jnp.inf, known(logits, labels))

    settings = config.Privacy(noise_multiplier=1.0, clip_norm=1.0, microbatch=4)
    gradient = private_gradient(MODEL, loss, settings, augment=as_floats, batch_size=10)
    examples = batch(9)
    found, (tally, _) = gradient(VARIABLES, examples, KEY)
    each = known(MODEL.apply(VARIABLES, as_floats(examples.images, KEY)), examples.labels)
    rest = float(jnp.sum(each, where=examples.labels != 0))
    assert int(tally.count) == 9
    assert float(tally.loss) == pytest.approx(rest, rel=1e-5) != float(each.sum())
    assert bool(trees.all_finite(found))
