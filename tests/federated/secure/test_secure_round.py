"""A round gives exactly the senders' sum, or stops because too few are left."""

import os
from collections.abc import Mapping

import numpy as np
import pytest

from federated.secure.encode import fixed_point
from federated.secure.graph import Shape, choose_shape
from federated.secure.messages import STAGES, AbortError, Context, Stage
from federated.secure.plan import Plan, make_plan
from federated.secure.session import Outcome, simulate_round
from lepton_jax.checks import UserError
from tests.federated.secure.drive import SESSION, any_drops, any_plan, any_vectors

CONTEXT = Context(SESSION, 0)


def complete(clients: int, dimension: int, threshold: int | None = None) -> Plan:
    shape = Shape(clients - 1, threshold or clients // 2 + 1)
    return make_plan(clients, dimension, shape, CONTEXT)


def plain(vectors: np.ndarray, senders: list[int]) -> np.ndarray:
    return vectors[senders].astype(object).sum(0) % 2**32


def can_finish(plan: Plan, drops: Mapping[int, Stage]) -> bool:
    """What the protocol says: at each stage enough are around each client, and in one piece."""
    n = len(plan.neighbours)
    near = np.eye(n, dtype=int)
    for i, those in enumerate(plan.neighbours):
        near[i, list(those)] = 1
    last = np.array([STAGES.index(drops[i]) if i in drops else 4 for i in range(n)])
    there = [(last > stage).astype(int) for stage in range(4)]
    enough = [near @ here >= plan.threshold for here in there]
    if not there[3].any() or not all(enough[s][there[s] == 1].all() for s in range(3)):
        return False
    among = near * there[2] * there[2][:, None]
    in_one_piece = (np.linalg.matrix_power(among, n)[there[2] == 1][:, there[2] == 1] > 0).all()
    to_remove = (there[1] == 1) & (near @ there[2] > 0)
    return bool(in_one_piece and enough[3][to_remove].all())


def check_case(seed: int, most: int) -> bool:
    rng = np.random.default_rng(seed)
    clients = int(rng.integers(3, most + 1))
    plan = any_plan(rng, clients, dimension=int(rng.integers(1, 9)))
    vectors, drops = any_vectors(rng, plan), any_drops(rng, clients)
    try:
        outcome = simulate_round(plan, vectors, drops, rng.bytes)
    except AbortError as abort:
        assert abort.who == "the cohort", abort
        assert not can_finish(plan, drops), (seed, abort)
        return False
    senders = [i for i in range(clients) if drops.get(i, "unmask") == "unmask"]
    assert can_finish(plan, drops), seed
    assert outcome.senders == tuple(senders)
    assert np.array_equal(outcome.total, plain(vectors, senders)), seed
    return True


def test_random_rounds_are_bit_exact_or_stop() -> None:
    finished = [check_case(seed, most=9) for seed in range(300)]
    assert 60 < sum(finished) < 280


@pytest.mark.slow
def test_10000_random_rounds_are_bit_exact_or_stop() -> None:
    finished = [check_case(seed, most=14) for seed in range(1000, 11_000)]
    assert 2000 < sum(finished) < 9000


def test_a_sparse_round_with_dropouts_at_every_stage_is_bit_exact() -> None:
    rng = np.random.default_rng(0)
    shape = choose_shape(60, dropouts=0.1, colluders=0.1, failure=2**-20)
    assert shape.degree < 30
    plan = make_plan(60, 100, shape, CONTEXT)
    vectors = any_vectors(rng, plan)
    drops: dict[int, Stage] = {7: "advertise", 19: "share", 30: "mask", 31: "mask", 52: "unmask"}
    outcome = simulate_round(plan, vectors, drops, rng.bytes)
    senders = [i for i in range(60) if i not in (7, 19, 30, 31)]
    assert np.array_equal(outcome.total, plain(vectors, senders))


def test_with_nobody_gone_it_is_the_sum_of_all() -> None:
    plan = complete(3, 7)
    vectors = any_vectors(np.random.default_rng(0), plan)
    outcome = simulate_round(plan, vectors, {}, os.urandom)
    assert np.array_equal(outcome.total, plain(vectors, [0, 1, 2]))


@pytest.mark.parametrize("stage", STAGES)
def test_who_drops_out_before_sending_is_not_in_the_sum(stage: Stage) -> None:
    plan = complete(5, 7)
    vectors = any_vectors(np.random.default_rng(0), plan)
    outcome = simulate_round(plan, vectors, {2: stage}, os.urandom)
    senders = [0, 1, 2, 3, 4] if stage == "unmask" else [0, 1, 3, 4]
    assert outcome.senders == tuple(senders)
    assert np.array_equal(outcome.total, plain(vectors, senders))


@pytest.mark.parametrize("stage", STAGES)
def test_a_dropout_too_many_stops_the_round(stage: Stage) -> None:
    plan = complete(5, 7, threshold=4)
    vectors = any_vectors(np.random.default_rng(0), plan)
    with pytest.raises(AbortError, match=f"^the cohort: {stage}: expected 4 or more of client"):
        simulate_round(plan, vectors, {1: stage, 2: stage}, os.urandom)
    everybody: dict[int, Stage] = dict.fromkeys(range(5), stage)
    with pytest.raises(AbortError, match=f"^the cohort: {stage}: expected some clients, got none"):
        simulate_round(plan, vectors, everybody, os.urandom)


@pytest.mark.parametrize("stage", STAGES)
def test_with_a_threshold_of_all_no_one_may_drop_out(stage: Stage) -> None:
    plan = complete(4, 7, threshold=4)
    vectors = any_vectors(np.random.default_rng(0), plan)
    assert simulate_round(plan, vectors, {}, os.urandom).senders == (0, 1, 2, 3)
    with pytest.raises(AbortError, match=f"^the cohort: {stage}: expected 4 or more of client"):
        simulate_round(plan, vectors, {2: stage}, os.urandom)


def test_survivors_in_parts_stop_the_round() -> None:
    plan = make_plan(12, 3, Shape(2, 2), CONTEXT)
    first = plan.neighbours[0][0]
    second = next(i for i in plan.neighbours[first] if i != 0)
    ring = [0, first, second]
    while len(ring) < 12:
        ring.append(next(i for i in plan.neighbours[ring[-1]] if i != ring[-2]))
    vectors = any_vectors(np.random.default_rng(0), plan)
    with pytest.raises(AbortError, match=r"^the cohort: mask: expected a connected graph of surv"):
        simulate_round(plan, vectors, {ring[0]: "mask", ring[6]: "mask"}, os.urandom)


def test_vectors_of_another_shape_are_refused() -> None:
    plan = complete(4, 7)
    for shape in ((4, 6), (3, 7)):
        with pytest.raises(UserError, match=r"^secure aggregation: vectors: expected shape \[4, 7"):
            simulate_round(plan, np.zeros(shape, np.uint32), {}, os.urandom)


def test_a_drop_that_can_not_be_is_refused() -> None:
    plan = complete(4, 7)
    vectors = np.zeros((4, 7), np.uint32)
    with pytest.raises(UserError, match=r"^secure aggregation: drops: expected clients 0 to 3"):
        simulate_round(plan, vectors, {4: "mask"}, os.urandom)
    with pytest.raises(UserError, match=r"drops\.2: expected advertise or share or mask or unmask"):
        simulate_round(plan, vectors, {2: "lunch"}, os.urandom)


def test_real_vectors_come_back_as_their_rounded_sum() -> None:
    coding = fixed_point(clip=1.0, scale=2.0**20, clients=5)
    rng = np.random.default_rng(0)
    updates = rng.uniform(-1, 1, (5, 40)).astype(np.float32)
    encoded = np.stack([coding.encode(update) for update in updates])
    outcome = simulate_round(complete(5, 40), encoded, {3: "mask"}, rng.bytes)
    expected = np.delete(updates, 3, 0).sum(0, dtype=np.float64)
    assert np.abs(coding.decode(outcome.total) - expected).max() <= 4 * coding.error


def test_the_same_randomness_gives_the_same_round() -> None:
    plan = complete(4, 7)
    vectors = any_vectors(np.random.default_rng(0), plan)

    def run(seed: int) -> Outcome:
        return simulate_round(plan, vectors, {1: "mask"}, np.random.default_rng(seed).bytes)

    assert str(run(1).view) == str(run(1).view) != str(run(2).view)


def test_bytes_are_counted_both_ways() -> None:
    small, large = complete(6, 10), complete(6, 1010)
    counts = [
        simulate_round(plan, np.zeros((6, plan.dimension), np.uint32), {4: "share"}, os.urandom)
        for plan in (small, large)
    ]
    grown = counts[1].up - counts[0].up
    assert grown.tolist() == [4000] * 4 + [0] + [4000]
    assert np.array_equal(counts[0].down, counts[1].down)
    assert counts[0].up[4] == len(SESSION) + 4 + 4 + 64 and counts[0].down[4] == 0


@pytest.mark.slow
def test_a_hundred_clients_with_a_million_numbers_are_exact() -> None:
    plan = complete(100, 1_000_000)
    vectors = any_vectors(np.random.default_rng(0), plan)
    drops: dict[int, Stage] = {3: "advertise", 10: "share", 20: "mask", 99: "unmask"}
    outcome = simulate_round(plan, vectors, drops, os.urandom)
    senders = np.delete(vectors, [3, 10, 20], 0)
    assert np.array_equal(outcome.total, senders.sum(0, dtype=np.uint32))
