"""JSON on disk that survives a kill: files replaced atomically, lines appended and synced."""

import json
import os
from pathlib import Path
from typing import Any

import msgspec

from lepton_jax import untrusted
from lepton_jax.checks import UserError
from lepton_jax.untrusted import read_json

__all__ = [
    "METRICS",
    "TIMINGS",
    "append",
    "cut_back",
    "go_on",
    "read_json",
    "read_records",
    "through_no_link",
    "write_bytes",
    "write_json",
    "write_text",
]

METRICS, TIMINGS = "metrics.jsonl", "timings.jsonl"


def write_bytes(path: Path, content: bytes) -> None:
    """Writes a file in one stroke: whoever reads sees the old one or the new one, whole."""
    temporary = path.with_name(f".{path.name}.tmp")
    temporary.unlink(missing_ok=True)  # if it is a link, then not to write through it
    with temporary.open("xb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())
    temporary.replace(path)
    folder = os.open(path.parent, os.O_RDONLY)
    try:
        os.fsync(folder)  # the new name is on disk before anything that relies on it
    finally:
        os.close(folder)


def write_text(path: Path, text: str) -> None:
    """Writes UTF-8 text in one stroke."""
    write_bytes(path, text.encode())


def write_json(path: Path, value: Any) -> None:
    """Writes a JSON file in one stroke; NaN and infinity, which JSON lacks, raise."""
    write_text(path, json.dumps(value, indent=1, allow_nan=False) + "\n")


def append(path: Path, record: dict[str, Any]) -> None:
    """Adds a line to a JSON-lines file, and returns when it is on disk."""
    with open(path, "a", encoding="utf-8", opener=through_no_link) as file:
        file.write(json.dumps(record, allow_nan=False) + "\n")
        file.flush()
        os.fsync(file.fileno())


def through_no_link(path: str, flags: int) -> int:
    """Opens a file of a run folder, which may be another one's, unless it leads out of there."""
    return os.open(path, flags | os.O_NOFOLLOW, 0o666)


def read_records(path: Path) -> list[dict[str, Any]]:
    """The records of a JSON-lines file, none where there is no file; a torn last line is left out.

    Raises:
      UserError: a line before the last one is no JSON object, or the file is too large.
    """
    if not path.exists():
        return []
    records = []
    lines = untrusted.read_bytes(path, untrusted.JSON_BYTES).split(b"\n")
    for number, line in enumerate(lines[:-1], start=1):  # what follows the last newline is torn
        record = untrusted.parse_json(line, str(path), number)
        if not isinstance(record, dict):
            where = f"{path}, line {number}"
            raise UserError(where, "a JSON object", repr(line[:40]), "restore the file")
        records.append(record)
    return records


def cut_back(path: Path, unit: str, last: int) -> list[dict[str, Any]]:
    """Drops what was recorded after a checkpoint, and returns what is left.

    Args:
      path: a JSON-lines file.
      unit: the key that numbers its records, `epoch` or `round`.
      last: the checkpoint's number; 0 keeps nothing.
    """
    records = []
    for number, record in enumerate(read_records(path), start=1):
        at = record.get(unit, last + 1)
        if type(at) is not int:
            where = f"{path}, line {number}: {unit}"
            raise UserError(where, "a whole number", repr(at), "restore the file")
        if at <= last:
            records.append(record)
    write_text(path, "".join(json.dumps(record, allow_nan=False) + "\n" for record in records))
    return records


def go_on(folder: Path, unit: str, last: int) -> list[dict[str, Any]]:
    """Brings a run's records back to its newest checkpoint.

    Args:
      folder: of the run.
      unit: `epoch` or `round`.
      last: the checkpoint's number; 0 where there is none.

    Returns:
      The records of 1 to `last`.

    Raises:
      UserError: some of them are missing, or not what a run writes.
    """
    _check(cut_back(folder / TIMINGS, unit, last), _Timing, folder / TIMINGS)
    records = cut_back(folder / METRICS, unit, last)
    if len(records) != last:
        where, remedy = str(folder / METRICS), "restore the file, or start anew in another folder"
        raise UserError(where, f"the records of {last} {unit}s", len(records), remedy)
    _check(records, _Epoch if unit == "epoch" else _Round, folder / METRICS)
    for number, record in enumerate(records, start=1):
        if record[unit] != number:
            where = f"{folder / METRICS}, line {number}: {unit}"
            raise UserError(where, str(number), record[unit], "restore the file")
    return records


# --- what a run that goes on reads from its records -----------------------------------------------


class _Measured(msgspec.Struct):
    loss: float
    accuracy: float


class _Scored(msgspec.Struct):
    loss: float | None
    accuracy: float


class _Seen(msgspec.Struct):
    loss: float | None
    accuracy: float | None


class _Epoch(msgspec.Struct):
    epoch: int
    step: int
    train: _Seen
    validation: _Measured | None
    test: _Measured | None = None
    epsilon: float | None = None


class _Round(msgspec.Struct):
    round: int
    train: _Seen
    test: _Scored | msgspec.UnsetType = msgspec.UNSET
    epsilon: float | msgspec.UnsetType = msgspec.UNSET


class _Timing(msgspec.Struct):
    images_per_second: float


def _check(records: list[dict[str, Any]], kind: type[msgspec.Struct], path: Path) -> None:
    for number, record in enumerate(records, start=1):
        untrusted.convert(record, kind, f"{path}, line {number}")
