"""What the server sees, with colluders' help, fits every input that has the same sum."""

from typing import Any, get_type_hints

import numpy as np
import pytest

from federated.secure import client as client_module
from federated.secure import server
from federated.secure.graph import Shape, is_connected
from federated.secure.keys import agree, derive
from federated.secure.masks import apply_masks
from federated.secure.messages import Advert, Answer, Context, Deal, Masked, Stage
from federated.secure.plan import Plan, make_plan
from tests.federated.secure.drive import SESSION, Trace, any_plan, any_vectors, run

Edge = tuple[int, int]


def chi_square(values: np.ndarray, bins: int) -> float:
    """How many of its deviations the statistic of uniform values is off its mean."""
    counts = np.bincount(values, minlength=bins)
    expected = len(values) / bins
    statistic = float(((counts - expected) ** 2 / expected).sum())
    return abs(statistic - (bins - 1)) / (2 * (bins - 1)) ** 0.5


@pytest.mark.parametrize("value", [0, 1, 2**32 - 1])
@pytest.mark.parametrize("degree", [2, 4])
def test_masked_vectors_are_uniform_whatever_they_hide(value: int, degree: int) -> None:
    plan = make_plan(5, 40_000, Shape(degree, degree // 2 + 1), Context(SESSION, value))
    rng = np.random.default_rng(value)
    vectors = np.full((5, plan.dimension), value, np.uint32)
    view = run(plan, vectors, {1: "unmask"}, rng.bytes).view
    masked = np.stack([view.masked[i].vector for i in range(5)])
    for row in masked:
        for shift in (0, 8, 16, 24):
            assert chi_square((row >> np.uint32(shift)) & np.uint32(255), 256) < 5
        assert chi_square(row >> np.uint32(20), 4096) < 5
        # Successive numbers are as independent as all others.
        pairs = (row[:-1] >> np.uint32(28)) * np.uint32(16) + (row[1:] >> np.uint32(28))
        assert chi_square(pairs, 256) < 5
    for i in range(5):
        for j in range(i):
            for mixed in (masked[i] - masked[j], masked[i] + masked[j], masked[i] ^ masked[j]):
                assert chi_square(mixed >> np.uint32(24), 256) < 5


def test_the_view_has_no_place_for_a_plain_vector() -> None:
    hints = get_type_hints(server.View)
    assert hints == {
        "stage": int,
        "adverts": dict[int, Advert],
        "deals": dict[int, Deal],
        "masked": dict[int, Masked],
        "answers": dict[int, Answer],
    }
    arrays = [
        (kind, name)
        for kind in (Advert, Deal, Masked, Answer)
        for name, hint in get_type_hints(kind).items()
        if hint is np.ndarray
    ]
    assert arrays == [(Masked, "vector")]


def colluders_of(plan: Plan, rng: np.random.Generator, here: set[int]) -> set[int]:
    """As many as may be: fewer than the threshold around each, the rest in one piece."""
    chosen: set[int] = set()
    for i in rng.permutation(len(plan.neighbours)):
        more = chosen | {int(i)}
        few = all(len(more & {*those}) < plan.threshold for those in plan.neighbours)
        honest = here - more
        if few and len(honest) >= 2 and is_connected(honest, plan.neighbours):
            chosen = more
    return chosen


def pair_key(plan: Plan, trace: Trace, edge: Edge) -> bytes:
    mine, theirs = trace.dealt[edge[0]].keyed, trace.view.adverts[edge[1]]
    secret = agree(mine.masking, theirs.mask_key, edge[1])
    return derive(secret, plan.context, "pair mask", *edge)


def flows(plan: Plan, members: set[int], changes: dict[int, np.ndarray]) -> dict[Edge, np.ndarray]:
    """What to add to masks along a spanning tree, so that each member's change is hidden."""
    parent, order = {min(members): -1}, [min(members)]
    for i in order:
        for j in plan.neighbours[i]:
            if j in members and j not in parent:
                parent[j] = i
                order.append(j)
    left, result = dict(changes), {}
    for i in reversed(order[1:]):
        up = parent[i]
        # The lower client of a pair adds its mask: what hides a change is minus that change.
        result[min(i, up), max(i, up)] = -left[i] if i < up else left[i]
        left[up] = left[up] + left[i]
    assert not left[order[0]].any()
    return result


def knowledge(trace: Trace, colluders: set[int]) -> str:
    """Everything that the server and the colluders have, written out."""
    masked = {i: message.vector.tolist() for i, message in trace.view.masked.items()}
    view = trace.view._replace(masked={})
    inside = [
        (trace.dealt[i].seed, trace.dealt[i].secrets, trace.ready[i].seeds, trace.ready[i].keys)
        for i in sorted(colluders & trace.ready.keys())
    ]
    return repr((masked, view, inside, trace.total.tolist()))


def check_case(seed: int, monkeypatch: pytest.MonkeyPatch) -> int:
    rng = np.random.default_rng(seed)
    plan = any_plan(rng, int(rng.integers(4, 9)), dimension=3)
    drops = one_dropout(plan, rng)
    senders = {i for i in range(len(plan.neighbours)) if drops.get(i, "unmask") == "unmask"}
    colluders = colluders_of(plan, rng, senders)
    honest = senders - colluders
    vectors = any_vectors(rng, plan)
    first = run(plan, vectors, drops, np.random.default_rng(seed).bytes)
    for i in honest:  # nothing below is about masks that the colluders could compute
        shares = {h for h in colluders & first.ready.keys() if i in first.ready[h].keys}
        shares |= {h for h, answer in first.view.answers.items() if i in answer.keys}
        assert len(shares) < plan.threshold
    changes = {i: rng.integers(0, 2**32, 3, dtype=np.uint32) for i in honest}
    changes[min(honest)] = -sum_of(changes, honest - {min(honest)})
    shifts = {
        pair_key(plan, first, edge): flow for edge, flow in flows(plan, honest, changes).items()
    }
    others = vectors.copy()
    for i, change in changes.items():
        others[i] += change

    def shifted(vector: np.ndarray, added: Any, subtracted: Any) -> None:
        apply_masks(vector, added, subtracted)
        for key in added:
            vector += shifts.get(key, np.uint32(0))
        for key in subtracted:
            vector -= shifts.get(key, np.uint32(0))

    with monkeypatch.context() as patch:
        patch.setattr(client_module, "apply_masks", shifted)
        second = run(plan, others, drops, np.random.default_rng(seed).bytes)
    assert not np.array_equal(vectors[min(honest)], others[min(honest)])
    assert knowledge(first, colluders) == knowledge(second, colluders), seed
    return len(colluders)


def one_dropout(plan: Plan, rng: np.random.Generator) -> dict[int, Stage]:
    """Somebody who is gone at some stage, if the threshold and the graph allow it, or nobody."""
    i = int(rng.integers(len(plan.neighbours)))
    rest = set(range(len(plan.neighbours))) - {i}
    if plan.threshold >= len(plan.neighbours[0]) or not is_connected(rest, plan.neighbours):
        return {}
    stages: list[Stage] = ["advertise", "share", "mask", "unmask"]
    return {i: stages[rng.integers(4)]}


def sum_of(changes: dict[int, np.ndarray], members: set[int]) -> np.ndarray:
    return np.stack([changes[i] for i in members]).sum(0, dtype=np.uint32)


def test_every_input_with_the_same_sum_is_consistent_with_the_view(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """If a pair's mask is random to all but the pair, other masks explain other inputs.

    The two runs differ in the honest clients' vectors and, as an ideal generator's would for
    another key, in masks that neither server nor colluders can compute; all that they see is equal.
    """
    colluders = sum(check_case(seed, monkeypatch) for seed in range(60))
    assert colluders > 60


@pytest.mark.slow
def test_1000_views_are_consistent_with_every_input_of_the_same_sum(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    assert sum(check_case(seed, monkeypatch) for seed in range(100, 1100)) > 1000
