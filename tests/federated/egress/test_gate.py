"""Through a gate goes what the policy names; a desk opens it once, unchanged, for what it is of."""

import json
import math
import sys
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from federated.egress import About, Books, Desk, Gate, Passed, Sealed, open_desk, open_gate
from federated.egress.letters import bind
from federated.egress.sealing import public_key, seal, unseal
from lepton_jax.checks import UserError
from tests.federated.egress.policies import a_policy, silent

RUN, MODEL, OTHER = b"a run of its own", "0123456789abcdef" * 4, "f" * 64
SERVER, KEYS = b"s" * 32, {"asia": b"a" * 32, "europe": b"e" * 32}
ARRAYS = [np.arange(6, dtype=np.float32).reshape(2, 3), np.zeros(4, np.int32)]
ABOUT = About(3, MODEL, "update", 1)


def a_gate(region: str = "asia", noised: bool = False, run: bytes = RUN, **changes: Any) -> Gate:
    policy = a_policy(region, **changes)
    return open_gate(policy, run, key=KEYS[region], server=public_key(SERVER), noised=noised)


def a_desk(run: bytes = RUN) -> tuple[Desk, Books]:
    senders = {region: public_key(key) for region, key in KEYS.items()}
    desk = open_desk(run, key=SERVER, senders=senders)
    return desk, desk.expect(Books(), 3, MODEL)


def released(gate: Gate, about: About = ABOUT, cohort: int = 3) -> Sealed:
    return gate.release_update(Passed(), about, cohort, ARRAYS)[1]


def refusal(act: Callable[..., Any], *arguments: Any) -> str:
    with pytest.raises(UserError) as error:
        act(*arguments)
    assert str(error.value).isprintable()
    return str(error.value)


# --- from gate to desk ----------------------------------------------------------------------------


def test_what_a_region_seals_the_server_opens() -> None:
    desk, books = a_desk()
    books, arrays = desk.open(books, released(a_gate()))
    assert books.opened == {("asia", "update", 1)}
    for was, now in zip(ARRAYS, arrays, strict=True):
        assert was.dtype == now.dtype and np.array_equal(was, now)


def test_every_part_and_region_of_a_round_opens_and_the_next_round_too() -> None:
    desk, books = a_desk()
    for round in (3, 4):
        for region in KEYS:
            gate, passed = a_gate(region), Passed()
            for part in range(3):
                about = About(round, MODEL, "update", part)
                passed, sealed = gate.release_update(passed, about, 3, ARRAYS)
                books, _ = desk.open(books, sealed)
        if round == 3:
            assert len(books.opened) == 6
            books = desk.expect(books, 4, MODEL)


def test_the_same_update_never_looks_the_same() -> None:
    bodies = {released(a_gate()).body for _ in range(10)}
    assert len(bodies) == 10
    assert len({body[:32] for body in bodies}) == 10


def test_nobody_but_the_server_opens_a_seal() -> None:
    bound = bind(RUN, "asia", ABOUT)
    for other in (KEYS["asia"], KEYS["europe"], b"x" * 32):
        assert unseal(released(a_gate()).body, bound, public_key(KEYS["asia"]), other) is None
    assert unseal(released(a_gate()).body, bound, public_key(KEYS["asia"]), SERVER) is not None


def test_every_part_of_what_a_seal_is_of_changes_what_it_is_bound_to() -> None:
    abouts = [
        ABOUT,
        ABOUT._replace(round=4),
        ABOUT._replace(model_sha256=OTHER),
        ABOUT._replace(part=2),
        About(3, MODEL, "sum", 1),
    ]
    runs, regions = (RUN, RUN + b"a", b"another's name!!"), ("asia", "sia", "europe")
    assert len({bind(r, g, a) for r in runs for g in regions for a in abouts}) == 45


