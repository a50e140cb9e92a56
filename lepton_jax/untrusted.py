"""What others may have written: read up to a limit, parsed strictly, refused in one line."""

import json
import math
import os
import stat
import tomllib
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

import msgspec

from lepton_jax.checks import UserError

TOML_BYTES, JSON_BYTES = 2**20, 2**26  # parsed, a byte of either takes up to 25 in memory
_DEEPEST = 32  # tables and lists in one another; no file of ours has more than 7
_SMALLEST, _LARGEST = -(2**63), 2**64 - 1
_RESTORE = "restore the file"
Content = TypeVar("Content")


def read_bytes(path: Path, limit: int, expected: str = "a file") -> bytes:
    """A file's content, where it is an ordinary file that is not too large.

    Args:
      path: of the file; a link is followed, but no device or pipe is read.
      limit: how many bytes it may have.
      expected: what the message calls it.

    Raises:
      UserError: no such file, not an ordinary one, not readable, or too large.
    """
    try:
        with open(path, "rb", opener=_without_waiting) as file:
            found = os.fstat(file.fileno())
            if not stat.S_ISREG(found.st_mode):
                raise UserError(str(path), expected, "no ordinary file")
            content = file.read(min(found.st_size, limit) + 1)
    except FileNotFoundError as error:
        raise UserError(str(path), expected, "nothing") from error
    except (OSError, ValueError) as error:  # ValueError: a zero byte in the path
        raise UserError(str(path), expected, getattr(error, "strerror", None) or error) from error
    if len(content) > min(found.st_size, limit):
        raise UserError(str(path), f"{expected} of at most {limit:,} bytes", f"{found.st_size:,}")
    return content


def _without_waiting(path: str, flags: int) -> int:
    return os.open(path, flags | os.O_NONBLOCK)  # else opening a pipe waits for its writer


def read_json(path: Path, limit: int = JSON_BYTES) -> Any:
    """A JSON file's content; raises UserError as `read_bytes` and `parse_json` do."""
    return parse_json(read_bytes(path, limit), str(path))


def parse_json(content: bytes, where: str, line: int | None = None) -> Any:
    """Parses JSON as RFC 8259 has it: no NaN, each key once, numbers that others can read too.

    Args:
      content: UTF-8.
      where: begins the place that an error names.
      line: the content's line in a file of several; None: the content is the file.

    Returns:
      Dicts, lists, text, numbers, booleans and None, no deeper than 32 levels.

    Raises:
      UserError: anything else; one line.

    >>> parse_json(b'{"a": [1, 2.5, null]}', "x.json")
    {'a': [1, 2.5, None]}
    """
    whole = where if line is None else f"{where}, line {line}"
    try:
        text = content.decode("utf-8")
        tree = json.loads(
            text,
            object_pairs_hook=partial(_once, whole),
            parse_constant=partial(_refuse_constant, whole),
        )
    except UnicodeDecodeError as error:
        got = f"bytes that are not UTF-8 ({error.reason})"
        raise UserError(_place(content, error.start, where, line), "JSON", got, _RESTORE) from error
    except json.JSONDecodeError as error:
        upto = len(text[: error.pos].encode())
        raise UserError(_place(content, upto, where, line), "JSON", error.msg, _RESTORE) from error
    except (RecursionError, ValueError) as error:  # ValueError: a number of thousands of digits
        raise _beyond(whole, error) from error
    check_plain(tree, whole, _RESTORE)
    return tree


def _place(content: bytes, end: int, where: str, line: int | None) -> str:
    upto = min(end, len(content.rstrip()))
    return f"{where}, line {line or content[:upto].count(10) + 1}"


