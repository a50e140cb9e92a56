"""A run's privacy card on disk: built from its terms and ledger, hashed, signed, and bound to both.

The ledger's entry `end` holds the card's hash, so that the two can't be parted unseen; a card that is
changed later, by an audit, has an entry `card`.
"""

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal, NamedTuple

import msgspec

from lepton_jax import __version__, config_files
from lepton_jax.checks import UserError
from lepton_jax.config import Run
from lepton_jax.privacy import card as cards
from lepton_jax.privacy.card import Card
from lepton_jax.privacy.terms import Terms
from lepton_jax.training import chain, signing
from lepton_jax.training.chain import Entry
from lepton_jax.training.ledger import Ledger, reopen_ledger
from lepton_jax.training.records import read_json, write_bytes
from lepton_jax.training.runs import held
from lepton_jax.training.signing import Signer

CARD = "privacy_card.json"
_CARD = b"lepton-jax privacy card 1\n"  # no signature of the ledger's is one of a card
_USE = "Image classification of what the training data show, where errors cost little."
_NO_USE = "Decisions about people; data unlike the training data."


class Outcome(NamedTuple):
    """What came of a private run.

    Attributes:
      run: its configuration.
      kind: what made it.
      epsilon: of all that the ledger charged.
      params_sha256: fingerprint of the final model.
      evaluation: the figures of evaluation.json.
    """

    run: Run
    kind: Literal["train", "simulate"]
    epsilon: float
    params_sha256: str
    evaluation: Mapping[str, Any]


def terms_sha256(terms: Terms) -> str:
    """A fingerprint of what a run promises."""
    same = msgspec.convert(msgspec.to_builtins(terms), Terms)  # 1 and 1.0 are one noise multiplier
    return hashlib.sha256(chain.canonical(msgspec.to_builtins(same)).encode()).hexdigest()


def checkpoint_marks(terms: Terms, ledger: Ledger) -> dict[str, str]:
    """What a private run's checkpoint says besides: its terms, and the ledger's head when it was made.

    A ledger without that head is an older copy, which `verify_run` finds.
    """
    return {"terms_sha256": terms_sha256(terms), "ledger": ledger.head()}


def check_marks(path: Path, host: Mapping[str, Any], terms: Terms, ledger: Ledger) -> None:
    """Refuses to go on from a checkpoint of other terms, or with a ledger older than it.

    Args:
      path: of the checkpoint, to be named.
      host: what `checkpoint_marks` gave, among others.
      terms: of the run.
      ledger: of the run.

    Raises:
      UserError: the marks are missing or not those of this run.
    """
    compare_marks(path, host, terms, ledger.holds(str(host.get("ledger"))))


def write_card(folder: Path, terms: Terms, ledger: Ledger, outcome: Outcome) -> str:
    """Ends a private run's ledger and writes its card.

    Args:
      folder: of the run.
      terms: what it promised.
      ledger: of the run; it gets the entry `end`.
      outcome: what came of it.

    Returns:
      The card's SHA-256.

    Raises:
      UserError: the key can't be used.
    """
    key = signing.signer()
    card = _card(terms, ledger, outcome, key)
    sha256 = card_sha256(card)
    # The ledger first: a kill between the two leaves a run that isn't finished, and ends again.
    ledger.note("end", card=sha256, params_sha256=outcome.params_sha256)
    write_bytes(folder / CARD, _content(card, key))
    return sha256


def add_audit(folder: Path, audit: Mapping[str, Any]) -> str:
    """Adds an audit's figures to a finished run's card.

    Args:
      folder: of the run.
      audit: JSON; what was audited, how, and what came of it.

    Returns:
      The new card's SHA-256, which the ledger holds in an entry `card`.

    Raises:
      UserError: there is no card, it or the ledger is damaged or of another key, or the folder is
        in use.
      ValueError: there is a NaN or an infinity in it.
    """
    chain.read(folder / CARD)  # else holding the folder would make it
    with held(folder):
        key = signing.signer()
        before = read_card(folder, key.public)
        added = (*before.audits, chain.plain(dict(audit)))
        card = msgspec.structs.replace(before, audits=added)
        sha256 = card_sha256(card)
        # The ledger first: after a kill between the two the audit is missing, and can be added.
        reopen_ledger(folder).note("card", card=sha256)
        write_bytes(folder / CARD, _content(card, key))
    return sha256


def card_sha256(card: Card) -> str:
    """The hash that stands for a card, in the ledger and in the phone model."""
    return hashlib.sha256(chain.canonical(msgspec.to_builtins(card)).encode()).hexdigest()


