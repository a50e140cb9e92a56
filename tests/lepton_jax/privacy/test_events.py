"""How often one unit counts, against going through every way in which it may take part."""

import math

import numpy as np
import pytest

from lepton_jax.privacy.events import Passes, Poisson, TreePasses, gaussians

LENGTHS = (1, 2, 3, 5, 8)
RELEASES = range(18)


def test_a_sampled_unit_may_be_in_every_sum() -> None:
    assert [gaussians(Poisson(0.1), n) for n in RELEASES] == list(RELEASES)


@pytest.mark.parametrize("length", LENGTHS)
def test_a_unit_takes_part_once_a_pass_from_the_first_release_on(length: int) -> None:
    for releases in RELEASES:
        most = max(len(range(first, releases, length)) for first in range(length))
        assert gaussians(Passes(length), releases) == most


@pytest.mark.parametrize("length", LENGTHS)
def test_a_trees_nodes_count_where_they_are_finished_and_above_the_unit(length: int) -> None:
    for releases in RELEASES:
        finished = [min(length, releases - begin) for begin in range(0, releases, length)]
        assert gaussians(TreePasses(length), releases) == sum(map(_most_nodes, finished))


def _most_nodes(leaves: int) -> int:
    """Of a tree of which so many leaves were released: the most finished nodes above one of them."""
    nodes = [
        range(begin, begin + size)
        for size in (2**level for level in range(leaves.bit_length()))
        for begin in range(0, leaves - size + 1, size)
    ]
    return max(sum(leaf in node for node in nodes) for leaf in range(leaves))


@pytest.mark.parametrize("length", LENGTHS)
def test_an_event_never_costs_less_for_going_on(length: int) -> None:
    for event in (Passes(length), TreePasses(length)):
        counts = [gaussians(event, n) for n in RELEASES]
        assert counts == sorted(counts)
        assert counts[0] == 0 < counts[1]


@pytest.mark.parametrize(("bands", "length"), [(2, 2), (3, 5), (4, 4)])
def test_correlated_noise_of_few_bands_counts_as_fresh_noise(bands: int, length: int) -> None:
    """What a unit moves C x by, for unit columns of C, at whichever releases and at opposite signs."""
    releases, rng = 13, np.random.default_rng(0)
    factor = np.triu(np.tril(rng.normal(size=(releases, releases))), 1 - bands)
    factor /= np.linalg.norm(factor, axis=0)
    for first in range(length):
        taken = np.arange(first, releases, length)
        signs = rng.choice([-1.0, 1.0], len(taken))
        moved = np.linalg.norm(factor[:, taken] @ signs)
        assert moved == pytest.approx(math.sqrt(len(taken)))
        assert moved <= math.sqrt(gaussians(Passes(length), releases)) + 1e-9
