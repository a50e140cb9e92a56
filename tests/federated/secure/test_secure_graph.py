"""Graphs are regular, random and connected, and degrees are such that the bounds hold."""

import math

import numpy as np
import pytest

from federated.secure.graph import Shape, choose_shape, is_connected, neighbours
from federated.secure.messages import Context
from federated.secure.plan import make_plan
from lepton_jax.checks import UserError

CONTEXT = Context(b"a session's name", 0)


@pytest.mark.parametrize(("clients", "degree"), [(3, 2), (4, 3), (7, 4), (8, 4), (50, 12)])
def test_a_graph_is_regular_symmetric_and_connected(clients: int, degree: int) -> None:
    graph = neighbours(clients, degree, CONTEXT)
    assert all(len(set(those)) == degree and i not in those for i, those in enumerate(graph))
    assert all(i in graph[j] for i, those in enumerate(graph) for j in those)
    assert is_connected(set(range(clients)), graph)


def test_it_is_another_in_every_round_and_session() -> None:
    contexts = [CONTEXT, CONTEXT._replace(round=1), CONTEXT._replace(session=b"another's name!!")]
    assert len({neighbours(40, 4, context) for context in contexts}) == 3
    assert neighbours(40, 4, CONTEXT) == neighbours(40, 4, CONTEXT)


def test_every_pair_is_as_likely_to_be_neighbours() -> None:
    counts = np.zeros((7, 7))
    for number in range(1500):
        for i, those in enumerate(neighbours(7, 2, CONTEXT._replace(round=number))):
            counts[i, those] += 1
    chances = counts[~np.eye(7, dtype=bool)] / 1500
    assert np.abs(chances - 2 / 6).max() < 5 * math.sqrt(1 / 3 * 2 / 3 / 1500)


def test_fewer_than_half_the_degree_in_a_row_do_not_part_it() -> None:
    rng = np.random.default_rng(0)
    graph = neighbours(30, 6, CONTEXT)
    for _ in range(200):
        gone = {int(i) for i in rng.choice(30, 5, replace=False)}  # below two gaps of 3
        assert is_connected(set(range(30)) - gone, graph)


def exact(clients: int, gone: int, bad: int, shape: Shape) -> float:
    """The module's three bounds, summed as they are written there."""

    def at_least(marked: int, least: int) -> float:
        n, k = clients - 1, shape.degree
        ways = sum(math.comb(marked, x) * math.comb(n - marked, k - x) for x in range(least, k + 1))
        return ways / math.comb(n, k)

    parted = math.comb(clients, 2) * math.prod(
        max(0, gone + bad - i) / (clients - i) for i in range(shape.degree)
    )
    left = at_least(gone, shape.degree - shape.threshold + 1)
    return clients * (at_least(bad, shape.threshold) + left) + min(1.0, parted)