# --- the table of `open_desk` ---------------------------------------------------------------------


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda s: s._replace(run=b"another's name!!"), "expected one of this run, got one of another"),
        (lambda s: s._replace(region="asiaa"), "expected a region of the run (asia, europe), got 'asiaa'"),
        (lambda s: s._replace(region="\x1b[2J"), "a region of the run"),
        (lambda s: s._replace(region="europe"), "region europe: sealed update: expected what the region sealed"),
        (lambda s: s._replace(about=s.about._replace(round=2)), "expected one of round 3, got one of round 2"),
        (lambda s: s._replace(about=s.about._replace(round=4)), "expected one of round 3, got one of round 4"),
        (lambda s: s._replace(about=s.about._replace(model_sha256=OTHER)), "expected one from the model 0123456789ab"),
        (lambda s: s._replace(about=s.about._replace(kind="sum")), "expected what the region sealed"),
        (lambda s: s._replace(about=s.about._replace(part=2)), "expected what the region sealed"),
        (lambda s: s._replace(about=s.about._replace(part=-1)), "part of an update or a sum"),
        (lambda s: s._replace(about=s.about._replace(part=2**64)), "part of an update or a sum"),
        (lambda s: s._replace(body=b""), "expected what the region sealed"),
        (lambda s: s._replace(body=s.body[:32]), "expected what the region sealed"),
        (lambda s: s._replace(body=s.body[:-1]), "expected what the region sealed"),
        (lambda s: s._replace(body=s.body + b"\0"), "expected what the region sealed"),
        (lambda s: s._replace(body=bytes(32) + s.body[32:]), "expected what the region sealed"),
    ],
)  # fmt: skip
def test_what_was_changed_on_the_way_is_refused_and_named(
    change: Callable[[Sealed], Sealed], said: str
) -> None:
    (desk, books), sealed = a_desk(), released(a_gate())
    assert said in refusal(desk.open, books, change(sealed))
    desk.open(books, sealed)


def test_what_was_sealed_for_another_run_round_region_or_model_does_not_pass_for_this() -> None:
    """Not even where the outside is made to say so."""
    desk, books = a_desk()
    for sealed in (
        released(a_gate(run=b"another's name!!")),
        released(a_gate(), ABOUT._replace(round=2)),
        released(a_gate("europe")),
        released(a_gate(), ABOUT._replace(model_sha256=OTHER)),
        released(a_gate(), ABOUT._replace(part=0)),
        released(a_gate(), About(3, MODEL, "sum")),
    ):
        forged = Sealed(RUN, "asia", ABOUT, sealed.body)
        assert "region asia: sealed update: expected what" in refusal(desk.open, books, forged)


def test_of_1000_flipped_bits_every_one_is_found() -> None:
    rng, (desk, books), sealed = np.random.default_rng(0), a_desk(), released(a_gate())
    for _ in range(1000):
        body = bytearray(sealed.body)
        body[rng.integers(len(body))] ^= 1 << int(rng.integers(8))
        line = refusal(desk.open, books, sealed._replace(body=bytes(body)))
        assert line.startswith("region asia: sealed update: expected what the region sealed")


def test_a_replay_is_refused_and_named() -> None:
    desk, books = a_desk()
    sealed, again = released(a_gate()), released(a_gate())
    books, _ = desk.open(books, sealed)
    for replay in (sealed, again):
        line = refusal(desk.open, books, replay)
        assert line.endswith("expected each update once, got a replay of update 1 of round 3")
    later = desk.expect(books, 4, MODEL)
    assert "expected one of round 4, got one of round 3" in refusal(desk.open, later, sealed)


def test_rounds_go_forward_only() -> None:
    desk, books = a_desk()
    for round in (3, 2):
        line = refusal(desk.expect, books, round, MODEL)
        assert line == f"desk: round: expected one after 3, got {round}"


def test_before_any_round_nothing_is_opened() -> None:
    desk, _ = a_desk()
    assert "one of round -1" in refusal(desk.open, Books(), released(a_gate()))


def test_a_region_that_seals_something_else_than_arrays_is_named() -> None:
    desk, books = a_desk()
    bound = bind(RUN, "asia", ABOUT)
    body = seal(b"\x80\x04K\x01.", bound, KEYS["asia"], public_key(SERVER), lambda n: b"o" * n)
    sealed = Sealed(RUN, "asia", ABOUT, body)
    assert "region asia: sealed update: expected at most" in refusal(desk.open, books, sealed)
    assert books.opened == frozenset()


