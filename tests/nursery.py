"""Jobs that start at once: each is a fork of a process that has imported what is slow to import."""

import json
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import IO


class Nursery:
    """A process of `tests.forking`, one job at a time; a context, at the end of which it is gone."""

    def __init__(self, root: Path, environment: Mapping[str, str]) -> None:
        self._process = subprocess.Popen(
            [sys.executable, "-m", "tests.forking"],
            cwd=root, env=environment, text=True,
            stdin=subprocess.PIPE, stdout=subprocess.PIPE,
        )  # fmt: skip
        assert self._process.stdin is not None and self._process.stdout is not None
        self._jobs: IO[str] = self._process.stdin
        self._told: IO[str] = self._process.stdout

    def __enter__(self) -> "Nursery":
        return self

    def __exit__(
        self, kind: type | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        with self._process:  # closes its pipes, and waits
            self._process.kill()

    def start(self, *job: str) -> int:
        """Starts a job; the number of the process that does it."""
        self._jobs.write(json.dumps(job) + "\n")
        self._jobs.flush()
        return json.loads(self._told.readline())

    def answer(self) -> tuple[int, str]:
        """Waits for the job's end: its exit status, and all that it said."""
        status, said = json.loads(self._told.readline())
        return status, said
