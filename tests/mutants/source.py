"""Copies of the source, in which one file at a time may be changed, and what is run there."""

import os
import shutil
import subprocess
import sys
from pathlib import Path
from types import TracebackType

from tests.mutants.mutant import Audit, Catcher, Law, Mutant, Refusal
from tests.nursery import Nursery

ROOT = Path(__file__).parents[2]
_COPIED = ("lepton_jax", "federated", "tests", "configs", "pyproject.toml")
_PYTEST = ("-q", "-x", "-m", "", "-p", "no:cacheprovider", "--hypothesis-seed=0")


class Source:
    """A copy, and a nursery in it; a context, at the end of which both are gone."""

    def __init__(self, root: Path) -> None:
        self.root, self._later = root, 0
        for name in _COPIED:
            if (ROOT / name).is_dir():
                skipped = shutil.ignore_patterns("__pycache__")
                shutil.copytree(ROOT / name, root / name, ignore=skipped)
            else:
                shutil.copy2(ROOT / name, root / name)
        self._nursery: Nursery | None = None

    def __enter__(self) -> "Source":
        return self

    def __exit__(
        self, kind: type | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._nursery is not None:
            self._nursery.__exit__(kind, error, trace)
        shutil.rmtree(self.root)

    def change(self, mutant: Mutant) -> None:
        """Puts a bug in."""
        path = self.root / mutant.file
        self._write(path, path.read_text().replace(mutant.text, mutant.instead))

    def restore(self, mutant: Mutant) -> None:
        """Takes it out again."""
        self._write(self.root / mutant.file, (ROOT / mutant.file).read_text())

    def catch(self, catcher: Catcher) -> tuple[int, str]:
        """Runs what is to notice a bug: its exit status, and all that it said."""
        if isinstance(catcher, Law):
            return self.test(catcher.node)
        if isinstance(catcher, Audit):
            return self._ask("module", "tests.mutants.attacked", catcher.of)
        if isinstance(catcher, Refusal):
            return self._ask("snippet", catcher.snippet)
        flags = ("--follow-imports=silent", "--no-error-summary")
        done = subprocess.run(
            [sys.executable, "-m", "mypy", *flags, catcher.file],
            cwd=self.root, env=self._environment(), text=True,
            stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
        )  # fmt: skip
        return done.returncode, done.stdout

    def test(self, *nodes: str) -> tuple[int, str]:
        """Runs tests, in one process."""
        return self._ask("pytest", *_PYTEST, *nodes)

    def _ask(self, *job: str) -> tuple[int, str]:
        if self._nursery is None:
            self._nursery = Nursery(self.root, self._environment())
        self._nursery.start(*job)
        return self._nursery.answer()

    def _environment(self) -> dict[str, str]:
        shared = ("LEPTON_CACHE_DIR", "PYTEST_XDIST_WORKER")  # which a changed source must not
        kept = {k: v for k, v in os.environ.items() if k not in shared}
        ours = {"PYTHONPATH": str(self.root), "COLUMNS": "300", "JAX_PLATFORMS": "cpu"}
        return {**kept, **ours, "PYTEST_ADDOPTS": ""}

    def _write(self, path: Path, content: str) -> None:
        path.write_text(content)
        self._later += 10  # compiled code is told by its source's size, and time in seconds
        now = path.stat().st_mtime + self._later
        os.utime(path, (now, now))
