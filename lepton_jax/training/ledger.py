"""The ledger of a private run: every release is charged here, on disk, before it is made.

`ledger.jsonl` only ever grows: each entry holds the hash of the one before and is signed.
`ledger.head.json`, replaced after each, says how many there are; without it the last ones could be
cut off unseen. What an entry promises: `begin` the terms and the run, `release` so many releases
about to be made, `resume` that a run goes on, `stop` why it ended early, `end` its card and model,
`card` a later card, with audits.

*Guarantee*: what `charged` tells is never less than the releases for which `charge` returned, whatever
kills the process; and no one without the signing key changes, drops, adds or reorders an entry, or
cuts the ledger off, without `verify_ledger` finding it. Who puts back an older copy of both files
together is found by the checkpoints and records that they lack (`verify_run`).

| on resuming                                 | what happens                                   |
|---------------------------------------------|------------------------------------------------|
| a last line without its newline             | cut off: its release never happened            |
| one entry beyond the head                   | counts; the head is renewed                    |
| the entry `begin` alone, without a head     | the head is renewed, if nothing was trained    |
| nothing there and nothing was trained       | begins                                         |
| nothing there, yet records or checkpoints   | UserError                                      |
| other terms, another run, any other damage  | UserError                                      |

| charged again                               | what happens                                   |
|---------------------------------------------|------------------------------------------------|
| a round done again, noise and cohort secure | charged again: it is another release           |
| done again and reproducible, the same body  | nothing: it is the same release, bit by bit    |
| a number below 1, releases below 0, NaN     | ValueError, and nothing is written             |
| releases 0: nobody took part oftener        | written down all the same                      |
"""

import secrets
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

from lepton_jax.checks import UserError
from lepton_jax.training import chain, signing
from lepton_jax.training.chain import HEAD, LEDGER, Entry, Kind
from lepton_jax.training.records import METRICS, append, read_records, write_bytes
from lepton_jax.training.signing import Signer, signer


class Ledger(NamedTuple):
    """A run's ledger, open for writing; one process at a time, as `open_run` sees to.

    Attributes:
      charge: (number, releases, **body) -> None: charges so many releases to the round or epoch of
        this number. On disk before it returns: call it before what it charges is made.
      note: (kind, **body) -> None: writes down what else happened.
      charged: () -> the sum of the releases ever charged.
      head: () -> the hash of the last entry, which stands for all of them.
      holds: hash -> whether an entry has it. A checkpoint's must be there, or the ledger is older.
    """

    charge: Callable[..., None]
    note: Callable[..., None]
    charged: Callable[[], int]
    head: Callable[[], str]
    holds: Callable[[str], bool]


def open_ledger(folder: Path, terms: Mapping[str, Any], run_sha256: str, *, resume: bool) -> Ledger:
    """Begins a run's ledger, or goes on with it; *Guarantee* and edge cases as in the module's docstring.

    Args:
      folder: of the run; nobody else may write there meanwhile.
      terms: what is promised, as JSON; where its `randomness` is "reproducible", the same charge
        again adds nothing.
      run_sha256: fingerprint of the run's config.
      resume: go on with what is there; where nothing is and nothing was trained, begin.

    Raises:
      UserError: there is one already (without `resume`), it is of another run or key, or damaged.
    """
    key = signer()
    begun = (folder / LEDGER).exists() or (folder / HEAD).exists()
    if not begun:
        _begin(folder, terms, run_sha256, key)
        return _writer(folder, _mended(folder, key), key)
    if not resume:
        expected, got = "no ledger yet", "one that has begun"
        raise UserError(str(folder / LEDGER), expected, got, "go on with --resume")
    entries = _mended(folder, key)
    _check_same(f"{folder / LEDGER}, line 1", entries[0].body, terms, run_sha256)
    ledger = _writer(folder, entries, key)
    ledger.note("resume")
    return ledger


def reopen_ledger(folder: Path) -> Ledger:
    """Goes on with a ledger whatever its run, to note what came after: an audit's card.

    Raises:
      UserError: there is none, it is of another key, or damaged.
    """
    key = signer()
    return _writer(folder, _mended(folder, key), key)


def verify_ledger(folder: Path, *, public_key: bytes | None = None) -> list[Entry]:
    """The entries of a ledger in which nothing was changed; edge cases are damage here, all of them.

    Args:
      folder: of the run.
      public_key: whose signatures are right, 32 bytes; None: this user's.

    Raises:
      UserError: it names the file and line of the first entry that is not as it was written, that
        another key signed, or that is missing.
    """
    key = signing.public_key() if public_key is None else public_key
    if key is None:
        expected, got = "the public key of who ran it", "none, and no key of this user here"
        raise UserError(str(folder / LEDGER), expected, got, "give it by --public-key")
    path = folder / LEDGER
    entries = chain.entries(path, chain.read(path), key)
    chain.check_head(folder, entries, key, beyond=0)
    return entries