def test_names_of_runs_and_keys_that_cannot_be_right_are_refused() -> None:
    public, policy = public_key(SERVER), a_policy()
    for key, server, run in (
        (b"short", public, RUN),
        (KEYS["asia"], b"short", RUN),
        (KEYS["asia"], bytes(32), RUN),
        (KEYS["asia"], public, b"run 1"),
    ):
        with pytest.raises(UserError):
            open_gate(policy, run, key=key, server=server, noised=False)
    for key, senders, run in (
        (b"short", {}, RUN),
        (SERVER, {"asia": b"short"}, RUN),
        (SERVER, {}, b"run 1"),
    ):
        with pytest.raises(UserError):
            open_desk(run, key=key, senders=senders)


def test_without_the_extra_one_line_says_which(monkeypatch: pytest.MonkeyPatch) -> None:
    import federated.egress

    monkeypatch.delattr(federated.egress, "sealing", raising=False)
    monkeypatch.setitem(sys.modules, "federated.egress.sealing", None)
    assert "pip install 'lepton-jax[privacy]'" in refusal(a_gate)
    assert "pip install 'lepton-jax[privacy]'" in refusal(a_desk)


# --- the table of `open_gate`: updates ------------------------------------------------------------


@pytest.mark.parametrize(
    ("border", "allowed"), [("none", ()), ("sum", ("sum",)), ("updates", ("sum", "update"))]
)
@pytest.mark.parametrize("kind", ["sum", "update"])
@pytest.mark.parametrize("noised", [False, True])
def test_only_the_kinds_that_the_policy_names_leave(
    border: str, allowed: tuple[str, ...], kind: Any, noised: bool
) -> None:
    policy = silent() if border == "none" else a_policy(cross_border=border)
    gate = open_gate(policy, RUN, key=KEYS["asia"], server=public_key(SERVER), noised=noised)
    if kind in allowed:
        passed, _ = gate.release_update(Passed(), About(1, MODEL, kind), 3, ARRAYS)
        assert getattr(passed, kind) > 0
    else:
        line = refusal(released, gate, About(1, MODEL, kind))
        assert line.startswith(f"region asia: {kind} of round 1: expected")
        assert "by its policy" in line


def test_without_noise_a_cohort_below_the_minimum_does_not_leave() -> None:
    gate, about = a_gate(), About(1, MODEL, "sum")
    released(gate, about, cohort=3)
    for cohort in (2, 0):
        line = refusal(released, gate, about, cohort)
        assert line.startswith(f"region asia: cohort: expected at least 3 clients, by its policy, got {cohort}")  # fmt: skip


def test_with_noise_a_sum_leaves_whatever_was_drawn_and_looks_the_same() -> None:
    """Else one client's presence would decide whether the others count."""
    gate, about = a_gate(noised=True), About(1, MODEL, "sum")
    sizes = {gate.release_update(Passed(), about, cohort, ARRAYS)[0].sum for cohort in range(6)}
    assert len(sizes) == 1


def test_no_second_sum_of_a_round_leaves() -> None:
    gate, about = a_gate(), About(3, MODEL, "sum")
    passed, _ = gate.release_update(Passed(), about, 3, ARRAYS)
    for again in (about, about._replace(round=2), About(3, MODEL, "update", 0)):
        line = refusal(gate.release_update, passed, again, 4, ARRAYS)
        assert "expected one after part 0 of round 3" in line
    gate.release_update(passed, about._replace(round=4), 3, ARRAYS)


@pytest.mark.parametrize(
    "about",
    [
        About(-1, MODEL, "sum"),
        About(2**63, MODEL, "sum"),
        About(1, "0123", "sum"),
        About(1, MODEL.upper(), "sum"),
        About(1, MODEL + "\n", "sum"),
        About(1, MODEL, "sum", 1),
        About(1, MODEL, "update", 3),
        About(1, MODEL, "update", -1),
    ],
)
def test_what_an_update_cannot_be_of_is_refused(about: About) -> None:
    refusal(released, a_gate(), about, 3)