@pytest.mark.parametrize("clients", [40, 100, 333])
@pytest.mark.parametrize(("dropouts", "colluders"), [(0.1, 0.1), (0.2, 0.05), (0.0, 0.3)])
def test_the_chosen_degree_is_the_least_that_keeps_the_bounds(
    clients: int, dropouts: float, colluders: float
) -> None:
    failure = 2.0**-30
    shape = choose_shape(clients, dropouts=dropouts, colluders=colluders, failure=failure)
    gone, bad = math.ceil(dropouts * clients), math.ceil(round(colluders * clients, 9))
    assert shape.degree < clients - 1
    assert exact(clients, gone, bad, shape) <= failure
    fewer = shape.degree - 2
    for threshold in range(fewer // 2 + 1, fewer + 1):
        assert exact(clients, gone, bad, Shape(fewer, threshold)) > failure


def test_the_bounds_are_bounds() -> None:
    rng = np.random.default_rng(0)
    clients, gone, bad, shape = 60, 12, 9, Shape(8, 5)
    failed = 0
    for number in range(600):
        graph = neighbours(clients, shape.degree, CONTEXT._replace(round=number))
        order = [int(i) for i in rng.permutation(clients)]
        dropped, colluding = set(order[:gone]), set(order[gone : gone + bad])
        few = any(len(set(those) - dropped) < shape.threshold for those in graph)
        many = any(len(set(those) & colluding) >= shape.threshold for those in graph)
        parted = not is_connected(set(range(clients)) - dropped - colluding, graph)
        failed += few or many or parted
    assert 0 < failed / 600 <= exact(clients, gone, bad, shape)


@pytest.mark.parametrize("clients", [3, 10, 31, 32])
def test_few_clients_are_all_neighbours(clients: int) -> None:
    shape = choose_shape(clients, dropouts=0.1, colluders=0.1, failure=2**-40)
    assert shape == Shape(clients - 1, clients // 2 + 1)


def test_a_threshold_is_above_the_colluders_of_a_complete_graph() -> None:
    assert choose_shape(20, dropouts=0.2, colluders=0.7, failure=2**-40) == Shape(19, 15)


def test_where_no_sparse_graph_will_do_it_is_complete() -> None:
    assert choose_shape(41, dropouts=20 / 41, colluders=0.0, failure=2**-40) == Shape(40, 21)


def test_with_neither_dropouts_nor_colluders_it_is_a_ring() -> None:
    assert choose_shape(33, dropouts=0.0, colluders=0.0, failure=2**-40) == Shape(2, 2)


@pytest.mark.parametrize("value", [-0.1, 1.0, math.nan])
def test_a_fraction_out_of_range_is_refused(value: float) -> None:
    with pytest.raises(UserError, match=r"^secure aggregation: dropouts: expected a fraction in"):
        choose_shape(50, dropouts=value, colluders=0.1, failure=0.1)
    with pytest.raises(UserError, match=r"^secure aggregation: colluders: expected a fraction in"):
        choose_shape(50, dropouts=0.1, colluders=value, failure=0.1)


@pytest.mark.parametrize("value", [0.0, -0.1, 1.0, math.nan])
def test_a_probability_of_failure_out_of_range_is_refused(value: float) -> None:
    with pytest.raises(UserError, match=r"^secure aggregation: failure: expected a probability"):
        choose_shape(50, dropouts=0.1, colluders=0.1, failure=value)


@pytest.mark.parametrize(("dropouts", "colluders"), [(0.5, 0.0), (0.2, 0.8), (0.9, 0.1)])
def test_too_many_dropouts_and_colluders_are_refused(dropouts: float, colluders: float) -> None:
    with pytest.raises(UserError, match=r"^secure aggregation: dropouts: expected at most"):
        choose_shape(100, dropouts=dropouts, colluders=colluders, failure=0.1)


@pytest.mark.parametrize("clients", [0, 1, 2])
def test_fewer_than_3_clients_are_refused(clients: int) -> None:
    for refused in (
        lambda: choose_shape(clients, dropouts=0.0, colluders=0.0, failure=0.1),
        lambda: make_plan(clients, 5, Shape(2, 2), CONTEXT),
    ):
        with pytest.raises(UserError, match=r"clients: expected at least 3"):
            refused()


@pytest.mark.parametrize("degree", [0, 1, 3, 6, -2])
def test_a_degree_that_no_graph_has_is_refused(degree: int) -> None:
    with pytest.raises(UserError, match=r"^secure aggregation: degree: expected an even number"):
        make_plan(6, 5, Shape(degree, 2), CONTEXT)


@pytest.mark.parametrize("threshold", [0, 3, 7])
def test_a_threshold_of_at_most_half_or_above_all_is_refused(threshold: int) -> None:
    make_plan(6, 5, Shape(5, 4), CONTEXT)
    make_plan(6, 5, Shape(5, 6), CONTEXT)
    with pytest.raises(UserError, match=r"^secure aggregation: threshold: expected 4 to 6"):
        make_plan(6, 5, Shape(5, threshold), CONTEXT)


def test_a_short_session_name_is_refused() -> None:
    with pytest.raises(UserError, match=r"session: expected at least 16 bytes, got 15"):
        make_plan(6, 5, Shape(5, 4), Context(bytes(15), 0))


def test_a_negative_round_or_no_dimension_is_refused() -> None:
    with pytest.raises(UserError, match=r"round: expected at least 0, got -1"):
        make_plan(6, 5, Shape(5, 4), CONTEXT._replace(round=-1))
    with pytest.raises(UserError, match=r"dimension: expected at least 1, got 0"):
        make_plan(6, 0, Shape(5, 4), CONTEXT)
