"""JSON on disk that survives a kill: files replaced atomically, lines appended and synced."""

import json
import os
from pathlib import Path
from typing import Any

from lepton_jax.checks import UserError

METRICS, TIMINGS = "metrics.jsonl", "timings.jsonl"


def write_bytes(path: Path, content: bytes) -> None:
    """Writes a file in one stroke: whoever reads sees the old one or the new one, whole."""
    temporary = path.with_name(f".{path.name}.tmp")
    with temporary.open("wb") as file:
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


def read_json(path: Path) -> Any:
    """Reads a JSON file.

    Raises:
      UserError: there is none, or it is not JSON.
    """
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise UserError(str(path), "a file", "nothing") from None
    except (json.JSONDecodeError, UnicodeDecodeError) as error:
        raise UserError(str(path), "JSON", str(error)) from error


def append(path: Path, record: dict[str, Any]) -> None:
    """Adds a line to a JSON-lines file, and returns when it is on disk."""
    with path.open("a", encoding="utf-8") as file:
        file.write(json.dumps(record, allow_nan=False) + "\n")
        file.flush()
        os.fsync(file.fileno())


def read_records(path: Path) -> list[dict[str, Any]]:
    """The records of a JSON-lines file, none where there is no file; a torn last line is left out.

    Raises:
      UserError: a line before the last one is not JSON.
    """
    if not path.exists():
        return []
    records = []
    lines = path.read_bytes().split(b"\n")
    for number, line in enumerate(lines[:-1], start=1):  # what follows the last newline is torn
        try:
            records.append(json.loads(line))
        except ValueError as error:
            where = f"{path}, line {number}"
            raise UserError(where, "a JSON object", repr(line[:40]), "restore the file") from error
    return records


def cut_back(path: Path, unit: str, last: int) -> list[dict[str, Any]]:
    """Drops what was recorded after a checkpoint, and returns what is left.

    Args:
      path: a JSON-lines file.
      unit: the key that numbers its records, `epoch` or `round`.
      last: the checkpoint's number; 0 keeps nothing.
    """
    records = [record for record in read_records(path) if record.get(unit, last + 1) <= last]
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
      UserError: some of them are missing.
    """
    cut_back(folder / TIMINGS, unit, last)
    records = cut_back(folder / METRICS, unit, last)
    if len(records) != last:
        where, remedy = str(folder / METRICS), "restore the file, or start anew in another folder"
        raise UserError(where, f"the records of {last} {unit}s", len(records), remedy)
    return records
