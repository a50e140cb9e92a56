"""Sides take turns: each stays warm in its own process, and only one of them computes at a time."""

import sys
import time
from collections.abc import Sequence
from contextlib import ExitStack
from typing import NamedTuple

from benchmarks.sides import Runner, Side, Turn, started

_REST_S = 0.3  # threads of the side before may still be spinning


class Outcome(NamedTuple):
    """What one side did.

    Attributes:
      side: which.
      seconds: of each repetition.
      peak_rss: bytes, of its process and their children.
      accuracy: on the test images after all rounds; None where nothing is learned.
      versions: of the packages measured.
      processor_seconds: of each repetition, by the process' own clock; () where it wasn't read.
    """

    side: Side
    seconds: tuple[float, ...]
    peak_rss: int
    accuracy: float | None
    versions: dict[str, str]
    processor_seconds: tuple[float, ...] = ()


def take_turns(sides: Sequence[Side], repetitions: int) -> list[Outcome]:
    """Warms every side up by one round, then measures a repetition of each, again and again.

    Args:
      sides: in the order of their turns; all do the same rounds of the same job.
      repetitions: of each side.

    Raises:
      UserError: a side has no environment, or its runner died.
    """
    with ExitStack() as stack:
        runners = []
        for side in sides:
            say(f"{side.key}: starting")
            runners.append(stack.enter_context(started(side)))
            runners[-1].go(1)
        taken: list[list[Turn]] = [[] for _ in sides]
        for repetition in range(1, repetitions + 1):
            for runner, own in zip(runners, taken, strict=True):
                time.sleep(_REST_S)
                own.append(runner.go(runner.side.rounds))
                say(f"{runner.side.key}: repetition {repetition}, {own[-1].seconds:.2f} s")
        return [_outcome(runner, own) for runner, own in zip(runners, taken, strict=True)]


def rehearse(side: Side) -> None:
    """Starts a side for one round, so that what it compiles is in its cache from then on."""
    say(f"{side.key}: rehearsing")
    with started(side) as runner:
        runner.go(1)


def say(text: str) -> None:
    """Progress, for whoever waits."""
    print(text, file=sys.stderr, flush=True)


def _outcome(runner: Runner, turns: Sequence[Turn]) -> Outcome:
    peak = runner.peak.bytes  # before the test images come in
    wall, processor = zip(*turns, strict=True)
    return Outcome(runner.side, wall, peak, runner.accuracy(), runner.versions, processor)