def test_an_update_without_arrays_and_one_of_nan_leave_as_they_are() -> None:
    for arrays in ([], [np.array([math.nan, math.inf], np.float32)]):
        desk, books = a_desk()
        _, sealed = a_gate().release_update(Passed(), ABOUT, 3, arrays)
        np.testing.assert_equal(desk.open(books, sealed)[1], arrays)


def test_objects_do_not_leave() -> None:
    line = refusal(a_gate().release_update, Passed(), ABOUT, 3, [np.array([object()])])
    assert line.startswith("region asia: update: expected elements of a type of float32")


def test_bytes_are_counted_by_kind_as_they_travel() -> None:
    gate, passed, sizes = a_gate(), Passed(), {"update": 0, "sum": 0}
    for about in (
        About(1, MODEL, "update", 0),
        About(1, MODEL, "update", 1),
        About(2, MODEL, "sum"),
    ):
        passed, sealed = gate.release_update(passed, about, 3, ARRAYS)
        sizes[about.kind] += len(bind(RUN, "asia", about)) + len(sealed.body)
    passed, figures = gate.release_figures(passed, 3, {"loss": 0.5, "f1_macro": 0.5})
    size = len(json.dumps(figures))
    assert passed.to_json() == {**sizes, "figures": size, "withheld": 1}


# --- the table of `open_gate`: figures ------------------------------------------------------------

FIGURES = {"loss": 0.25, "accuracy": 0.5, "f1_macro": 0.75, "epsilon": 1.0}


def test_figures_that_the_policy_does_not_name_stay_and_are_counted() -> None:
    passed, figures = a_gate().release_figures(Passed(), 3, FIGURES)
    assert figures == {"loss": 0.25, "accuracy": 0.5}
    assert passed.withheld == 2
    assert a_gate().release_figures(passed, 3, FIGURES)[0].withheld == 4


@pytest.mark.parametrize("noised", [False, True])
def test_figures_over_too_few_clients_all_stay(noised: bool) -> None:
    passed, figures = a_gate(noised=noised).release_figures(Passed(), 2, FIGURES)
    assert figures == {}
    assert passed == Passed(withheld=4)


def test_no_figures_are_no_figures() -> None:
    assert a_gate().release_figures(Passed(), 3, {}) == (Passed(), {})


def test_where_no_figures_may_leave_asking_is_refused() -> None:
    gate = a_gate(outputs=("update",), metrics=())
    assert refusal(gate.release_figures, Passed(), 3, FIGURES).startswith(
        "region asia: figures: expected none, by its policy, got 4 of them"
    )


@pytest.mark.parametrize(
    "value",
    [math.nan, math.inf, True, "0.5", b"x", [0.5], {"x": 1}, np.zeros(3), 10**400, object()],
)
def test_under_a_figures_name_goes_one_number_and_nothing_else(value: Any) -> None:
    line = refusal(a_gate().release_figures, Passed(), 3, {"loss": value})
    assert line.startswith("region asia: loss: expected one finite number, or None, got")


@pytest.mark.parametrize("value", [None, 0, -1.5, np.float64(2.0)])
def test_numbers_and_none_are_figures(value: Any) -> None:
    assert a_gate().release_figures(Passed(), 3, {"loss": value})[1] == {"loss": value}


def test_figures_by_class_are_numbers_in_lists_and_tables() -> None:
    gate = a_gate(metrics=("per_class", "confusion", "labels"))
    figures = {"per_class": {"f1": [0.5, None]}, "confusion": [[1, 0], [0, 1]], "labels": {"a": 3}}
    passed, leaving = gate.release_figures(Passed(), 3, figures)
    assert leaving == figures and passed.figures == len(json.dumps(figures))
    for wrong in ([["x"]], {"f1": [math.nan]}, [np.zeros(2)]):
        line = refusal(gate.release_figures, Passed(), 3, {"confusion": wrong})
        assert line.startswith("region asia: confusion: expected finite numbers")
