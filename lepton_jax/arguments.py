"""Arguments that several verbs of the command line take, and how a verb's are parsed."""

import io
from collections.abc import Callable
from contextlib import redirect_stderr
from functools import partial, wraps
from pathlib import Path
from typing import Annotated

import tyro
from tyro.conf import FlagCreatePairsOff, UseAppendAction, arg

from lepton_jax.checks import UserError

Config = Annotated[str, arg(help="a bundled config's name, or a TOML file", metavar="CONFIG")]
Folder = Annotated[Path, arg(help="a run folder", metavar="RUN")]
Out = Annotated[Path | None, arg(help="run folder (default: runs/NAME)", metavar="RUN")]
Resume = Annotated[bool, arg(help="continue from the newest good checkpoint")]
Set = Annotated[
    UseAppendAction[tuple[str, ...]],
    arg(name="set", help="change the config: --set train.epochs=3", metavar="KEY=VALUE"),
]
Target = Annotated[float | None, arg(help="stop at this test accuracy (0.99)", metavar="A")]
Json = Annotated[bool, arg(help="end stdout with one JSON object")]


def parsed(run: Callable[..., None], verb: str, words: list[str]) -> Callable[[], None]:
    """A verb with its arguments, yet to be run.

    Raises:
      UserError: what tyro can't parse; the first of what it says in a frame, as one line.
    """

    @wraps(run)
    def later(*args: object, **named: object) -> Callable[[], None]:
        return partial(run, *args, **named)

    panel = io.StringIO()
    try:
        with redirect_stderr(panel):
            return tyro.cli(later, prog=f"lepton {verb}", args=words, config=(FlagCreatePairsOff,))
    except SystemExit as end:
        if not end.code:
            raise
        got, remedy = _first_part(panel.getvalue()).rstrip("."), f"see lepton {verb} --help"
        raise UserError(verb, "arguments as its help tells", got, remedy) from None


def _first_part(panel: str) -> str:
    """What a framed message says above its first rule, in one line and without what helps."""
    framed = [line.strip("│").rstrip()[1:] for line in panel.splitlines()[1:]]
    ruled = [bool(line) and not line.strip(" ─-") for line in framed]
    # Where text isn't Unicode, a rule is first.
    begin = ruled.index(False) if False in ruled else len(ruled)
    end = ruled.index(True, begin) if True in ruled[begin:] else len(ruled)
    told = (line for line in framed[begin:end] if not line.startswith(" " * 8))
    return " ".join(" ".join(told).split())
