"""The server's desk: opens what regions have sealed, for this run, round and model, and only once."""

from collections.abc import Callable, Mapping
from typing import NamedTuple

import numpy as np

from federated.egress.letters import KINDS, Sealed, bind, check_round, check_run, sealing
from federated.egress.wire import unpack
from lepton_jax.checks import UserError


class Books(NamedTuple):
    """What a desk waits for, and what it has opened of it.

    Attributes:
      round: the present one; -1 before the first.
      model_sha256: of the model that it starts from.
      opened: region, kind and part of what was opened in this round.
    """

    round: int = -1
    model_sha256: str = ""
    opened: frozenset[tuple[str, str, int]] = frozenset()


class Desk(NamedTuple):
    """The server's side of the regions' gates; state goes in and comes out.

    Attributes:
      expect: (books, round, model_sha256) -> books; begins a round, later than the one before.
      open: (books, sealed) -> (books, arrays).
    """

    expect: Callable[[Books, int, str], Books]
    open: Callable[[Books, Sealed], tuple[Books, list[np.ndarray]]]


def open_desk(run: bytes, *, key: bytes, senders: Mapping[str, bytes]) -> Desk:
    """The desk of one run.

    *Guarantee.* What it opens is what the named region's gate sealed for this run, round, model,
    kind and part, unchanged, and not opened before with these books. A refusal leaves the books as
    they were. Books that are thrown away forget the replays of their round: who begins again with
    new ones takes a new `run`.

    | edge                                             | result                       |
    |--------------------------------------------------|------------------------------|
    | another run, round or model, an unknown region   | UserError that names it      |
    | the same region, round, kind and part again      | UserError: a replay          |
    | any bit of the body or of what it is of changed  | UserError that names region  |
    | a body of nothing, or cut short                  | the same                     |
    | opened before any round is expected              | UserError: another round     |
    | sealed arrays that aren't as `wire.pack` lays out| UserError that names region  |

    Args:
      run: as the gates have it.
      key: the server's private key, 32 random bytes.
      senders: the regions' public keys, by name.

    Raises:
      UserError: a run's name too short, keys of another length, no extra `privacy`.

    >>> from federated.egress import sealing
    >>> desk = open_desk(bytes(16), key=bytes(32), senders={"asia": sealing.public_key(b"a" * 32)})
    >>> desk.expect(Books(), 1, "0" * 64).round
    1
    """
    check_run(run)
    sealing()
    if any(len(each) != 32 for each in (key, *senders.values())):
        raise UserError("desk", "keys of 32 bytes", "others")

    def expect(books: Books, round: int, model_sha256: str) -> Books:
        check_round("desk", round, model_sha256)
        if round <= books.round:
            raise UserError("desk: round", f"one after {books.round}", round)
        return Books(round, model_sha256)

    def open(books: Books, sealed: Sealed) -> tuple[Books, list[np.ndarray]]:
        about = sealed.about
        if sealed.region not in senders:
            expected = f"a region of the run ({', '.join(senders)})"
            raise UserError("sealed update", expected, repr(sealed.region))
        where = f"region {sealed.region}: sealed update"
        _check_about(where, run, books, sealed)
        name = (sealed.region, about.kind, about.part)
        if name in books.opened:
            got = f"a replay of {about.kind} {about.part} of round {about.round}"
            raise UserError(where, "each update once", got)
        bound = bind(run, sealed.region, about)
        plain = sealing().unseal(sealed.body, bound, senders[sealed.region], key)
        if plain is None:
            expected = "what the region sealed for this server, run, round and model"
            raise UserError(where, expected, "something else", "ask for it again")
        return books._replace(opened=books.opened | {name}), unpack(plain, where)

    return Desk(expect, open)


def _check_about(where: str, run: bytes, books: Books, sealed: Sealed) -> None:
    about = sealed.about
    if sealed.run != run:
        raise UserError(where, "one of this run", "one of another")
    if books.round < 0 or about.round != books.round:
        raise UserError(where, f"one of round {books.round}", f"one of round {about.round}")
    if about.model_sha256 != books.model_sha256:
        expected = f"one from the model {books.model_sha256[:12]}"
        raise UserError(where, expected, f"one from {about.model_sha256[:12]}")
    if about.kind not in KINDS or not 0 <= about.part < 2**63:
        raise UserError(where, f"part of an {' or a '.join(KINDS)}", f"{about.kind} {about.part}")
