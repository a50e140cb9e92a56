"""Whatever is changed, swapped, left out or repeated on its way is found, and named."""

from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
import pytest

from federated.secure.messages import (
    AbortError,
    Advert,
    Answer,
    Deal,
    Inbox,
    Masked,
    Request,
    Roster,
)
from tests.federated.secure.drive import GONE, a_plan, any_vectors, flip, record, run


class Case(NamedTuple):
    """One client's message, and what a tamperer may use to change it."""

    rng: np.random.Generator
    victim: int
    seen: list[Any]
    old: dict[int, Any]

    def other(self) -> int:
        """Any client but the victim and the one that drops out."""
        return int(self.rng.choice([i for i in range(GONE) if i != self.victim]))

    def replaced(self, those: dict[int, Any], change: Callable[[Any], Any]) -> dict[int, Any]:
        i = self.other()
        return those | {i: change(those[i])}

    def swapped(self, those: dict[int, Any]) -> dict[int, Any]:
        i = self.other()
        j = int(self.rng.choice([k for k in those if k not in (i, self.victim, GONE)]))
        return those | {i: those[j], j: those[i]}

    def flipped(self, data: bytes) -> bytes:
        return flip(data, self.rng)


def without(those: dict[int, Any], i: int) -> dict[int, Any]:
    return {j: x for j, x in those.items() if j != i}


Tamper = Callable[[Case, Any], Any]  # -> the message that arrives instead, or a list of them

BY_VICTIM: dict[str, tuple[type, Tamper]] = {
    "a key of 31 bytes": (Advert, lambda c, m: m._replace(mask_key=m.mask_key[1:])),
    "one key for both": (Advert, lambda c, m: m._replace(seal_key=m.mask_key)),
    "a point of small order": (Advert, lambda c, m: m._replace(seal_key=bytes(32))),
    "another's key": (Advert, lambda c, m: m._replace(mask_key=c.seen[0].mask_key)),
    "keys twice": (Advert, lambda c, m: [m, m]),
    "keys of last round": (Advert, lambda c, m: c.old[c.victim]),
    "a sealed share": (Deal, lambda c, m: m._replace(sealed=c.replaced(m.sealed, c.flipped))),
    "sealed shares swapped": (Deal, lambda c, m: m._replace(sealed=c.swapped(m.sealed))),
    "a seed share's commitment": (
        Deal,
        lambda c, m: m._replace(seed_digests=c.replaced(m.seed_digests, c.flipped)),
    ),
    "its own seed share's commitment": (
        Deal,
        lambda c, m: m._replace(
            seed_digests=m.seed_digests | {c.victim: c.flipped(m.seed_digests[c.victim])}
        ),
    ),
    "a key share's commitment": (
        Deal,
        lambda c, m: m._replace(key_digests=c.replaced(m.key_digests, c.flipped)),
    ),
    "commitments swapped": (
        Deal,
        lambda c, m: m._replace(seed_digests=c.swapped(m.seed_digests)),
    ),
    "the seed's commitment": (Deal, lambda c, m: m._replace(seed_digest=c.flipped(m.seed_digest))),
    "a share too few": (Deal, lambda c, m: m._replace(sealed=without(m.sealed, c.other()))),
    "a commitment too few": (
        Deal,
        lambda c, m: m._replace(seed_digests=without(m.seed_digests, c.other())),
    ),
    "shares twice": (Deal, lambda c, m: [m, m]),
    "shares of last round": (Deal, lambda c, m: c.old[c.victim]),
    "last round's shares in this round's message": (
        Deal,
        lambda c, m: c.old[c.victim]._replace(context=m.context),
    ),
    "a vector too short": (Masked, lambda c, m: m._replace(vector=m.vector[1:])),
    "a vector of other numbers": (Masked, lambda c, m: m._replace(vector=m.vector * 1.0)),
    "a vector twice": (Masked, lambda c, m: [m, m]),
    "a vector of last round": (Masked, lambda c, m: c.old[c.victim]),
    "an early answer": (Masked, lambda c, m: Answer(m.context, c.victim, {}, {})),
    "a seed share": (Answer, lambda c, m: m._replace(seeds=c.replaced(m.seeds, c.flipped))),
    "a key share": (Answer, lambda c, m: m._replace(keys={GONE: c.flipped(m.keys[GONE])})),
    "revealed shares swapped": (Answer, lambda c, m: m._replace(seeds=c.swapped(m.seeds))),
    "a revealed share too few": (
        Answer,
        lambda c, m: m._replace(seeds=without(m.seeds, c.other())),
    ),
    "a key share too many": (
        Answer,
        lambda c, m: m._replace(keys=m.keys | {c.other(): bytes(33)}),
    ),
    "a share of the other kind": (
        Answer,
        lambda c, m: m._replace(keys={GONE: m.seeds[c.other()]}),
    ),
    "an answer twice": (Answer, lambda c, m: [m, m]),
    "an answer of last round": (Answer, lambda c, m: c.old[c.victim]),
    "last round's shares in this round's answer": (
        Answer,
        lambda c, m: c.old[c.victim]._replace(context=m.context),
    ),
    "a late vector": (Answer, lambda c, m: Masked(m.context, c.victim, np.zeros(4, np.uint32))),
}

