"""What a user did wrong, said in one line: where, what was expected, what came, what to do."""

from collections.abc import Iterable
from difflib import get_close_matches
from unicodedata import category

_LONGEST = 1000  # characters of what came that a message repeats


class UserError(Exception):
    """A mistake that the user can mend; the command line prints it and exits with code 2.

    Args:
      where: the place: a config key (`federated.stages[1].bits`), a file, an argument.
      expected: what would have been right.
      got: what came instead.
      remedy: what to do, as an imperative; may be empty where it follows from `expected`.

    >>> print(UserError("train.epochs", "a whole number of at least 1", 0, "set train.epochs=1"))
    train.epochs: expected a whole number of at least 1, got 0; set train.epochs=1
    """

    def __init__(self, where: str, expected: str, got: object, remedy: str = "") -> None:
        self.where, self.expected, self.got, self.remedy = where, expected, got, remedy
        told = f"{_short(where)}: expected {expected}, got {_short(got)}"
        super().__init__(one_line(told + (f"; {remedy}" if remedy else "")))

    def __reduce__(self) -> tuple:
        return type(self), (self.where, self.expected, self.got, self.remedy)


def one_line(text: str) -> str:
    r"""Text that a terminal shows as one line: what could steer the terminal is spelled out.

    >>> print(one_line("a" + chr(10) + "b" + chr(7)))
    a b\x07
    """
    joined = " ".join(text.split())
    if joined.isprintable():
        return joined
    steers = ("Cc", "Cf", "Cs", "Co", "Cn")
    return "".join(ascii(c)[1:-1] if category(c) in steers else c for c in joined)


def _short(value: object) -> str:
    text = str(value)
    return text if len(text) <= _LONGEST else f"{text[: _LONGEST // 2]} ... {text[-100:]}"


def suggestion(name: str, known: Iterable[str], otherwise: str = "") -> str:
    """A remedy for a name that nothing has: the one that was meant, where one is near.

    >>> suggestion("resnet9", ["lepton_cnn", "resnet8"])
    'did you mean resnet8?'
    """
    near = get_close_matches(name, known, n=1)
    return f"did you mean {near[0]}?" if near else otherwise