def read_ledger(folder: Path) -> list[dict[str, Any]]:
    """A ledger's entries as they stand there, unverified; none where there is no ledger.

    Raises:
      UserError: a line before the last one is not JSON.
    """
    return read_records(folder / LEDGER)


def releases(entries: list[Entry]) -> int:
    """The sum of the releases that entries charge."""
    return sum(entry.body["releases"] for entry in entries if entry.kind == "release")


def _begin(folder: Path, terms: Mapping[str, Any], run_sha256: str, key: Signer) -> None:
    _refuse_lost(folder, "none")
    body = {
        "terms": dict(terms),
        "run_sha256": run_sha256,
        "public_key": key.public.hex(),
        # Two secure runs of one config are two; the files of a reproducible one are the same again.
        "nonce": "" if _repeats(terms) else secrets.token_hex(16),
    }
    first = chain.entry(None, "begin", body, key)
    write_bytes(folder / LEDGER, chain.line(first))
    write_bytes(folder / HEAD, chain.head([first], key))


def _writer(folder: Path, entries: list[Entry], key: Signer) -> Ledger:
    """A ledger of verified entries, open for writing."""
    hashes = {each.hash for each in entries}
    repeats = _repeats(entries[0].body["terms"])
    earlier = {chain.canonical(each.body) for each in entries if each.kind == "release"}

    def write(kind: Kind, body: dict[str, Any]) -> None:
        made = chain.entry(entries[-1], kind, body, key)
        append(folder / LEDGER, chain.fields(made))
        entries.append(made)
        hashes.add(made.hash)
        write_bytes(folder / HEAD, chain.head(entries, key))

    def charge(number: int, releases: int, **body: Any) -> None:
        for name, value, least in (("number", number, 1), ("releases", releases, 0)):
            if not (type(value) is int and value >= least):
                expected = f"a whole number of at least {least}"
                raise ValueError(f"expected {name}: {expected}, got {value!r}")
        charged = {**body, "number": number, "releases": releases}
        content = chain.canonical(charged)
        if not (repeats and content in earlier):
            write("release", charged)
            earlier.add(content)

    def note(kind: Kind, **body: Any) -> None:
        if kind in ("begin", "release"):
            raise ValueError(f"expected a kind of note, got {kind!r}")
        write(kind, body)

    return Ledger(
        charge,
        note,
        charged=lambda: releases(entries),
        head=lambda: entries[-1].hash,
        holds=lambda hash: hash in hashes,
    )


def _mended(folder: Path, key: Signer) -> list[Entry]:
    """The entries that count, with the files made to say so where a kill left them between two."""
    path = folder / LEDGER
    content = chain.read(path)
    whole, _, torn = content.rpartition(b"\n")
    if torn:
        content = whole + b"\n" if whole else b""
    entries = chain.entries(path, content, key.public)
    if not (folder / HEAD).exists() and len(entries) == 1:
        _refuse_lost(folder, "its first entry alone")
        known = 0
    else:
        known = chain.check_head(folder, entries, key.public, beyond=1)
    if torn:
        write_bytes(path, content)
    if torn or known < len(entries):
        write_bytes(folder / HEAD, chain.head(entries, key))
    return entries


def _refuse_lost(folder: Path, got: str) -> None:
    """A run that has records or checkpoints has made releases: its ledger must say so."""
    metrics = folder / METRICS
    trained = metrics.exists() and metrics.stat().st_size > 0
    if trained or any((folder / "checkpoints").glob("[0-9]*")):
        expected, remedy = (
            "the ledger of a run that has begun",
            "restore it, or start anew elsewhere",
        )
        raise UserError(str(folder / LEDGER), expected, got, remedy)


def _check_same(
    where: str, began: dict[str, Any], terms: Mapping[str, Any], run_sha256: str
) -> None:
    before = began["run_sha256"]
    if before != run_sha256:
        expected, got = f"the run {before[:12]} that it began with", run_sha256[:12]
        raise UserError(where, expected, got, "resume with the same config")
    then, now = began["terms"], chain.plain(dict(terms))
    for name in sorted({*then, *now}):
        if then.get(name) != now.get(name):
            expected, got = f"{then.get(name)!r} as it began with", repr(now.get(name))
            remedy = "resume with the same terms, or start anew in another folder"
            raise UserError(f"{where}: {name}", expected, got, remedy)


def _repeats(terms: Mapping[str, Any]) -> bool:
    """Whether a round done again is the same release; where nothing says so, it is another."""
    return terms.get("randomness") == "reproducible"
