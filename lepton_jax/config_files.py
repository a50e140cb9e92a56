"""Reads a `Run` from TOML with overrides, names what is wrong with it, and writes it back."""

import hashlib
import itertools
import re
import tomllib
import types
import typing
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, TypeVar

import msgspec
import tomli_w

from lepton_jax.checks import UserError, one_line, suggestion
from lepton_jax.config import Run
from lepton_jax.untrusted import TOML_BYTES, check_plain, parse_toml, read_bytes

_HERE = Path(__file__).parent
_BUNDLED = (_HERE / "configs", _HERE.parent / "configs")  # in a wheel, in a checkout

Kind = TypeVar("Kind", bound=msgspec.Struct)


def bundled() -> dict[str, Path]:
    """The configs that come with the library, by name."""
    folder = next((folder for folder in _BUNDLED if folder.is_dir()), None)
    return {path.stem: path for path in sorted(folder.glob("*.toml"))} if folder else {}


def load(config: str | Path, overrides: Sequence[str] = ()) -> Run:
    """Reads a config and checks all of it, before anything else happens.

    Args:
      config: a bundled config's name, or a path to a TOML file.
      overrides: `a.b=value` each, applied in order before the one validation; the value is TOML
        (`3`, `[1, 2]`, `{kind = "adam"}`), or a bare word for a string; `none` unsets the key.

    Returns:
      The validated run.

    Raises:
      UserError: no such config, not TOML, an unknown key, a wrong type, an impossible value or
        combination; one line that names the place.

    >>> load("digits_central", ["train.epochs=3"]).train.epochs
    3
    """
    path = find(config)
    tree = parse_toml(read_bytes(path, TOML_BYTES, "a readable file"), str(path))
    for override in overrides:
        _apply(tree, override)
    return validate(tree, str(path))


def find(config: str | Path) -> Path:
    """The file that a config's name or path means."""
    known = bundled()
    if str(config) in known:
        return known[str(config)]
    with suppress(OSError, ValueError):  # a name too long, or with a zero byte
        if Path(config).is_file():
            return Path(config)
    raise UserError(
        "config",
        "a bundled config or a TOML file",
        repr(str(config)),
        f"{suggestion(str(config), known)} bundled: {', '.join(known)}",
    )


def validate(tree: Mapping[str, Any], source: str = "config") -> Run:
    """Turns plain dicts into a `Run`.

    Raises:
      UserError: as `load`; its place begins with `source`.
    """
    return convert(tree, Run, source)


def convert(tree: Mapping[str, Any], kind: type[Kind], source: str) -> Kind:
    """Turns plain dicts into a struct of any kind.

    Raises:
      UserError: an unknown key, a wrong type, an impossible value; one line that names the place,
        which begins with `source`.
    """
    check_plain(tree, source, "leave the key out for the default")
    try:
        return msgspec.convert(tree, kind)
    except msgspec.ValidationError as error:
        raise _explain(error, kind, tree, source) from error


def dumps(run: Run) -> str:
    """The run as TOML with every default spelled out; `load` reads it back to an equal run."""
    return tomli_w.dumps(_without_none(msgspec.to_builtins(run)))


def fingerprint(run: Run) -> str:
    """SHA-256 of everything in the run that bears on its result, name included."""
    return hashlib.sha256(msgspec.json.encode(run, order="deterministic")).hexdigest()


def _without_none(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _without_none(item) for key, item in value.items() if item is not None}
    if isinstance(value, list | tuple):
        return [_without_none(item) for item in value]
    return value


# --- overrides ------------------------------------------------------------------------------------

_KEY = re.compile(r"[A-Za-z_]\w*(?:\[\d{1,9}\])*(?:\.[A-Za-z_]\w*(?:\[\d{1,9}\])*)*")
_STEP = re.compile(r"([A-Za-z_]\w*)|\[(\d+)\]")


def _apply(tree: dict[str, Any], override: str) -> None:
    key, equals, text = override.partition("=")
    where = f"--set {override}"
    if not equals or not _KEY.fullmatch(key.strip()):
        example = "KEY=VALUE with a key such as train.epochs or federated.stages[0].max_norm"
        raise UserError(where, example, repr(override))
    path = _steps(key)
    node: Any = tree
    for step, following in itertools.pairwise(path):
        if isinstance(node, dict) and isinstance(following, str):
            node = node.setdefault(step, {})
        else:
            node = _descend(node, step, where)
    _set(node, path[-1], _value(text.strip()), where)


def _steps(key: str) -> list[str | int]:
    """`a.b[0]` as the steps "a", "b", 0."""
    return [name or int(index) for name, index in _STEP.findall(key)]


def _descend(node: Any, step: str | int, where: str) -> Any:
    try:
        return node[step]
    except (KeyError, IndexError, TypeError):
        raise UserError(
            where, f"the config to hold {step!r}", "nothing there", "set the whole list"
        ) from None


def _set(node: Any, last: str | int, value: Any, where: str) -> None:
    if isinstance(node, dict) and isinstance(last, str):
        if value is None:
            node.pop(last, None)
        else:
            node[last] = value
    elif isinstance(node, list) and isinstance(last, int) and last < len(node):
        node[last] = value
    else:
        raise UserError(
            where,
            "a key of a table or an index of a list",
            f"{last!r} of {type(node).__name__}",
            "set the whole value instead",
        )


