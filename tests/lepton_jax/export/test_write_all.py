"""All files or none: whatever goes wrong, the folder is as it was and nothing is left beside."""

import os
import resource
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import jax
import numpy as np
import pytest

from lepton_jax.checks import UserError
from lepton_jax.export import files
from lepton_jax.export.convert import Entry, convert
from lepton_jax.export.files import scratch, write_all

BEFORE = {"a.tflite": b"old a", "b.tflite": b"old b", "export.json": b"old"}
AFTER = {"a.tflite": b"new a", "c.tflite": b"new c", "export.json": b"new"}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for name, content in BEFORE.items():
        (tmp_path / name).write_bytes(content)
    return tmp_path


def contents(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def test_new_files_take_the_places_of_old_ones(folder: Path) -> None:
    write_all(folder, AFTER, without=["b.tflite", "none", "a.tflite"])
    assert contents(folder) == AFTER


def test_what_is_not_named_stays(folder: Path) -> None:
    write_all(folder, AFTER)
    assert contents(folder) == {**BEFORE, **AFTER}


def test_the_last_file_goes_first_and_comes_last(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen, replace = [], os.replace

    def watched(*paths: Path) -> None:
        replace(*paths)
        seen.append((folder / "export.json").exists())

    monkeypatch.setattr(files.os, "replace", watched)
    write_all(folder, AFTER)
    assert seen == [False] * (len(seen) - 1) + [True]


@pytest.mark.parametrize("step", range(1, 11))
@pytest.mark.parametrize("kind", [OSError(28, "No space left on device"), KeyboardInterrupt()])
def test_a_failure_at_any_step_changes_nothing(
    step: int, kind: BaseException, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    count = 0

    def failing(work: Callable) -> Callable:
        def once(*args: object) -> object:
            nonlocal count
            count += 1
            if count == step:
                raise kind
            return work(*args)

        return once

    monkeypatch.setattr(files.os, "fsync", failing(os.fsync))
    monkeypatch.setattr(files.os, "replace", failing(os.replace))
    expected = UserError if isinstance(kind, OSError) else KeyboardInterrupt
    with pytest.raises(expected):
        write_all(folder, AFTER, without=["b.tflite"])
    assert contents(folder) == BEFORE


def test_a_folder_in_a_files_place_is_named(folder: Path) -> None:
    (folder / "c.tflite").mkdir()
    with pytest.raises(UserError, match=r"c\.tflite: expected .*, got Is a directory$"):
        write_all(folder, AFTER)
    (folder / "c.tflite").rmdir()
    assert contents(folder) == BEFORE


@pytest.fixture
def full_disk(tmp_path: Path) -> Iterator[None]:
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (64, before[1]))
    yield
    resource.setrlimit(resource.RLIMIT_FSIZE, before)


@pytest.mark.usefixtures("full_disk")
def test_no_room_for_files_of_a_moment_is_told_in_one_line() -> None:
    def save() -> None:
        with scratch() as folder:
            seen.append(folder)
            (folder / "x").write_bytes(bytes(100))

    seen: list[Path] = []
    with pytest.raises(UserError, match=r"^TMPDIR: expected room .*, got File too large; make"):
        save()
    assert not seen[0].exists()


@pytest.mark.usefixtures("full_disk")
def test_no_room_for_the_file_between_jax_and_tensorflow_is_told_in_one_line() -> None:
    entry = Entry("double", lambda x: {"y": x * 2}, {"x": jax.ShapeDtypeStruct((3,), np.float32)})
    with pytest.raises(UserError, match=r"^TMPDIR: expected room .*, got File too large; make"):
        convert([entry], "jax2tf")


def test_a_full_disk_is_told_in_one_line(folder: Path) -> None:
    """A process that may write no file of more than 100 bytes: the system itself refuses."""
    code = (
        "import resource, signal, sys; from pathlib import Path\n"
        "from lepton_jax.checks import UserError; from lepton_jax.export.files import write_all\n"
        "signal.signal(signal.SIGXFSZ, signal.SIG_IGN)\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (100, 100))\n"
        "try: write_all(Path(sys.argv[1]), {'a.tflite': b'x', 'b.tflite': bytes(200)})\n"
        "except UserError as error: print(error)\n"
    )
    command = [sys.executable, "-c", code, str(folder)]
    told = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    assert told == (
        f"{folder}/b.tflite: expected a file that can be written, got File too large; "
        "make room, and export again\n"
    )
    assert contents(folder) == BEFORE
    assert resource.getrlimit(resource.RLIMIT_FSIZE)[0] != 100


def test_a_folder_in_the_way_is_told(folder: Path) -> None:
    (folder / "c.tflite").mkdir()
    with pytest.raises(UserError, match="expected a file that can be written, got Is a directory"):
        write_all(folder, AFTER)
    (folder / "c.tflite").rmdir()
    assert contents(folder) == BEFORE


def test_a_missing_folder_is_told(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="got No such file"):
        write_all(tmp_path / "none", AFTER)


def test_nothing_is_written_through_a_link(
    folder: Path, tmp_path_factory: pytest.TempPathFactory
) -> None:
    elsewhere = tmp_path_factory.mktemp("elsewhere") / "kept"
    elsewhere.write_bytes(b"kept")
    for name in ("c.tflite", ".c.tflite.new"):
        (folder / name).symlink_to(elsewhere)
    write_all(folder, AFTER)
    assert elsewhere.read_bytes() == b"kept" and (folder / "c.tflite").read_bytes() == b"new c"
