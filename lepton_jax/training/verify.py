"""Whether a private run is what it says: ledger, card, checkpoints, config, result and epsilon agree.

*Guarantee*: without the signing key nobody changes one of these files, or takes entries off the
ledger, unseen. Not covered: figures in metrics.jsonl and evaluation.json, and what whoever has the
key, and so runs as its user, may sign.
"""

import math
from pathlib import Path
from typing import Any, NamedTuple, NoReturn

import msgspec

from lepton_jax import config_files
from lepton_jax.checks import UserError
from lepton_jax.privacy import accounting
from lepton_jax.privacy import card as cards
from lepton_jax.privacy.card import Card
from lepton_jax.privacy.terms import Terms
from lepton_jax.training import checkpoints
from lepton_jax.training.card import compare_marks, verify_card
from lepton_jax.training.chain import LEDGER, Entry
from lepton_jax.training.ledger import releases, verify_ledger
from lepton_jax.training.records import METRICS, read_json, read_records
from lepton_jax.training.runs import load_run
from lepton_jax.training.signing import PUBLIC_BYTES

_CONFIG, _RESULT = "config.toml", "result.json"
_ROUNDING = 1e-3  # relative; another version of the accountant may differ by so much


class Verified(NamedTuple):
    """What a run was verified to be.

    Attributes:
      entries: of the ledger.
      releases: that it charges.
      epsilon: of them, told by the accountant again.
      delta: at which it holds.
      head: hash of the ledger's last entry.
      public_key: whose signatures they are, in hex.
      checkpoints: how many there are.
      finished: whether it came to its end, and so has a card.
      stamps: what has to be seen before any figure.
    """

    entries: int
    releases: int
    epsilon: float
    delta: float
    head: str
    public_key: str
    checkpoints: int
    finished: bool
    stamps: tuple[str, ...]


def verify_run(folder: Path, *, public_key: bytes | None = None) -> Verified:
    """Verifies all that a private run's claim rests on; *Guarantee* as in the module's docstring.

    Args:
      folder: of the run, finished or not; nobody may write there meanwhile.
      public_key: whose signatures are right, 32 bytes; None: this user's.

    Raises:
      UserError: it names the first thing that is not as it was written, or not as the rest says.
    """
    if not (folder / _CONFIG).is_file():
        raise UserError(str(folder), "a run folder", f"no {_CONFIG} in it", "name one of a run")
    entries = verify_ledger(folder, public_key=public_key)
    began = entries[0].body
    terms = _terms(folder, began)
    _check_config(folder, began)
    finished = (folder / _RESULT).is_file()
    indices = checkpoints.finished(folder / "checkpoints")
    if finished:
        _check_sealed(folder / "checkpoints", indices)
    hashes = {each.hash for each in entries}
    for index in indices:
        verify_checkpoint(folder / "checkpoints" / str(index), terms, hashes)
    charged = releases(entries)
    epsilon = accounting.spending(terms)(charged)
    if finished or _has_ended(entries):
        card = verify_card(folder, entries, bytes.fromhex(began["public_key"]))
        _check_card(folder, card, terms, entries)
    if finished:
        _check_result(folder, card)
    _check_records(folder, entries, epsilon, finished=finished)
    head, key = entries[-1].hash, began["public_key"]
    return Verified(
        len(entries), charged, epsilon, terms.delta, head, key, len(indices), finished,
        cards.stamps(terms),
    )  # fmt: skip


def verify_checkpoint(path: Path, terms: Terms, hashes: set[str]) -> None:
    """Compares a checkpoint with its manifest, and its marks with the run's terms and ledger.

    Args:
      path: of the checkpoint.
      terms: of the run.
      hashes: of the ledger's entries.

    Raises:
      UserError: it names the first file that is not as it was saved, or the mark that differs.
    """
    checkpoints.verify(path)
    host = read_json(path / "host.json")
    compare_marks(path / "host.json", host, terms, host.get("ledger") in hashes)


def public_key_of(text: str) -> bytes:
    """A public key as `verify_run` and cards write it.

    Raises:
      UserError: it is not 64 hex digits.
    """
    try:
        raw = bytes.fromhex(text)
    except ValueError:
        raw = b""
    if len(raw) != PUBLIC_BYTES:
        raise UserError("--public-key", f"{2 * PUBLIC_BYTES} hex digits", repr(text))
    return raw


