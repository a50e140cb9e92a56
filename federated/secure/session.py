"""A whole round on one machine: every message of the protocol, and clients that drop out."""

import os
from collections.abc import Mapping
from typing import NamedTuple, TypeVar

import numpy as np
from jaxtyping import UInt32

from federated.secure import client, server
from federated.secure.keys import Random
from federated.secure.messages import STAGES, wire_bytes
from federated.secure.plan import Plan
from lepton_jax.checks import UserError

T = TypeVar("T")


class Outcome(NamedTuple):
    """What a round came to.

    Attributes:
      total: [D] the sum, modulo 2^32, of the senders' vectors.
      senders: who sent a masked vector.
      view: all that the server saw.
      up: [C] bytes that each client sent.
      down: [C] bytes that each client was sent while it was there.
    """

    total: UInt32[np.ndarray, "D"]
    senders: tuple[int, ...]
    view: server.View
    up: np.ndarray
    down: np.ndarray


class _Traffic(NamedTuple):
    """Bytes of each client; counted in place."""

    up: np.ndarray
    down: np.ndarray


def simulate_round(
    plan: Plan,
    vectors: UInt32[np.ndarray, "C D"],
    drops: Mapping[int, str],
    random: Random = os.urandom,
) -> Outcome:
    """Runs the four stages.

    *Guarantee.* The total is exactly the sum of the vectors of those who sent a masked one, or
    there is none. A server that keeps to the protocol and pools what it saw with colluding
    clients, fewer than the threshold among each client's neighbours, learns that sum and nothing
    else of the other clients' vectors, as long as the survivors that don't collude are connected
    (`graph.choose_shape`). Not covered: a server that tells different clients of different keys or
    survivors, which takes signatures and a consistency check; clients that lie about their vector.

    | edge                                             | result                             |
    |--------------------------------------------------|------------------------------------|
    | nobody drops out                                 | the sum of all                     |
    | a client drops out before it sends at `mask`     | the sum without its vector         |
    | a client drops out at `unmask`                   | the sum with its vector            |
    | too few left around a client, or nobody at all   | AbortError, which names the cohort |
    | the survivors' graph falls into parts            | AbortError, which names the cohort |
    | vectors of another shape                         | UserError                          |
    | a drop of an unknown client, at an unknown stage | UserError                          |

    Args:
      plan: the round's terms.
      vectors: each client's, as `encode.fixed_point` makes them.
      drops: of clients that drop out, the stage whose message they no longer get nor send.
      random: number of bytes -> random bytes; only tests give another than the system's.

    Raises:
      AbortError: a dropout too many, or a message that isn't right.
      UserError: as in the table.

    >>> from federated.secure.graph import Shape
    >>> from federated.secure.messages import Context
    >>> from federated.secure.plan import make_plan
    >>> plan = make_plan(4, 3, Shape(degree=3, threshold=3), Context(os.urandom(16), 0))
    >>> vectors = np.arange(12, dtype=np.uint32).reshape(4, 3)
    >>> outcome = simulate_round(plan, vectors, {2: "mask"})
    >>> outcome.senders, outcome.total.tolist()
    ((0, 1, 3), [12, 15, 18])
    """
    _check(plan, vectors, drops)
    sent = {i: _stages_sent(drops.get(i)) for i in range(len(vectors))}
    traffic = _Traffic(*np.zeros((2, len(vectors)), np.int64))
    view = server.begin()
    keyed: dict[int, client.Keyed] = {}
    for i in _here(sent, 0):
        keyed[i], advert = client.advertise(plan, i, random)
        view = _send(plan, view, advert, traffic)
    view = server.close(plan, view)
    dealt: dict[int, client.Dealt] = {}
    for i in _here(sent, 1):
        roster = _fetch(i, server.roster(plan, view, i), traffic)
        dealt[i], deal = client.share(plan, keyed[i], roster, random)
        view = _send(plan, view, deal, traffic)
    view = server.close(plan, view)
    ready: dict[int, client.Ready] = {}
    for i in _here(sent, 2):
        inbox = _fetch(i, server.inbox(plan, view, i), traffic)
        ready[i], masked = client.mask(plan, dealt[i], inbox, vectors[i])
        view = _send(plan, view, masked, traffic)
    view = server.close(plan, view)
    for i in _here(sent, 3):
        request = _fetch(i, server.request(plan, view, i), traffic)
        _, answer = client.answer(plan, ready[i], request)
        view = _send(plan, view, answer, traffic)
    view = server.close(plan, view)
    return Outcome(server.total(plan, view), tuple(sorted(view.masked)), view, *traffic)


def _stages_sent(dropped_at: str | None) -> int:
    names: tuple[str | None, ...] = STAGES
    return len(names) if dropped_at is None else names.index(dropped_at)


def _here(sent: dict[int, int], stage: int) -> list[int]:
    return [i for i, stages in sent.items() if stages > stage]


def _send(plan: Plan, view: server.View, message: server.Message, traffic: _Traffic) -> server.View:
    traffic.up[message.client] += wire_bytes(message)
    return server.receive(plan, view, message)


def _fetch(i: int, message: T, traffic: _Traffic) -> T:
    traffic.down[i] += wire_bytes(message)
    return message


def _check(plan: Plan, vectors: np.ndarray, drops: Mapping[int, str]) -> None:
    expected = (len(plan.neighbours), plan.dimension)
    if vectors.shape != expected:
        raise UserError(
            "secure aggregation: vectors", f"shape {list(expected)}", list(vectors.shape)
        )
    for i, stage in drops.items():
        if not 0 <= i < len(vectors):
            raise UserError("secure aggregation: drops", f"clients 0 to {len(vectors) - 1}", i)
        if stage not in STAGES:
            raise UserError(f"secure aggregation: drops.{i}", " or ".join(STAGES), repr(stage))
