"""Entries that hold the hash of the one before and are signed, and a head that says how many there are.

A line is exactly its entry's canonical JSON, so that not even a space changes unseen.
"""

import hashlib
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal, NoReturn

import msgspec
from msgspec import Struct

from lepton_jax import untrusted
from lepton_jax.checks import UserError
from lepton_jax.training.signing import Signer, verify_signature

LEDGER, HEAD = "ledger.jsonl", "ledger.head.json"
Kind = Literal["begin", "release", "resume", "stop", "end", "card"]
_NOTHING = "0" * 64  # what the first entry has before it
_ENTRY, _HEAD = (
    b"lepton-jax ledger entry 1\n",
    b"lepton-jax ledger head 1\n",
)  # no signature is both
_MEND = "resume the run to mend it"
_RESTORE = "restore the file"


class Entry(Struct, frozen=True, forbid_unknown_fields=True):
    """One entry; `hash` is that of the first four fields, `signature` of the hash, all of it in hex."""

    index: int
    previous: str
    kind: Kind
    body: dict[str, Any]
    hash: str
    signature: str


class Head(Struct, frozen=True, forbid_unknown_fields=True):
    """How many entries there are, the last one's hash, and who signed them, in hex."""

    entries: int
    hash: str
    public_key: str
    signature: str


def canonical(value: Any) -> str:
    """JSON in the one way that is hashed and stored.

    Raises:
      ValueError: there is a NaN or an infinity in it, which JSON lacks.

    >>> canonical({"b": (1, 2.5), "a": None})
    '{"a": null, "b": [1, 2.5]}'
    """
    return json.dumps(value, sort_keys=True, allow_nan=False)


def plain(value: Any) -> Any:
    """A value as its canonical JSON reads back: keys sorted, tuples as lists."""
    return json.loads(canonical(value))


def entry(before: Entry | None, kind: Kind, body: dict[str, Any], key: Signer) -> Entry:
    """The next entry of a chain, signed."""
    index, previous = (0, _NOTHING) if before is None else (before.index + 1, before.hash)
    body = plain(body)
    found = _hash(index, previous, kind, body)
    return Entry(index, previous, kind, body, found, key.sign(_ENTRY + found.encode()).hex())


def fields(made: Entry) -> dict[str, Any]:
    """An entry as JSON, its keys in the order in which they are stored."""
    return plain(msgspec.to_builtins(made))


def line(made: Entry) -> bytes:
    """An entry as it stands in the file."""
    return f"{canonical(fields(made))}\n".encode()


def head(entries: Sequence[Entry], key: Signer) -> bytes:
    """The content of the file that says how many entries there are."""
    said = {"entries": len(entries), "hash": entries[-1].hash, "public_key": key.public.hex()}
    signature = key.sign(_HEAD + canonical(said).encode()).hex()
    return f"{canonical({**said, 'signature': signature})}\n".encode()


def read(path: Path) -> bytes:
    """A file's content.

    Raises:
      UserError: there is none, or it is no ordinary file, too large or can't be read.
    """
    return untrusted.read_bytes(path, untrusted.JSON_BYTES)


def entries(path: Path, content: bytes, public_key: bytes) -> list[Entry]:
    """The entries of a ledger, each verified.

    Args:
      path: named where something is wrong.
      content: of the file.
      public_key: what each must be signed by.

    Raises:
      UserError: it names the first line that is not as it was written.
    """
    *lines, torn = content.split(b"\n")
    found: list[Entry] = []
    for number, raw in enumerate(lines, start=1):
        found.append(_verified(f"{path}, line {number}", raw, found[-1:], public_key))
    if torn:
        _refuse(f"{path}, line {len(lines) + 1}", "a whole line", "a torn one", _MEND)
    if not found:
        _refuse(f"{path}, line 1", "the entry `begin`", "nothing")
    return found


