"""What a region sends to the server, and what a seal binds it to."""

import re
from types import ModuleType
from typing import Literal, NamedTuple

from lepton_jax.checks import UserError

Kind = Literal["update", "sum"]
KINDS: tuple[Kind, ...] = ("update", "sum")
RUN_BYTES = 16


class About(NamedTuple):
    """What an update is of.

    Attributes:
      round: of the run, at least 0.
      model_sha256: of the model that the round started from, 64 hexadecimal digits.
      kind: `update`: one client's; `sum`: over the region's cohort.
      part: which of the cohort's updates, from 0; 0 of a sum. A place, not the client's number.
    """

    round: int
    model_sha256: str
    kind: Kind
    part: int = 0


class Sealed(NamedTuple):
    """A sealed update on its way; all but the body can be read, and none of it changed.

    Attributes:
      run: of the run, at least 16 bytes, used for one only.
      region: the sender.
      about: what it is of.
      body: the seal's one-time public key, and the encrypted arrays.
    """

    run: bytes
    region: str
    about: About
    body: bytes


def check_run(run: bytes) -> None:
    """Refuses what can't tell runs apart."""
    if len(run) < RUN_BYTES:
        expected, remedy = f"at least {RUN_BYTES} bytes", "draw them for each run: os.urandom(16)"
        raise UserError("run", expected, f"{len(run)}", remedy)


def check_round(where: str, round: int, model_sha256: str) -> None:
    """Refuses a round or a model that a seal can't bind."""
    if not 0 <= round < 2**63:
        raise UserError(f"{where}: round", "a whole number from 0", round)
    if not re.fullmatch(r"[0-9a-f]{64}", model_sha256):
        raise UserError(f"{where}: model_sha256", "64 hexadecimal digits", repr(model_sha256))


def bind(run: bytes, region: str, about: About) -> bytes:
    """What a seal is bound to; different arguments never give the same bytes."""
    framed = sealing().framed
    model = bytes.fromhex(about.model_sha256)
    return framed(run, region.encode(), about.round, model, about.kind.encode(), about.part)


def sealing() -> ModuleType:
    """The module of seals, which needs the extra `privacy`."""
    try:
        from federated.egress import sealing
    except ImportError:
        raise UserError(
            "sealed updates",
            "the extra `privacy`",
            "no cryptography here",
            "pip install 'lepton-jax[privacy]'",
        ) from None
    return sealing