def _terms(folder: Path, began: dict[str, Any]) -> Terms:
    try:
        return msgspec.convert(began["terms"], Terms)
    except (KeyError, msgspec.ValidationError) as error:
        where = f"{folder / LEDGER}, line 1"
        raise UserError(where, "the terms of a private run", str(error)) from error


def _check_config(folder: Path, began: dict[str, Any]) -> None:
    found = config_files.fingerprint(config_files.load(folder / _CONFIG))
    if found != began["run_sha256"]:
        expected = f"the config {began['run_sha256'][:12]} that the ledger began with"
        _refuse(folder / _CONFIG, expected, found[:12])


def _has_ended(entries: list[Entry]) -> bool:
    """Whether a card has to be there: the run came to its end, and nothing came after."""
    course = [each.kind for each in entries if each.kind != "card"]
    return course[-1] == "end"


def _check_sealed(folder: Path, indices: list[int]) -> None:
    """A run that came to its end leaves no checkpoint half saved."""
    for path in sorted(folder.glob("[0-9]*")):
        if path.name not in map(str, indices):
            _refuse(path, "a finished checkpoint", "one without its manifest")


def _check_card(folder: Path, card: Card, terms: Terms, entries: list[Entry]) -> None:
    where, told = folder / "privacy_card.json", card.guarantee
    epsilon = told.epsilon if isinstance(told.epsilon, float) else math.inf
    charged = releases(entries)
    if told.releases != charged:
        _refuse(where, f"the {charged} releases of the ledger", str(told.releases))
    spent = accounting.spending(terms)(charged)
    if not math.isclose(epsilon, spent, rel_tol=_ROUNDING):
        _refuse(where, f"epsilon {spent:.4f}, as the ledger's releases give", f"{epsilon:.4f}")
    right = (
        cards.guarantee(terms, epsilon, charged),
        cards.making(terms),
        cards.trust(terms),
        cards.stamps(terms),
    )
    if right != (told, card.making, card.trust, card.stamps):
        _refuse(where, "the terms that the ledger began with", "other ones")
    if card.ledger.head not in {each.hash for each in entries}:
        _refuse(where, "the head of this ledger", f"{card.ledger.head[:12]}")
    if card.model.config_sha256 != entries[0].body["run_sha256"]:
        _refuse(where, "the config that the ledger began with", card.model.config_sha256[:12])


def _check_result(folder: Path, card: Card) -> None:
    """Compares result.json with the card, and with the checkpoint that it names."""
    result, where = load_run(folder).result, folder / _RESULT
    right = {
        "params_sha256": card.model.params_sha256,
        "kind": card.model.kind,
        "run": card.model.run,
        "test_accuracy": card.utility.test_accuracy,
        "epsilon": card.guarantee.epsilon,
        "delta": card.guarantee.delta,
        "noise_multiplier": card.making.noise_multiplier,
        "randomness": card.making.randomness,
        "hypothetical": True if card.guarantee.epsilon_is == "hypothetical" else None,
        "not_private": list(card.not_private),
    }
    for name, value in right.items():
        if result.get(name) != value:
            _refuse(where, f"{name} {value} as on the card", str(result.get(name)))


def _check_records(folder: Path, entries: list[Entry], epsilon: float, *, finished: bool) -> None:
    """Compares the records with the ledger, which must have charged each, and the last one's epsilon."""
    where, told = folder / METRICS, 0.0
    charged = {each.body["number"] for each in entries if each.kind == "release"}
    records = read_records(where)
    for line, record in enumerate(records, start=1):
        place, number = f"{where}, line {line}", record.get("round", record.get("epoch"))
        if type(number) is not int or number != line:
            _refuse(place, f"the record of number {line}", repr(number))
        if number not in charged:
            _refuse(place, f"a release in the ledger for number {number}", "none")
        now = record.get("epsilon")
        if type(now) is not float or now < told * (1 - _ROUNDING):
            _refuse(place, f"an epsilon of at least {told:.4f}", str(now))
        told = now
    # Of a run that goes on, releases may be charged that have no record yet.
    same = math.isclose(told, epsilon, rel_tol=_ROUNDING)
    if not (same or (told < epsilon and not finished)):
        expected = f"epsilon {epsilon:.4f}, as the ledger's releases give"
        _refuse(f"{where}, line {len(records)}", expected, f"{told:.4f}")


def _refuse(where: Path | str, expected: str, got: str) -> NoReturn:
    raise UserError(str(where), expected, got, "restore the file")
