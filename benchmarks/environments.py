"""Makes a virtual environment for each peer: `python -m benchmarks.environments [torch pfl ...]`."""

import subprocess
import sys
import venv
from collections.abc import Sequence
from pathlib import Path

from benchmarks.sides import environment_folder
from benchmarks.workloads import PEERS, unknown
from lepton_jax.checks import UserError
from lepton_jax.console import one_line_errors

_PINS = Path(__file__).parent / "peers"


def main(names: Sequence[str]) -> None:
    """Makes the environments named, or all of them.

    Raises:
      UserError: no such peer, or pip failed.
    """
    for name in names:
        if name not in PEERS:
            raise unknown("PEER", name, PEERS)
    for name in names or PEERS:
        make(name)


def make(name: str) -> None:
    """Makes or completes one environment, from the pins beside its runner."""
    folder = environment_folder(name)
    print(f"{name}: installing into {folder}", file=sys.stderr)
    venv.create(folder, with_pip=True)
    python, pins = str(folder / "bin" / "python"), str(_PINS / f"{name}.txt")
    command = [python, "-m", "pip", "install", "--quiet", "--requirement", pins]
    if subprocess.run(command, stdout=sys.stderr).returncode:
        remedy = f"pip's own words are above; or leave {name} out of --against"
        raise UserError(name, "an environment that pip can install", "an error", remedy)


if __name__ == "__main__":
    with one_line_errors("benchmarks"):
        main(sys.argv[1:])