def check_head(folder: Path, entries: Sequence[Entry], public_key: bytes, *, beyond: int) -> int:
    """Compares a ledger with its head, and returns how many entries the head knows of.

    Args:
      folder: of both.
      entries: verified ones.
      public_key: what the head must be signed by.
      beyond: how many entries may have come after it.

    Raises:
      UserError: the head is damaged or of another ledger, or there are fewer or more entries.
    """
    path, log = folder / HEAD, folder / LEDGER
    raw = read(path)
    said = _decoded(str(path), raw.removesuffix(b"\n"), Head)
    shown = msgspec.to_builtins(said)
    signature = shown.pop("signature")
    if raw != f"{canonical({**shown, 'signature': signature})}\n".encode():
        _refuse(str(path), "the head as it was written", "an edited one")
    check_key(str(path), said.public_key, public_key)
    _check_signature(str(path), signature, _HEAD + canonical(shown).encode(), public_key)
    if said.entries > len(entries):
        where = f"{log}, line {len(entries) + 1}"
        _refuse(where, f"an entry, one of the {said.entries} that the head tells of", "nothing")
    if said.entries < max(1, len(entries) - beyond):
        got = f"entry {len(entries)}"
        _refuse(
            f"{log}, line {said.entries + 1}", f"{said.entries} entries as in {HEAD}", got, _MEND
        )
    if said.hash != entries[said.entries - 1].hash:
        _refuse(str(path), "the head of this ledger", "that of another one")
    return said.entries


def check_key(where: str, found: str, public_key: bytes) -> None:
    """Refuses what says that it was signed by another key.

    Raises:
      UserError: it names both keys.
    """
    if found != public_key.hex():
        expected, got = f"the key {public_key.hex()[:16]}", f"the unknown key {found[:16]}"
        _refuse(where, expected, got, "resume as who began it, verify by --public-key")


def _verified(where: str, raw: bytes, before: list[Entry], public_key: bytes) -> Entry:
    found = _decoded(where, raw, Entry)
    if raw + b"\n" != line(found):
        _refuse(where, "an entry as it was written", "an edited one")
    index, previous = (before[0].index + 1, before[0].hash) if before else (0, _NOTHING)
    if found.index != index:
        _refuse(where, f"entry {index}", f"entry {found.index}")
    if found.hash != _hash(found.index, found.previous, found.kind, found.body):
        _refuse(where, "an entry as it was written", "an edited one")
    if found.previous != previous:
        _refuse(where, "the hash of the entry before", "another one")
    if (found.kind == "begin") != (index == 0):
        _refuse(where, "the entry `begin` first, and once", f"`{found.kind}`")
    if found.kind == "begin":
        check_key(where, str(found.body.get("public_key")), public_key)
    _check_signature(where, found.signature, _ENTRY + found.hash.encode(), public_key)
    return found


def _decoded(where: str, raw: bytes, kind: type[Any]) -> Any:
    try:
        return msgspec.json.decode(raw, type=kind)
    except (ValueError, RecursionError) as error:  # msgspec's errors are ValueErrors
        raise UserError(
            where, f"a ledger's {kind.__name__.lower()}", str(error), _RESTORE
        ) from error


def _check_signature(where: str, signature: str, message: bytes, public_key: bytes) -> None:
    try:
        raw = bytes.fromhex(signature)
    except ValueError:
        raw = b""
    if raw.hex() != signature or not verify_signature(public_key, raw, message):
        _refuse(where, f"a signature of the key {public_key.hex()[:16]}", "another one")


def _refuse(where: str, expected: str, got: str, remedy: str = _RESTORE) -> NoReturn:
    raise UserError(where, expected, got, remedy)


def _hash(index: int, previous: str, kind: Kind, body: dict[str, Any]) -> str:
    said = {"index": index, "previous": previous, "kind": kind, "body": body}
    return hashlib.sha256(canonical(said).encode()).hexdigest()
