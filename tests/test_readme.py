"""What the README says, a reader can paste: its examples run, in order, in one folder."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
README = (ROOT / "README.md").read_text()
BLOCKS = [
    (language, code)
    for language, code in re.findall(r"```(bash|python)\n(.*?)```", README, re.DOTALL)
    if "make demo" not in code and "benchmark" not in code
]


@pytest.fixture(scope="module")
def reader(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, str]]:
    """A reader's empty folder, and an environment in which `lepton` is installed."""
    folder = tmp_path_factory.mktemp("reader")
    scripts = str(Path(sys.executable).parent)
    return folder, {**os.environ, "PATH": scripts + os.pathsep + os.environ["PATH"]}


def test_the_readme_has_an_example_for_each_use() -> None:
    assert len(BLOCKS) >= 6


@pytest.mark.parametrize("number", range(len(BLOCKS)))
def test_an_example_of_the_readme_runs(number: int, reader: tuple[Path, dict[str, str]]) -> None:
    folder, environment = reader
    language, code = BLOCKS[number]
    command = ["bash", "-euc", code] if language == "bash" else [sys.executable, "-c", code]
    done = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-2000:]
    assert "Traceback" not in done.stderr


def test_every_file_that_the_readme_links_to_exists() -> None:
    linked = re.findall(r"\]\(([^)#:]+)\)", README)
    assert linked
    assert [target for target in linked if not (ROOT / target).exists()] == []
