"""Clients and server refuse what the protocol doesn't allow, and change nothing then."""

import pickle
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from federated.secure import client as client_module
from federated.secure import server
from federated.secure.graph import Shape
from federated.secure.messages import (
    AbortError,
    Advert,
    Answer,
    Context,
    Deal,
    Inbox,
    Request,
    Roster,
)
from federated.secure.plan import make_plan
from lepton_jax.checks import UserError
from tests.federated.secure.drive import (
    CLIENTS,
    GONE,
    SESSION,
    a_plan,
    any_vectors,
    as_sent,
    record,
    run,
)


@pytest.mark.parametrize("threshold", [4, 6])
@pytest.mark.parametrize("what", ["seed", "key"])
def test_a_dealer_of_shares_that_give_no_secret_is_named(
    monkeypatch: pytest.MonkeyPatch, what: str, threshold: int
) -> None:
    """With more shares than the threshold they contradict each other, else the commitment."""
    if what == "key" and threshold == 6:
        threshold = 5
    plan = make_plan(CLIENTS, 4, Shape(CLIENTS - 1, threshold), Context(SESSION, 2))
    rng = np.random.default_rng(threshold)
    dealer = GONE if what == "key" else 2
    honest, calls = client_module._deal, iter(range(2 * CLIENTS))

    def deal(secret: bytes, holders: list[int], *rest: Any) -> dict[int, bytes]:
        shares = honest(secret, holders, *rest)
        is_key = bool(next(calls) % 2)
        if holders[0] == dealer and is_key == (what == "key"):
            shares[1] = honest(bytes(32), holders, *rest)[1]
        return shares

    monkeypatch.setattr(client_module, "_deal", deal)
    drops: Any = {GONE: "mask"} if what == "key" or threshold < 6 else {}
    with pytest.raises(AbortError) as stopped:
        run(plan, any_vectors(rng, plan), drops, rng.bytes)
    assert stopped.value.who == f"client {dealer}", stopped.value


def test_the_same_request_has_the_same_answer() -> None:
    plan, rng = a_plan(3), np.random.default_rng(0)

    def twice(message: Any, client: int) -> list[Any]:
        return [message, message] if type(message) is Request else [message]

    vectors = any_vectors(rng, plan)
    total = run(plan, vectors, {GONE: "mask"}, rng.bytes, twice).total
    assert np.array_equal(total, vectors[:GONE].sum(0, dtype=np.uint32))


def test_no_client_reveals_both_secrets_of_anyone() -> None:
    _, trace = record(a_plan(4), np.random.default_rng(0))
    for i, answer in trace.view.answers.items():
        assert not answer.seeds.keys() & answer.keys.keys()
        assert i in answer.seeds


def test_a_client_stops_before_sending_where_too_few_are_there() -> None:
    def fewer(kind: Any, field: str) -> Callable[[Any, int], list[Any]]:
        def deliver(message: Any, client: int) -> list[Any]:
            if type(message) is not kind or client != 1:
                return [message]
            some = dict(list(getattr(message, field).items())[:2])
            return [message._replace(**{field: some})]

        return deliver

    rng = np.random.default_rng(0)
    for kind, field in ((Roster, "adverts"), (Inbox, "parcels")):
        plan = a_plan(5)
        with pytest.raises(
            AbortError, match=r"^the cohort: message to client 1: expected at least 4"
        ):
            run(plan, any_vectors(rng, plan), {}, rng.bytes, fewer(kind, field))


def test_a_client_reveals_nothing_where_too_few_survive() -> None:
    def deliver(message: Any, client: int) -> list[Any]:
        if type(message) is not Request:
            return [message]
        survivors = frozenset({client, (client + 1) % CLIENTS, (client + 2) % CLIENTS})
        everyone = message.survivors | message.dropouts
        return [Request(message.context, survivors, everyone - survivors)]

    plan, rng = a_plan(6), np.random.default_rng(0)
    with pytest.raises(
        AbortError, match=r"^the cohort: request: expected at least 4 survivors, got 3"
    ):
        run(plan, any_vectors(rng, plan), {}, rng.bytes, deliver)


def test_a_refused_message_leaves_the_view_as_it_was() -> None:
    plan, rng = a_plan(8), np.random.default_rng(0)
    kept, _ = record(plan, rng)
    view = server.begin()
    view = server.receive(plan, view, kept[Advert][0])
    before = repr(view)
    for wrong in (
        kept[Advert][0],
        kept[Deal][1],
        Advert(plan.context, 99, b"", b""),
        Advert(plan.context, -1, b"", b""),
        kept[Advert][1]._replace(context=Context(b"another session!", 8)),
    ):
        with pytest.raises(AbortError) as refusal:
            server.receive(plan, view, wrong)
        assert refusal.value.who == f"client {wrong.client}"
    assert repr(view) == before


@pytest.mark.parametrize("mine", ["mask_key", "seal_key"])
@pytest.mark.parametrize("its", ["mask_key", "seal_key"])
def test_keys_of_another_are_refused_by_server_and_client(mine: str, its: str) -> None:
    plan, rng = a_plan(12), np.random.default_rng(0)
    kept, _ = record(plan, rng)
    copied = kept[Advert][2]._replace(**{mine: getattr(kept[Advert][1], its)})
    view = server.receive(plan, server.begin(), kept[Advert][1])
    with pytest.raises(AbortError, match=r"^client 2: public keys: expected its own, got those of"):
        server.receive(plan, view, copied)

    def deliver(message: Any, client: int) -> list[Any]:
        if type(message) is not Roster or client != 0:
            return [message]
        adverts = message.adverts
        stolen = adverts[2]._replace(**{mine: getattr(adverts[1], its)})
        return [message._replace(adverts=adverts | {2: stolen})]

    with pytest.raises(AbortError, match=r"^client 2: public keys: expected its own, got those of"):
        run(plan, any_vectors(rng, plan), {}, rng.bytes, deliver)


def test_who_dropped_out_does_not_come_back() -> None:
    plan, rng = a_plan(9), np.random.default_rng(0)
    kept, trace = record(plan, rng)
    late = Answer(plan.context, GONE, {}, {})
    with pytest.raises(AbortError, match=f"^client {GONE}: Answer: expected those of the stage"):
        server.receive(plan, trace.view._replace(stage=3), late)
    with pytest.raises(AbortError, match="a late or early one"):
        server.receive(plan, trace.view, kept[Answer][0])


def test_an_abort_survives_pickling() -> None:
    abort = AbortError("client 3", "masked vector", "it once", "a replay")
    again = pickle.loads(pickle.dumps(abort))
    assert (str(again), again.who, again.what) == (str(abort), "client 3", "masked vector")


def test_a_sum_is_there_only_at_the_end() -> None:
    plan, rng = a_plan(10), np.random.default_rng(0)
    _, trace = record(plan, rng)
    with pytest.raises(UserError, match="total: expected a finished round, got unmask"):
        server.total(plan, trace.view._replace(stage=3))
    with pytest.raises(UserError, match="close: expected an open stage"):
        server.close(plan, trace.view)


def test_a_vector_of_another_shape_or_type_is_refused_by_its_client() -> None:
    plan, rng = a_plan(11), np.random.default_rng(0)
    for vectors in (np.zeros((CLIENTS, 5), np.uint32), np.zeros((CLIENTS, 4), np.int32)):
        with pytest.raises(UserError, match=r"vector: expected uint32 of shape \[4\]"):
            run(plan, vectors, {}, rng.bytes, as_sent)
