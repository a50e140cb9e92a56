"""What travels between the clients and the server in one round, and whom an abort names.

Every message carries its session and round, so that none can pass for another's. Shapes: `D` is
the number of elements of a client's vector.
"""

from typing import Any, Literal, NamedTuple

import numpy as np

from lepton_jax.checks import UserError

Stage = Literal["advertise", "share", "mask", "unmask"]
STAGES: tuple[Stage, ...] = ("advertise", "share", "mask", "unmask")
SERVER, COHORT = "the server", "the cohort"


class AbortError(UserError):
    """A round that must not go on: who is to blame, for what, what was expected and what came.

    Whoever raises it has changed no state and sent nothing.

    Args:
      who: `client 3`, `the server`, or `the cohort` where too few are left and nobody is to blame.
      what: the message or the part of it that is wrong.
      expected: what would have been right.
      got: what came instead.

    >>> print(AbortError("client 3", "share of client 5's key", "the committed one", "another"))
    client 3: share of client 5's key: expected the committed one, got another
    """

    def __init__(self, who: str, what: str, expected: str, got: object) -> None:
        self.who, self.what = who, what
        super().__init__(f"{who}: {what}", expected, got)

    def __reduce__(self) -> tuple:
        return type(self), (self.who, self.what, self.expected, self.got)


class Context(NamedTuple):
    """What keeps one round's keys, masks and messages apart from every other's.

    Attributes:
      session: at least 16 bytes, used for one training run only.
      round: counted up, used once.
    """

    session: bytes
    round: int


class Advert(NamedTuple):
    """Stage 1, up: a client's public keys, 32 bytes each."""

    context: Context
    client: int
    mask_key: bytes
    seal_key: bytes


class Roster(NamedTuple):
    """Stage 2, down: the public keys of those of a client's neighbours that advertised any."""

    context: Context
    adverts: dict[int, Advert]


class Deal(NamedTuple):
    """Stage 2, up: a client's shares, sealed for each holder, and commitments to all of them.

    Attributes:
      context: the round's.
      client: the dealer.
      seed_digest: commitment to the seed of its self-mask; its key's is the public key itself.
      seed_digests: commitments to the seed's shares, by holder; the dealer holds one too.
      key_digests: commitments to the mask key's shares, by holder.
      sealed: both shares, encrypted, by holder.
    """

    context: Context
    client: int
    seed_digest: bytes
    seed_digests: dict[int, bytes]
    key_digests: dict[int, bytes]
    sealed: dict[int, bytes]


class Parcel(NamedTuple):
    """What one dealer has for one holder."""

    sealed: bytes
    seed_digest: bytes
    key_digest: bytes


class Inbox(NamedTuple):
    """Stage 3, down: the parcels of those of a client's neighbours that dealt any, by dealer."""

    context: Context
    parcels: dict[int, Parcel]


class Masked(NamedTuple):
    """Stage 3, up: a client's vector [D] under its masks, modulo 2^32."""

    context: Context
    client: int
    vector: np.ndarray


class Request(NamedTuple):
    """Stage 4, down: of a client and its dealers, who sent a masked vector and who did not."""

    context: Context
    survivors: frozenset[int]
    dropouts: frozenset[int]


class Answer(NamedTuple):
    """Stage 4, up: a share of each survivor's seed and of each dropout's mask key, by dealer."""

    context: Context
    client: int
    seeds: dict[int, bytes]
    keys: dict[int, bytes]


def client_name(client: int) -> str:
    """How an abort names a client."""
    return f"client {client}"


def check_context(mine: Context, its: Context, who: str, what: str) -> None:
    """Refuses what was said in another session or round.

    Raises:
      AbortError: names `who`.
    """
    if its != mine:
        other = "another session" if its.session != mine.session else f"round {its.round}"
        raise AbortError(who, what, f"one of round {mine.round} of this session", f"one of {other}")


def check_advert(mine: Context, advert: Advert, others: dict[int, Advert]) -> None:
    """Refuses public keys of another round, of a wrong length, or that another client has.

    Raises:
      AbortError: names the client that the keys are said to be of.
    """
    who = client_name(advert.client)
    check_context(mine, advert.context, who, "public keys")
    keys = {advert.mask_key, advert.seal_key}
    if len(keys) < 2 or any(len(key) != 32 for key in keys):
        raise AbortError(who, "public keys", "two different ones of 32 bytes", "something else")
    for other in others.values():
        if keys & {other.mask_key, other.seal_key}:
            raise AbortError(who, "public keys", "its own", f"those of {client_name(other.client)}")


def wire_bytes(message: Any) -> int:
    """The bytes of a message: 4 a number, and no framing.

    >>> wire_bytes(Answer(Context(b"0123456789abcdef", 7), 2, {1: b"x" * 33}, {}))
    61
    """
    match message:
        case bytes():
            return len(message)
        case int():
            return 4
        case np.ndarray():
            return message.nbytes
        case dict():
            return 4 * len(message) + sum(wire_bytes(part) for part in message.values())
        case _:
            return sum(wire_bytes(part) for part in message)
