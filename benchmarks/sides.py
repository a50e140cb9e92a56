"""A side of a measurement: a runner in a process of its own, which works when it is told to."""

import json
import os
import subprocess
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

from benchmarks.memory import Peak, watched
from lepton_jax.cache import cache_folder
from lepton_jax.checks import UserError

_ROOT = Path(__file__).resolve().parents[1]
_VARIANTS = {
    "torch": ("threads", "processes"),
    "opacus": ("hooks", "functorch", "ghost"),
}
# Peers that would call home are told not to.
_QUIET = {
    "FLWR_TELEMETRY_ENABLED": "0",
    "RAY_USAGE_STATS_ENABLED": "0",
    "TF_CPP_MIN_LOG_LEVEL": "2",
    "TF_ENABLE_ONEDNN_OPTS": "1",
    "JAX_PLATFORMS": "cpu",
    "CUDA_VISIBLE_DEVICES": "",
}


class Side(NamedTuple):
    """Who works on which job.

    Attributes:
      name: `lepton` or a peer.
      variant: of a peer that can go about it in several ways, else "".
      folder: of the job.
      rounds: of a repetition.
      work: of a repetition, in images, or in GFLOP where that is asked for.
      label: what the results call it; unset, its name.
      environment: variables besides those of this process.
      runner: the module in `benchmarks.peers`; unset, that of its name.
    """

    name: str
    variant: str
    folder: Path
    rounds: int
    work: float
    label: str = ""
    environment: Mapping[str, str] = {}
    runner: str = ""

    @property
    def group(self) -> str:
        """What the best of its variants is called."""
        return self.label or self.name

    @property
    def key(self) -> str:
        """What its own numbers stand under."""
        return "-".join(filter(None, (self.group, self.variant)))


class Turn(NamedTuple):
    """How long a turn took: by the wall's clock, and by the processors' without the children's."""

    seconds: float
    processor_seconds: float


class Runner(NamedTuple):
    """A side whose process has started.

    Attributes:
      side: whose.
      process: speaks the line of `benchmarks.peers.protocol`.
      peak: its memory.
      versions: of the packages that it measures.
    """

    side: Side
    process: subprocess.Popen[str]
    peak: Peak
    versions: dict[str, str]

    def go(self, rounds: int) -> Turn:
        """The time that so many rounds take; its memory is watched meanwhile."""
        with watched(self.peak):
            return Turn(**_ask(self.process, self.side, {"do": "go", "rounds": rounds}))

    def accuracy(self) -> float | None:
        """Of what it has learned, on the test images."""
        return _ask(self.process, self.side, {"do": "accuracy"})["accuracy"]


def variants(name: str) -> tuple[str, ...]:
    """The ways in which a peer can go about it, of which the fastest counts; ("",) of one way.

    >>> variants("torch")
    ('threads', 'processes')
    """
    return _VARIANTS.get(name, ("",))


def python_of(name: str) -> Path:
    """The Python of a side's environment.

    Raises:
      UserError: it has none yet.
    """
    if name == "lepton":
        return Path(sys.executable)
    python = environment_folder(name) / "bin" / "python"
    if not python.exists():
        remedy = f"python -m benchmarks.environments {name}"
        raise UserError("--against", f"an environment of {name}", f"none at {python}", remedy)
    return python


def environment_folder(name: str) -> Path:
    """Where a peer's virtual environment lies."""
    return cache_folder() / "benchmarks" / name


@contextmanager
def started(side: Side) -> Iterator[Runner]:
    """Starts a runner, waits until it is ready and, in the end, sees it off."""
    command = [str(python_of(side.name)), "-m", f"benchmarks.peers.{side.runner or side.name}"]
    command += [str(side.folder), *filter(None, [side.variant])]
    environment = {**os.environ, **_QUIET, "PYTHONPATH": str(_ROOT), **side.environment}
    process = subprocess.Popen(
        command,
        cwd=_ROOT,
        env=environment,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    try:
        yield Runner(side, process, Peak(process.pid), _answer(process, side)["ready"])
    finally:
        _see_off(process)


def _ask(process: subprocess.Popen[str], side: Side, order: dict[str, Any]) -> dict[str, Any]:
    assert process.stdin is not None
    try:
        print(json.dumps(order), file=process.stdin, flush=True)
    except BrokenPipeError:
        raise _died(side) from None
    return _answer(process, side)


def _answer(process: subprocess.Popen[str], side: Side) -> dict[str, Any]:
    assert process.stdout is not None
    line = process.stdout.readline()
    if not line:
        raise _died(side)
    return json.loads(line)


def _died(side: Side) -> UserError:
    remedy = "its own words are above, on stderr"
    return UserError(f"runner of {side.key}", "an answer", "its end", remedy)


def _see_off(process: subprocess.Popen[str]) -> None:
    assert process.stdin is not None and process.stdout is not None
    try:
        process.stdin.close()
        process.wait(timeout=20)
    except (BrokenPipeError, subprocess.TimeoutExpired):
        process.kill()
        process.wait()
    process.stdout.close()
