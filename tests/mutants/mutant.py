"""What a seeded bug is: one change of one file's text, and what must notice it."""

from typing import NamedTuple


class Law(NamedTuple):
    """A test that must fail: `file::test`, as narrow as it can be."""

    node: str


class Audit(NamedTuple):
    """An audit that must fail: of `examples` or `clients`, see `attacked.py`."""

    of: str


class Refusal(NamedTuple):
    """What the library must now refuse by itself: a UserError whose line begins with `words`."""

    snippet: str
    words: str


class Types(NamedTuple):
    """A file in which mypy must find a mistake that has `words` in its line."""

    file: str
    words: str


Catcher = Law | Audit | Refusal | Types


class Mutant(NamedTuple):
    """A seeded privacy bug.

    Attributes:
      bug: what is wrong with it, in words.
      file: the one that is changed.
      text: what stands there exactly once.
      instead: what the bug puts in its place.
      caught_by: what must notice.
    """

    bug: str
    file: str
    text: str
    instead: str
    caught_by: Catcher