def _once(where: str, pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        keys = [key for key, _ in pairs]
        twice = next(key for key in found if keys.count(key) > 1)
        raise UserError(where, "each key once", f"{twice!r} twice", _RESTORE)
    return found


def _refuse_constant(where: str, name: str) -> Any:
    raise UserError(where, "finite numbers", name, _RESTORE)


def parse_toml(content: bytes, where: str) -> dict[str, Any]:
    """Parses TOML.

    Args:
      content: UTF-8.
      where: begins the place that an error names.

    Returns:
      Tables and lists no deeper than 32 levels.

    Raises:
      UserError: it is no TOML, or nested too deeply.
    """
    try:
        tree = tomllib.loads(content.decode("utf-8"))
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise UserError(where, "a TOML file", error) from error
    except (RecursionError, ValueError) as error:
        raise _beyond(where, error) from error
    check_plain(tree, where, "leave the key out for the default")
    return tree


def convert(tree: Any, kind: type[Content], where: str) -> Content:
    """Parsed JSON as a struct, or whatever msgspec converts to.

    Raises:
      UserError: it is something else; the place names the key.
    """
    try:
        return msgspec.convert(tree, kind)
    except msgspec.ValidationError as error:
        what, _, place = str(error).replace("`", "").partition(" - at ")
        place = f"{where}{': ' + place if place else ''}"
        got = what[:1].lower() + what[1:]
        raise UserError(place, "what a run writes there", got, _RESTORE) from error


def _beyond(where: str, error: Exception) -> UserError:
    if isinstance(error, RecursionError):
        return UserError(where, f"at most {_DEEPEST} levels", "more", "flatten it")
    return UserError(where, "numbers of at most 64 bits", "a longer one")


_Place = tuple[Any, ...]  # (the place around it, a key or index), or () at the top


def check_plain(tree: Any, where: str, remedy: str = "") -> None:
    """Returns in silence if values that were parsed can be handled without surprises.

    Args:
      tree: of mappings, lists, tuples and whatever is in them.
      where: begins the place that an error names.
      remedy: what to do about a number that is not finite.

    Raises:
      UserError: more than 32 levels, a whole number beyond 64 bits, a number that is not finite,
        or text that is no Unicode; it names the place.
    """
    todo: list[tuple[Any, int, _Place]] = [(tree, 0, ())]
    while todo:  # not recursive: it is here that deep trees are refused
        value, depth, place = todo.pop()
        if depth > _DEEPEST:
            raise UserError(where, f"at most {_DEEPEST} levels", "more", "flatten it")
        if isinstance(value, Mapping):
            for key in value:
                if isinstance(key, str) and not _is_unicode(key):
                    raise UserError(_name(where, place), "Unicode for a key", ascii(key))
            todo.extend((item, depth + 1, (place, key)) for key, item in value.items())
        elif isinstance(value, list | tuple):
            if not _are_whole(value):
                todo.extend((item, depth + 1, (place, i)) for i, item in enumerate(value))
        elif isinstance(value, int) and not _SMALLEST <= value <= _LARGEST:
            raise UserError(_name(where, place), "a number of at most 64 bits", "a longer one")
        elif isinstance(value, float) and not math.isfinite(value):
            raise UserError(_name(where, place), "a finite number", value, remedy)
        elif isinstance(value, str) and not _is_unicode(value):
            raise UserError(_name(where, place), "Unicode text", ascii(value))


def _are_whole(values: list[Any] | tuple[Any, ...]) -> bool:
    """Whether a list holds 64-bit integers alone: the long ones do, and are told at once."""
    return all(type(value) is int for value in values) and (
        not values or (min(values) >= _SMALLEST and max(values) <= _LARGEST)
    )


def _is_unicode(text: str) -> bool:
    """Whether it can be written as UTF-8: half of a surrogate pair can't."""
    return text.isascii() or not any("\ud800" <= letter <= "\udfff" for letter in text)


def _name(where: str, place: _Place) -> str:
    steps: list[str] = []
    while place:
        place, step = place
        steps.append(f"[{step}]" if isinstance(step, int) else f".{step}")
    path = "".join(reversed(steps)).removeprefix(".")
    return f"{where}: {path}" if path else where
