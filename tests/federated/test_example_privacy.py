"""DP-SGD on the clients: each step of each client has a batch and noise of its own, at the rate charged."""

import math
from typing import Any

import jax
import msgspec
import numpy as np
import pytest

from federated.example_privacy import example_privacy
from federated.parts import sources
from federated.privacy.promise import local_steps
from federated.sampling import Cohort
from lepton_jax import config, trees
from lepton_jax.privacy.entropy import Source, seeded_source
from lepton_jax.training.private import private_grid
from tests.federated import tiny

SIZES, RATE = (40, 30, 50), 0.3
PRIVACY = config.ClientPrivacy(noise_multiplier=0.8, sampling_rate=RATE)
SETTINGS = config.Federated(
    clients=3,
    regions=("here",),
    clients_per_round=3,
    batch_size=8,
    local_epochs=2,
    weights="uniform",
    example_privacy=PRIVACY,
)
STEPS = local_steps(2, RATE)


def lay(source: Source, ids: tuple[int, ...] = (0, 1, 2), slots: int = 4) -> Cohort:
    held = tiny.make_clients(*SIZES), tiny.make_examples(sum(SIZES))
    model = tiny.make_model()
    made = example_privacy(SETTINGS, 0.8, model, tiny.LOSS, tiny.as_floats, held)
    return made.lay(np.array(ids), source, slots)


@pytest.mark.parametrize("randomness", ["secure", "reproducible"])
def test_its_noise_follows_from_the_run_s_seed_only_where_that_is_asked_for(
    randomness: Any,
) -> None:
    private = msgspec.structs.replace(PRIVACY, randomness=randomness)
    settings = msgspec.structs.replace(SETTINGS, example_privacy=private, randomness="reproducible")
    one, again = (sources(config.Run(federated=settings))(1).words(4) for _ in range(2))
    assert (one == again).all() == (randomness == "reproducible")


def noise_of(cohort: Cohort) -> np.ndarray:
    """Each step's noise as one row, [C,T,D]."""
    leaves = jax.tree.leaves(cohort.batches.noise)
    return np.concatenate([np.asarray(x).reshape(*x.shape[:2], -1) for x in leaves], axis=-1)


def test_no_step_of_any_client_or_round_has_another_s_noise() -> None:
    source = seeded_source(0)
    drawn = np.concatenate([noise_of(lay(source)), noise_of(lay(source))])
    assert drawn.shape[:2] == (8, STEPS)
    rows = drawn.reshape(8 * STEPS, -1).astype(np.float64)
    assert np.abs(np.corrcoef(rows) - np.eye(len(rows))).max() < 0.95
    assert len(np.unique(rows, axis=0)) == len(rows)


def test_the_noise_has_the_deviation_that_is_charged_for() -> None:
    source = seeded_source(1)
    drawn = np.concatenate([noise_of(lay(source)).ravel() for _ in range(8)])
    size = trees.size(tiny.make_model().init(jax.random.key(0)).params)
    privacy: Any = PRIVACY
    grid = private_grid(privacy, capacity=50, size=size)
    assert np.std(drawn) == pytest.approx(0.8 * grid.bound, rel=5 / math.sqrt(2 * len(drawn)))


def test_each_step_takes_each_of_the_client_s_examples_at_the_rate() -> None:
    source, seen = seeded_source(2), np.zeros((3, STEPS))
    images = tiny.make_examples(sum(SIZES)).images
    ends = np.cumsum(SIZES)
    for _ in range(40):
        batch = lay(source).batches.examples
        assert not batch.mask[3].any()
        for client in range(3):
            own = {x.tobytes() for x in images[ends[client] - SIZES[client] : ends[client]]}
            steps = [
                {x.tobytes() for x in batch.images[client, step][batch.mask[client, step]]}
                for step in range(STEPS)
            ]
            assert all(taken <= own for taken in steps)
            assert len({frozenset(taken) for taken in steps}) == STEPS
            seen[client] += batch.mask[client].sum(-1)
    counts = np.array(SIZES)[:, None] * 40
    off = (seen - RATE * counts) / np.sqrt(RATE * (1 - RATE) * counts)
    assert np.abs(off).max() < 4.5