BY_SERVER: dict[str, tuple[type, Tamper]] = {
    "keys swapped": (Roster, lambda c, m: m._replace(adverts=c.swapped(m.adverts))),
    "keys of a stranger": (Roster, lambda c, m: m._replace(adverts=m.adverts | {9: c.seen[0]})),
    "a roster of last round": (Roster, lambda c, m: c.old[c.victim]),
    "shares of a stranger": (
        Inbox,
        lambda c, m: m._replace(parcels=m.parcels | {9: m.parcels[GONE]}),
    ),
    "an inbox of last round": (Inbox, lambda c, m: c.old[c.victim]),
    "a request for both secrets": (
        Request,
        lambda c, m: m._replace(survivors=m.survivors | {GONE}),
    ),
    "a request for less": (Request, lambda c, m: m._replace(dropouts=frozenset())),
    "a request for a stranger's": (
        Request,
        lambda c, m: m._replace(dropouts=m.dropouts | {9}),
    ),
    "a request for one's own key": (
        Request,
        lambda c, m: Request(m.context, m.survivors - {c.victim}, m.dropouts | {c.victim}),
    ),
    "a second request": (
        Request,
        lambda c, m: [m, Request(m.context, m.survivors - {(i := c.other())}, m.dropouts | {i})],
    ),
    "a request of last round": (Request, lambda c, m: c.old[c.victim]),
}


OLD, _ = record(a_plan(0), np.random.default_rng(7))


def tampered(seed: int, kind: type, tamper: Tamper) -> tuple[AbortError, int]:
    """A round in which one message is changed: what it was stopped by, and whose message it was."""
    rng = np.random.default_rng(seed)
    plan = a_plan(1)
    # The one that copies another's keys comes after it.
    victim = int(rng.integers(1, GONE))
    seen: list[Any] = []

    def deliver(message: Any, client: int) -> list[Any]:
        seen.append(message)
        if client != victim or type(message) is not kind:
            return [message]
        arrived = tamper(Case(rng, victim, seen, OLD[kind]), message)
        return arrived if type(arrived) is list else [arrived]

    with pytest.raises(AbortError) as stopped:
        run(plan, any_vectors(rng, plan), {GONE: "mask"}, rng.bytes, deliver)
    return stopped.value, victim


def check_all(rounds: int) -> int:
    checked = 0
    for seed in range(rounds):
        for name, (kind, tamper) in BY_VICTIM.items():
            abort, victim = tampered(seed, kind, tamper)
            assert abort.who == f"client {victim}", (name, abort)
            checked += 1
        for name, (kind, tamper) in BY_SERVER.items():
            abort, _ = tampered(seed, kind, tamper)
            assert abort.who == "the server", (name, abort)
            checked += 1
        for kind, tamper in ((Advert, flip_a_key), (Roster, flip_a_neighbours_key)):
            abort, victim = tampered(seed, kind, tamper)
            # Two clients saw different keys of one of them: which of the two lies, none can tell.
            assert f"client {victim}" in f"{abort.who} {abort.what}", abort
            checked += 1
        abort, victim = tampered(seed, Inbox, swap_parcels)
        assert abort.who != f"client {victim}" and f"for client {victim}" in abort.what, abort
        checked += 1
    return checked


def flip_a_key(case: Case, message: Advert) -> Advert:
    if case.rng.random() < 0.5:
        return message._replace(mask_key=case.flipped(message.mask_key))
    return message._replace(seal_key=case.flipped(message.seal_key))


def flip_a_neighbours_key(case: Case, message: Roster) -> Roster:
    return message._replace(
        adverts=case.replaced(message.adverts, lambda advert: flip_a_key(case, advert))
    )


def swap_parcels(case: Case, message: Inbox) -> Inbox:
    return message._replace(parcels=case.swapped(message.parcels))


def test_tampered_messages_are_found_and_named() -> None:
    assert check_all(rounds=6) > 250


@pytest.mark.slow
def test_1000_tampered_messages_are_found_and_named() -> None:
    assert check_all(rounds=30) > 1000
