"""The protocol step by step, so that a test can change what is delivered and look into clients."""

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import numpy as np

from federated.secure import client, server
from federated.secure.graph import Shape
from federated.secure.keys import Random
from federated.secure.messages import STAGES, Context, Stage
from federated.secure.plan import Plan, make_plan

SESSION = b"the session of a test"
CLIENTS = 6
GONE = 5  # deals shares and sends no vector, so that shares of both kinds are revealed


class Trace(NamedTuple):
    """What everybody knows after a round."""

    total: np.ndarray
    view: server.View
    dealt: dict[int, client.Dealt]
    ready: dict[int, client.Ready]


Deliver = Callable[[Any, int], list[Any]]  # a message, its client -> what arrives instead


def as_sent(message: Any, client: int) -> list[Any]:
    return [message]


def run(
    plan: Plan,
    vectors: np.ndarray,
    drops: Mapping[int, Stage],
    random: Random,
    deliver: Deliver = as_sent,
) -> Trace:
    """A round whose every message goes through `deliver`."""
    view = server.begin()
    keyed, dealt, ready = {}, {}, {}
    last = {i: STAGES.index(drops[i]) if i in drops else 4 for i in range(len(vectors))}
    here = [[i for i, gone in last.items() if gone > stage] for stage in range(4)]

    def send(view: server.View, message: Any) -> server.View:
        for arrived in deliver(message, message.client):
            view = server.receive(plan, view, arrived)
        return view

    for i in here[0]:
        keyed[i], advert = client.advertise(plan, i, random)
        view = send(view, advert)
    view = server.close(plan, view)
    for i in here[1]:
        for roster in deliver(server.roster(plan, view, i), i):
            dealt[i], deal = client.share(plan, keyed[i], roster, random)
        view = send(view, deal)
    view = server.close(plan, view)
    for i in here[2]:
        for inbox in deliver(server.inbox(plan, view, i), i):
            ready[i], masked = client.mask(plan, dealt[i], inbox, vectors[i])
        view = send(view, masked)
    view = server.close(plan, view)
    for i in here[3]:
        for request in deliver(server.request(plan, view, i), i):
            ready[i], answer = client.answer(plan, ready[i], request)
        view = send(view, answer)
    view = server.close(plan, view)
    return Trace(server.total(plan, view), view, dealt, ready)


def any_plan(rng: np.random.Generator, clients: int, dimension: int) -> Plan:
    """Complete or sparse, with any threshold that is allowed."""
    even = range(2, clients - 1, 2)
    degree = int(rng.choice([*even, clients - 1])) if rng.random() < 0.6 else clients - 1
    threshold = int(rng.integers((degree + 1) // 2 + 1, degree + 2))
    context = Context(SESSION, int(rng.integers(1000)))
    return make_plan(clients, dimension, Shape(degree, threshold), context)


def any_vectors(rng: np.random.Generator, plan: Plan) -> np.ndarray:
    shape = (len(plan.neighbours), plan.dimension)
    return rng.integers(0, 2**32, shape, dtype=np.uint32)


def any_drops(rng: np.random.Generator, clients: int) -> dict[int, Stage]:
    """From nobody to most, at any stages."""
    rate = float(rng.choice([0.0, 0.1, 0.25, 0.6]))
    gone = np.flatnonzero(rng.random(clients) < rate)
    return {int(i): STAGES[rng.integers(4)] for i in gone}


def a_plan(number: int) -> Plan:
    shape = Shape(CLIENTS - 1, 4)
    return make_plan(CLIENTS, 4, shape, Context(SESSION, number))


def record(plan: Plan, rng: np.random.Generator) -> tuple[dict[type, dict[int, Any]], Trace]:
    """An honest round's messages, by kind and client."""
    kept: dict[type, dict[int, Any]] = {}

    def keep(message: Any, client: int) -> list[Any]:
        kept.setdefault(type(message), {})[client] = message
        return [message]

    trace = run(plan, any_vectors(rng, plan), {GONE: "mask"}, rng.bytes, keep)
    return kept, trace


def flip(data: bytes, rng: np.random.Generator) -> bytes:
    """With one bit changed."""
    at = int(rng.integers(8 * len(data)))
    changed = bytearray(data)
    changed[at // 8] ^= 1 << at % 8
    return bytes(changed)
