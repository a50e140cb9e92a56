"""Arguments that several verbs of the command line take."""

from pathlib import Path
from typing import Annotated

from tyro.conf import UseAppendAction, arg

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