def _value(text: str) -> Any:
    if text == "none":
        return None
    try:
        return tomllib.loads(f"value = {text}")["value"]
    except (ValueError, KeyError, RecursionError):  # of these, `validate` says what is wrong
        return text


# --- explanations ---------------------------------------------------------------------------------

_AT = re.compile(r"^(?P<what>.*?)(?: - at `(?P<path>[^`]*)`)?$", re.DOTALL)
_GOT = re.compile(r"^Expected (?P<expected>.*), got (?P<got>.*)$", re.DOTALL)
_WIDEST = 200  # characters of what a file says, in a line about it


def _explain(
    error: msgspec.ValidationError, root: Any, tree: Mapping[str, Any], source: str
) -> UserError:
    """One line with place, expectation, what came and a remedy, out of msgspec's message."""
    match = _AT.match(str(error))
    what, path = (match["what"], match["path"] or "$") if match else (str(error), "$")
    key = path.removeprefix("$").removeprefix(".")
    if unknown := re.search(r"unknown field `(.*)`", what):
        place = f"{key}.{unknown[1]}"[:_WIDEST] if key else unknown[1][:_WIDEST]
        known = _fields(root, key, tree)
        return UserError(
            f"{source}: {place}",
            f"one of {', '.join(known)}" if known else "a known key",
            "an unknown key",
            suggestion(unknown[1], known, "remove it"),
        )
    where = f"{source}: {key}" if key else source
    got = _shown(_look_up(tree, path))
    if isinstance(
        error.__cause__, ValueError
    ):  # from a struct's own __post_init__, already explained
        return _ExplainedError(where, what)
    if matched := _GOT.match(what):
        return UserError(
            where,
            matched["expected"].replace("`", ""),
            f"{got} ({matched['got']})".replace("`", ""),
        )
    if missing := re.search(r"missing required field `(.*)`", what):
        where += f".{missing[1]}" if key else f": {missing[1]}"
        return UserError(where, "a value", "nothing", f"set {missing[1]}")
    if what.startswith("Invalid"):
        choices = _choices(root, key, tree)
        return UserError(where, f"one of {', '.join(choices)}" if choices else "a known value", got)
    return UserError(where, what.removeprefix("Expected ").replace("`", ""), got)


def _shown(value: Any) -> str:
    """What came, as far as it fits into a line."""
    text = repr(value)
    return text if len(text) <= _WIDEST else f"{text[:_WIDEST]}..."


class _ExplainedError(UserError):
    """A struct's own explanation, kept as it is behind its place."""

    def __init__(self, where: str, said: str) -> None:
        super().__init__(where, "", "")
        self.args = (one_line(f"{where}: {said[:1000]}"),)


def _look_up(tree: Any, path: str) -> Any:
    for step in _steps(path):
        try:
            tree = tree[step]
        except (KeyError, IndexError, TypeError):
            return "nothing"
    return tree


def _annotation(root: Any, key: str, tree: Mapping[str, Any]) -> Any:
    """The type of the place `key` in `root`, tagged unions resolved by the `kind` that came."""
    annotation: Any = root
    value: Any = tree
    for step in _steps(key):
        if isinstance(step, int):
            annotation = next(iter(typing.get_args(annotation)), None)
        else:
            struct = _struct(annotation, value)
            annotation = typing.get_type_hints(struct).get(step) if struct else None
        value = _look_up(value, f"[{step}]" if isinstance(step, int) else step)
    return annotation


def _members(annotation: Any) -> list[Any]:
    if isinstance(annotation, types.UnionType) or typing.get_origin(annotation) is typing.Union:
        return [member for part in typing.get_args(annotation) for member in _members(part)]
    return [annotation]


def _structs(annotation: Any) -> list[Any]:
    return [
        m for m in _members(annotation) if isinstance(m, type) and issubclass(m, msgspec.Struct)
    ]


def _struct(annotation: Any, value: Any) -> Any:
    kind = value.get("kind") if isinstance(value, Mapping) else None
    structs = _structs(annotation)
    return next((s for s in structs if len(structs) == 1 or s.__struct_config__.tag == kind), None)


def _fields(root: Any, key: str, tree: Mapping[str, Any]) -> tuple[str, ...]:
    annotation = _annotation(root, key, tree) if key else root
    struct = _struct(annotation, _look_up(tree, f".{key}") if key else tree)
    return struct.__struct_fields__ if struct else ()


def _choices(root: Any, key: str, tree: Mapping[str, Any]) -> list[str]:
    """The values that a literal or the `kind` of a tagged union may take."""
    if key.endswith(".kind"):
        union = _annotation(root, key.removesuffix(".kind"), tree)
        return [s.__struct_config__.tag for s in _structs(union)]
    members = _members(_annotation(root, key, tree))
    return [
        repr(c)
        for m in members
        if typing.get_origin(m) is typing.Literal
        for c in typing.get_args(m)
    ]
