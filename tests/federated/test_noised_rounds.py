"""What noise does in a round, and what it asks of one."""

from collections.abc import Iterator

import jax
import numpy as np
import pytest

from federated.aggregate import aggregate
from federated.algorithms import rounds
from federated.channel import plain
from federated.over import Kind
from federated.privacy.client_noise import local
from federated.privacy.noise import Drawn, Noise, gaussian
from federated.stages import clip
from lepton_jax import trees
from lepton_jax.checks import UserError
from lepton_jax.privacy.entropy import seeded_source
from lepton_jax.privacy.grid import clip_limit
from tests.federated import tiny
from tests.federated.played import KEY, begin, lay, make, play

NOISED = aggregate([clip(0.1)], plain(), gaussian(0.5, clients=3))


def test_an_empty_cohort_with_noise_releases_the_noise_alone() -> None:
    start = begin()
    state, _ = play(make(NOISED), lay())
    moved = np.concatenate(
        [np.ravel(x) for x in jax.tree.leaves(trees.sub(state.params, start.params))]
    )
    assert np.abs(moved).min() > 0 and np.std(moved) == pytest.approx(0.5 * 0.1 / 3, rel=0.5)


def test_noise_is_fixed_by_its_source_and_new_in_every_round() -> None:
    algorithm = make(NOISED)

    def moves(key: jax.Array, seed: int) -> Iterator[np.ndarray]:
        before = begin().params["kernel"]
        start, cohorts = algorithm.init(begin()), [lay()] * 2
        for _, state, _ in rounds(
            algorithm, start, cohorts, key, lambda number: seeded_source(seed, number)
        ):
            now = np.array(state.params["kernel"])
            yield now - before
            before = now

    first, second = moves(KEY, 0)
    again, _ = moves(jax.random.key(8), 0)
    other, _ = moves(KEY, 1)
    assert np.array_equal(first, again)
    assert not np.isclose(first, second).any() and not np.isclose(first, other).any()


def test_without_a_source_noise_is_new_in_every_run() -> None:
    algorithm = make(NOISED)
    runs = [list(rounds(algorithm, algorithm.init(begin()), [lay()], KEY)) for _ in range(2)]
    one, other = (run[0][1].params["kernel"] for run in runs)
    assert not np.isclose(one, other).any()


def test_more_clients_than_no_sum_wraps_with_are_refused() -> None:
    aggregator = aggregate([clip(0.1)], plain(), gaussian(0.5, clients=3, most=4))
    algorithm = make(aggregator)
    play(algorithm, lay(0, 1, 2, 3))
    with pytest.raises(UserError, match=r"^round: expected at most 4 clients, lest .*, got 5$"):
        play(algorithm, lay(0, 1, slots=5))


@pytest.mark.parametrize("over", ["scan", "vmap", "shard"])
def test_a_client_s_noise_goes_with_its_slot(over: Kind) -> None:
    noise = local(0.5, clients=3)
    aggregator = aggregate([clip(0.1)], plain(), noise)
    algorithm = make(aggregator, over)
    laid = lay(0, 3, slots=5)
    variables = begin()
    drawn = algorithm.draw(algorithm.init(variables), seeded_source(0), laid)
    own = [jax.tree.map(lambda x, i=i: x[i], drawn.clients) for i in range(5)]
    grid = noise.grid(0.1)
    silent = drawn._replace(clients=jax.tree.map(np.zeros_like, drawn.clients))
    noised, quiet = (
        algorithm.apply(algorithm.init(variables), laid, KEY, given)[0].params
        for given in (drawn, silent)
    )
    room = clip_limit(grid, trees.size(variables.params)) / grid.bound
    added = jax.tree.map(lambda x, y: (x + y) * np.float32(grid.unit / room / 3), own[0], own[1])
    tiny.close(trees.sub(noised, quiet), added, 1e-5)  # empty slots' noise is nowhere


def test_shared_statistics_are_refused_with_noise() -> None:
    with pytest.raises(Exception, match=r"model\.norm"):
        make(NOISED).init(tiny.make_model(statistics=True).init(KEY))


@pytest.mark.parametrize("noise", [gaussian(0.5, clients=3), local(0.5, clients=3)])
def test_a_round_that_was_given_no_noise_is_refused(noise: Noise) -> None:
    algorithm = make(aggregate([clip(0.1)], plain(), noise))
    with pytest.raises(UserError, match="round: expected noise that was drawn for it, got none"):
        algorithm.apply(algorithm.init(begin()), lay(0), KEY, Drawn())