def read_card(folder: Path, public_key: bytes) -> Card:
    """A run's card, as it was written and signed.

    Args:
      folder: of the run.
      public_key: whose signature is right, 32 bytes.

    Raises:
      UserError: there is none, it was changed, or another key signed it.
    """
    path = folder / CARD
    raw = chain.read(path)
    try:
        tree = json.loads(raw)
        sha256, signature = str(tree.pop("sha256")), str(tree.pop("signature"))
        card = msgspec.convert(tree, Card)
        signed = bytes.fromhex(signature)
        same = raw == _text(card, sha256, signed.hex()) and sha256 == card_sha256(card)
    except (ValueError, KeyError, AttributeError, TypeError, RecursionError) as error:
        expected = "a privacy card as it was written"
        raise UserError(str(path), expected, str(error), "restore the file") from error
    if not same:
        _refuse(path, "a privacy card as it was written", "an edited one")
    chain.check_key(str(path), card.ledger.public_key, public_key)
    if not signing.verify_signature(public_key, signed, _CARD + sha256.encode()):
        _refuse(path, f"a signature of the key {public_key.hex()[:16]}", "another one")
    return card


def card_of(folder: Path) -> str | None:
    """The hash of a run's card, by whoever it was signed; None where the run has none.

    Raises:
      UserError: it was changed.
    """
    if not (folder / CARD).exists():
        return None
    ledger = read_json(folder / CARD).get("ledger", {})
    try:
        key = bytes.fromhex(ledger["public_key"])
    except (KeyError, TypeError, ValueError):
        _refuse(folder / CARD, "a privacy card as it was written", "one without its key")
    return card_sha256(read_card(folder, key))


def verify_card(folder: Path, entries: list[Entry], public_key: bytes) -> Card:
    """A finished run's card, compared with its ledger.

    Args:
      folder: of the run.
      entries: of its ledger, verified.
      public_key: whose signature is right, 32 bytes.

    Raises:
      UserError: it is not as it was written, or not the one that the ledger ends with.
    """
    card, path = read_card(folder, public_key), folder / CARD
    named = [each for each in entries if each.kind in ("end", "card")]
    if not named:
        _refuse(path, "a ledger with the entry `end`", "one without it")
    if named[-1].body["card"] != card_sha256(card):
        got = f"{card_sha256(card)[:12]}"
        _refuse(path, f"the card {named[-1].body['card'][:12]} of the ledger's last entry", got)
    return card


def compare_marks(path: Path, host: Mapping[str, Any], terms: Terms, held: bool) -> None:
    """Refuses a checkpoint's marks; `held` tells whether the ledger has the head that it names.

    Raises:
      UserError: the marks are missing or not those of this run.
    """
    expected, found = terms_sha256(terms), host.get("terms_sha256")
    if found != expected:
        _refuse(path, f"a checkpoint of the terms {expected[:12]}", str(found)[:12])
    if not held:
        got = f"a ledger without its entry {str(host.get('ledger'))[:12]}"
        _refuse(path, "the ledger that it was made with", got, "restore the newest ledger")


def _card(terms: Terms, ledger: Ledger, outcome: Outcome, key: Signer) -> Card:
    run, test = outcome.run, outcome.evaluation["test"]
    card = Card(
        format=cards.FORMAT,
        stamps=cards.stamps(terms),
        model=cards.Subject(
            run=run.name,
            kind=outcome.kind,
            architecture=run.model.name,
            data=run.data.name,
            library=f"lepton-jax {__version__}",
            config_sha256=config_files.fingerprint(run),
            params_sha256=outcome.params_sha256,
            intended_use=_USE,
            not_intended=_NO_USE,
        ),
        guarantee=cards.guarantee(terms, outcome.epsilon, ledger.charged()),
        making=cards.making(terms),
        accounting=cards.Accounting(accountant=terms.accountant, version=terms.accountant_version),
        trust=cards.trust(terms),
        ledger=cards.Evidence(head=ledger.head(), public_key=key.public.hex()),
        audits=(),
        utility=cards.Utility(
            test_accuracy=test["accuracy"],
            test_examples=test["examples"],
            regions=_regions(outcome.evaluation),
        ),
        hazards_not_addressed=cards.hazards(terms),
        not_private=terms.not_private,
    )
    # As it will be read back: a whole number given for a real one is a real one.
    return msgspec.convert(msgspec.to_builtins(card), Card)


def _regions(evaluation: Mapping[str, Any]) -> tuple[cards.RegionUtility, ...]:
    names = cards.RegionUtility.__struct_fields__
    return tuple(
        cards.RegionUtility(**{name: each[name] for name in names})
        for each in evaluation.get("regions", ())
    )


def _content(card: Card, key: Signer) -> bytes:
    sha256 = card_sha256(card)
    return _text(card, sha256, key.sign(_CARD + sha256.encode()).hex())


def _text(card: Card, sha256: str, signature: str) -> bytes:
    tree = {**msgspec.to_builtins(card), "sha256": sha256, "signature": signature}
    return f"{json.dumps(tree, indent=1, allow_nan=False)}\n".encode()


def _refuse(where: Path, expected: str, got: str, remedy: str = "restore the file") -> None:
    raise UserError(str(where), expected, got, remedy)
