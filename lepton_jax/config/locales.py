"""Which locales there are, and whether names of the classes can be shown in them."""

import tomllib
from collections.abc import Mapping, Sequence
from functools import cache
from importlib.resources import files
from typing import NamedTuple
from unicodedata import category

_NOTE = "write it as de, pt-BR or zh-Hant-TW"


class _Subtags(NamedTuple):
    languages: frozenset[str]
    scripts: frozenset[str]
    regions: frozenset[str]


@cache
def _subtags() -> _Subtags:
    text = (files(__package__) / "subtags.toml").read_text(encoding="utf-8")
    return _Subtags(**{kind: frozenset(tags.split()) for kind, tags in tomllib.loads(text).items()})


def check_locale(tag: str) -> None:
    """Returns in silence if a locale is a language, with a script and a region at most (BCP 47).

    Letters are as the standard recommends them, since readers compare them one by one. Variants and
    extensions are not taken: no phone asks for labels by them.

    Args:
      tag: such as `de`, `pt-BR` or `zh-Hant-TW`.

    Raises:
      ValueError: it is no such tag, or one of its parts is in no list of them.

    >>> check_locale("pt-BR")
    """
    language, *rest = tag.split("-")
    known = _subtags()
    if language not in known.languages:
        got = f"{language!r} in {tag!r}" if rest else repr(language)
        raise ValueError(f"expected a language of ISO 639 for a locale, got {got}; {_NOTE}")
    if rest and len(rest[0]) == 4:
        if rest[0] not in known.scripts:
            raise ValueError(f"expected a script of ISO 15924, got {rest[0]!r} in {tag!r}; {_NOTE}")
        rest = rest[1:]
    if rest and rest[0] not in known.regions:
        raise ValueError(f"expected a region of ISO 3166, got {rest[0]!r} in {tag!r}; {_NOTE}")
    if len(rest) > 1:
        got = f"{rest[1]!r} besides, in {tag!r}"
        raise ValueError(f"expected language, script and region at most, got {got}; {_NOTE}")


def check_labels(labels: Mapping[str, Sequence[str]]) -> None:
    """Returns in silence if names of the classes can be written into a file a locale.

    Args:
      labels: names by locale, each in the order of the classes.

    Raises:
      ValueError: an unknown locale, lists of different length, or a name that is empty, there
        twice, with blanks around it, or no single line.
    """
    for locale, names in labels.items():
        check_locale(locale)
        first, others = next(iter(labels.items()))
        if len(names) != len(others):
            expected = f"expected as many labels in {locale!r} as in {first!r}, {len(others)}"
            raise ValueError(f"{expected}, got {len(names)}; name every class once")
        for position, name in enumerate(names):
            if not _is_line(name):
                got = f"{name!r} for class {position} in {locale!r}"
                raise ValueError(
                    f"expected a label of one line, got {got}; write it as it is shown"
                )
        if len(set(names)) < len(names):
            twice = next(name for name in names if list(names).count(name) > 1)
            got = f"{twice!r} twice in {locale!r}"
            raise ValueError(
                f"expected a label of its own for each class, got {got}; tell them apart"
            )


def _is_line(name: str) -> bool:
    """Whether a name is one line without blanks around it; joiners, which scripts need, may be in it."""
    controls = any(category(letter) in ("Cc", "Cs") for letter in name)
    return len(name.splitlines()) == 1 and name.strip() == name and not controls
