"""Poisson batches: each example with the same probability, and none left out."""

import numpy as np
import pytest
from scipy.stats import binom

from lepton_jax.checks import UserError
from lepton_jax.data.batches import (
    PoissonBatches,
    poisson_batches,
    sampling_rate,
    seeded_choice,
    steps_per_epoch,
)
from lepton_jax.privacy.entropy import seeded_source
from lepton_jax.training.private_run import secure_choice
from tests.lepton_jax.training.tiny_private import numbered


def seeded(count: int, size: int, seed: int, epochs: int) -> PoissonBatches:
    choose = seeded_choice(count, size, seed=seed)
    return poisson_batches(numbered(count), size, choose=choose, epochs=epochs)


def secure(count: int, size: int, epochs: int) -> PoissonBatches:
    choose = secure_choice(seeded_source(0), count, sampling_rate(count, size))
    return poisson_batches(numbered(count), size, choose=choose, epochs=epochs)


@pytest.mark.parametrize("drawn", [seeded(50, 10, 0, 200), secure(50, 10, 200)])
def test_every_example_is_in_a_poisson_batch_with_the_same_probability(
    drawn: PoissonBatches,
) -> None:
    assert drawn.rate == 0.2
    together, sizes = np.zeros((50, 50)), []
    for epoch in range(1, 201):
        for each in drawn.epoch(epoch):
            assert len(each.labels) == drawn.capacity
            size = int(each.mask.sum())
            own = np.asarray(each.labels)[:size]
            assert each.mask[:size].all() and len(set(own.tolist())) == size
            together[np.ix_(own, own)] += 1
            sizes.append(size)
    assert 18 < max(sizes) <= drawn.capacity < 50 and min(sizes) < 5
    assert np.mean(sizes) == pytest.approx(10, rel=0.03)
    assert np.var(sizes) == pytest.approx(50 * 0.2 * 0.8, rel=0.15)
    assert np.diag(together) / 1000 == pytest.approx(np.full(50, 0.2), abs=0.05)
    pairs = together[~np.eye(50, dtype=bool)] / 1000
    assert pairs == pytest.approx(np.full(pairs.size, 0.04), abs=0.035)


def test_seeded_batches_depend_on_seed_and_epoch_alone() -> None:
    def labels(seed: int, epoch: int) -> list[list[int]]:
        return [each.labels[each.mask].tolist() for each in seeded(30, 6, seed, 3).epoch(epoch)]

    assert labels(1, 2) == labels(1, 2)
    assert labels(1, 2) != labels(1, 3)
    assert labels(1, 2) != labels(2, 2)


def test_secure_batches_of_the_same_epoch_are_other_ones_each_time() -> None:
    drawn = secure(200, 20, 1)
    first, again = ([each.labels.tolist() for each in drawn.epoch(1)] for _ in range(2))
    assert not any(labels in first for labels in again)


@pytest.mark.parametrize(("count", "size"), [(60_000, 256), (1000, 1000), (10, 4), (1, 64)])
def test_a_batch_above_the_capacity_is_as_unlikely_as_was_said(count: int, size: int) -> None:
    drawn = seeded(count, size, 0, 10)
    steps = 10 * steps_per_epoch(count, size)
    assert binom.sf(drawn.capacity, count, drawn.rate) * steps <= 2.0**-40
    assert drawn.capacity <= count


def test_a_batch_above_the_capacity_raises_and_is_not_cut() -> None:
    drawn = poisson_batches(numbered(1000), 5, choose=lambda *_: np.arange(600), epochs=1)
    with pytest.raises(UserError, match=r"train.batch_size: expected at most .* got 600"):
        next(drawn.epoch(1))
