"""What is cached is whole or not there, whoever is killed or comes second."""

import os
import subprocess
import sys
import threading
from pathlib import Path

import numpy as np
import pytest

from lepton_jax.cache import cache_folder, new_array, read_array, stored, take_rows
from lepton_jax.checks import UserError

pytestmark = pytest.mark.usefixtures("fresh_cache")


def write_one(folder: Path) -> None:
    (folder / "one").write_text("1")


def refuse(folder: Path) -> None:
    raise AssertionError("written again")


def test_the_folder_is_where_the_environment_says(fresh_cache: Path) -> None:
    assert cache_folder() == fresh_cache


def test_the_same_identity_is_written_once() -> None:
    first = stored("data", ["a", 1], write_one)
    assert stored("data", ["a", 1], refuse) == first
    assert (first / "one").read_text() == "1"


def test_another_identity_is_another_folder() -> None:
    assert stored("data", ["a", 1], write_one) != stored("data", ["a", 2], write_one)


def test_a_writer_that_fails_leaves_nothing(fresh_cache: Path) -> None:
    def fail(folder: Path) -> None:
        write_one(folder)
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        stored("data", "a", fail)
    assert list((fresh_cache / "data").iterdir()) == []
    assert (stored("data", "a", write_one) / "one").exists()


def test_a_killed_writer_leaves_no_half_folder(fresh_cache: Path) -> None:
    code = (
        "import os; from lepton_jax.cache import stored\n"
        "stored('data', 'a', lambda folder: ((folder / 'half').touch(), os.kill(os.getpid(), 9)))"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == -9
    assert len(list((fresh_cache / "data").iterdir())) == 1
    assert [file.name for file in stored("data", "a", write_one).iterdir()] == ["one"]


def test_of_two_writers_at_once_both_get_one_whole_folder(fresh_cache: Path) -> None:
    both_write, found = threading.Barrier(2, timeout=20), []

    def write(folder: Path) -> None:
        both_write.wait()
        write_one(folder)

    threads = [
        threading.Thread(target=lambda: found.append(stored("data", "a", write))) for _ in range(2)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert found[0] == found[1]
    assert [path.name for path in (fresh_cache / "data").iterdir()] == [found[0].name]


def test_what_was_abandoned_a_day_ago_is_swept(fresh_cache: Path) -> None:
    old, young = fresh_cache / "data" / ".building-old", fresh_cache / "data" / ".building-young"
    old.mkdir(parents=True)
    young.mkdir()
    os.utime(old, (0, 0))
    stored("data", "a", write_one)
    assert not old.exists() and young.exists()


def test_a_cache_that_cannot_be_made_is_one_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").touch()
    monkeypatch.setenv("LEPTON_CACHE_DIR", str(tmp_path / "file"))
    with pytest.raises(UserError, match="set LEPTON_CACHE_DIR"):
        stored("data", "a", write_one)


def test_an_array_comes_back_read_only(tmp_path: Path) -> None:
    new_array(tmp_path / "a.npy", np.uint8, (2, 3))[:] = 7
    array = read_array(tmp_path / "a.npy")
    assert np.array_equal(array, np.full((2, 3), 7)) and not array.flags.writeable


def test_an_array_larger_than_the_disk_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="bytes of free disk"):
        new_array(tmp_path / "a.npy", np.uint8, (2**60,))


def test_a_damaged_array_is_one_line(tmp_path: Path) -> None:
    (tmp_path / "a.npy").write_bytes(b"\x93NUMPY")
    with pytest.raises(UserError, match=r"a\.npy: expected a whole cached array.*; remove"):
        read_array(tmp_path / "a.npy")


def test_rows_come_in_the_order_asked_for(tmp_path: Path) -> None:
    array = np.arange(60, dtype=np.int32).reshape(20, 3)
    np.save(tmp_path / "a.npy", array)
    rows = np.array([7, 0, 19, 7, 3])
    for each in (array, read_array(tmp_path / "a.npy"), read_array(tmp_path / "a.npy")[2:]):
        np.testing.assert_array_equal(take_rows(each, rows % len(each)), each[rows % len(each)])
    assert take_rows(array, np.zeros(0, np.int64)).shape == (0, 3)


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="the system does not tell")
def test_taken_rows_leave_the_rest_of_the_file_out_of_memory(tmp_path: Path) -> None:
    def of_files() -> int:
        lines = Path("/proc/self/status").read_text().splitlines()
        return next(int(line.split()[1]) * 1024 for line in lines if line.startswith("RssFile"))

    np.save(tmp_path / "a.npy", np.ones((64, 2**20), np.uint8))
    array = read_array(tmp_path / "a.npy")
    before = of_files()
    assert take_rows(array, np.arange(64)).sum() == 64 * 2**20
    assert of_files() - before < 16 * 2**20
    assert array.sum() == 64 * 2**20  # nothing is lost
    assert of_files() - before > 48 * 2**20  # as it would have been


@pytest.mark.parametrize("damage", ["object", "archive", "empty", "header", "nested"])
def test_a_damaged_array_is_refused_and_no_object_in_it_is_made(
    damage: str, tmp_path: Path
) -> None:
    path = tmp_path / "images.npy"
    if damage == "object":
        np.save(path, np.array([print], object), allow_pickle=True)
    elif damage == "archive":
        with path.open("wb") as file:
            np.savez(file, np.arange(3))
    else:
        header = {"empty": b"", "header": b"\x93NUMPY\x01\x00\x05\x00{'a'\n"}
        deep = b"(" * 5000
        nested = b"\x93NUMPY\x01\x00" + len(deep).to_bytes(2, "little") + deep
        path.write_bytes(header.get(damage, nested))
    with pytest.raises(UserError, match=r"images\.npy: expected a whole cached array"):
        read_array(path)
