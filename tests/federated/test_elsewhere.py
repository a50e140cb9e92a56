"""A round whose sum is made outside of its program is the round whose sum is made inside."""

from typing import Any

import jax
import numpy as np
import pytest

from federated.aggregate import Aggregator, aggregate
from federated.algorithms import rounds
from federated.channel import HostChannel, RoundMark, plain
from federated.over import Kind
from federated.privacy.client_noise import local
from federated.privacy.ftrl import banded, tree
from federated.privacy.noise import Noise, gaussian
from federated.stages import clip
from tests.federated import tiny
from tests.federated.played import KEY, begin, lay, make, play, sources


def elsewhere(noise: Noise | None, total: Any = None) -> Aggregator:
    """Clipped to 0.1; summed with numpy, or as said."""

    def added(mark: RoundMark, ids: np.ndarray, sent: Any) -> Any:
        return jax.tree.map(lambda x: x.sum(0, dtype=np.int32), sent)

    return aggregate([clip(0.1)], HostChannel("sums elsewhere", total or added), noise)


@pytest.mark.parametrize(
    ("noise", "over"),
    [
        (local(0.5, clients=3), "scan"),
        (local(0.5, clients=3), "vmap"),
        (gaussian(0.5, clients=3), "shard"),
    ],
)
def test_a_sum_made_elsewhere_is_the_sum_made_here(noise: Noise, over: Kind) -> None:
    laid = [lay(0, 1, 2, slots=5), lay(3, 1, slots=5)]
    here = make(aggregate([clip(0.1)], plain(), noise))
    there = make(elsewhere(noise), over)
    expected, report = play(here, *laid)
    state, same_report = play(there, *laid)
    tiny.close((state, same_report), (expected, report))


def test_a_sum_made_elsewhere_is_of_those_who_are_there() -> None:
    seen: list[Any] = []

    def total(mark: RoundMark, ids: np.ndarray, sent: Any) -> Any:
        seen.append((mark.number, ids.tolist(), jax.tree.map(lambda x: (x.shape, x.dtype), sent)))

    play(make(elsewhere(None, total)), lay(3, 1), lay())
    assert [each[:2] for each in seen] == [(1, [3, 1]), (2, [])]
    delta, weight = seen[0][2]
    assert delta["kernel"] == ((2, 6, tiny.CLASSES), np.dtype(np.int32))
    assert weight == ((2,), np.dtype(np.int32))


@pytest.mark.parametrize("noise", [None, gaussian(0.5, clients=3)])
def test_a_sum_that_comes_to_nothing_leaves_the_model(noise: Noise | None) -> None:
    algorithm = make(elsewhere(noise, lambda round, ids, sent: None))
    state, report = play(algorithm, lay(0, 1), lay(3))
    tiny.same(state.params, jax.device_get(begin().params))
    assert (int(state.round), int(report.clients)) == (2, 1)


@pytest.mark.parametrize("noise", [tree(0.5, 3, 2), banded(0.5, 3, 2, 2)])
def test_noise_keeps_in_step_with_the_passes_where_a_sum_comes_to_nothing(noise: Noise) -> None:
    def nothing_first(mark: RoundMark, ids: np.ndarray, sent: Any) -> Any:
        return None if mark.number == 1 else jax.tree.map(lambda x: x.sum(0, dtype=np.int32), sent)

    laid = lay(), lay(0, 1, 2)
    ends = []
    for aggregator in (elsewhere(noise), elsewhere(noise, nothing_first)):
        algorithm = make(aggregator)
        (_, first, _), (_, last, _) = (
            (number, jax.device_get(state), report)
            for number, state, report in rounds(
                algorithm, algorithm.init(begin()), laid, KEY, sources
            )
        )
        ends.append((first, last))
    (whole_first, whole_last), (first, last) = ends
    tiny.same(first.aggregator, whole_first.aggregator)
    tiny.same(last.aggregator, whole_last.aggregator)
    tiny.same(first.params, jax.device_get(begin().params))
    assert not np.isclose(whole_first.params["kernel"], first.params["kernel"]).any()
