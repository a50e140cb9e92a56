"""Folders that are written once, whole or not at all, and only read afterwards."""

import hashlib
import json
import mmap
import os
import shutil
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import platformdirs

from lepton_jax.checks import UserError

_FORMAT = 1  # of what `stored` folders hold; whoever changes it counts up
_ABANDONED_S = 24 * 3600.0
_BUILDING = ".building-"
_REGION_BYTES = 8 * 2**20  # of a file that are in memory at a time


def cache_folder() -> Path:
    """Where decoded data and compiled code are kept: `LEPTON_CACHE_DIR`, or the system's place for caches."""
    chosen = os.environ.get("LEPTON_CACHE_DIR")
    return Path(chosen).expanduser() if chosen else platformdirs.user_cache_path("lepton-jax")


def stored(shelf: str, identity: Any, write: Callable[[Path], None]) -> Path:
    """The folder that `write` filled for this identity, now or at any time before.

    It is filled under another name and then renamed. So it is never seen half full: a kill leaves
    nothing under its name, and of two processes that fill it at once the first one's stays.

    Args:
      shelf: names a kind of content.
      identity: plain JSON values: everything that bears on the content.
      write: fills the folder that it is given.

    Returns:
      The folder; not to be written to.

    Raises:
      UserError: the cache can't be written; and whatever `write` raises.
    """
    text = json.dumps([_FORMAT, identity], sort_keys=True)
    kept = cache_folder() / shelf
    folder = kept / hashlib.sha256(text.encode()).hexdigest()[:32]
    if folder.is_dir():
        return folder
    with _scaffold(kept) as building:
        inside = Path(building) / "content"  # with ordinary permissions, unlike what is around it
        inside.mkdir()
        write(inside)
        try:
            inside.rename(folder)
        except OSError:
            if not folder.is_dir():  # else another process was first, with the same content
                raise
    return folder


def read_array(path: Path) -> np.ndarray:
    """A stored array [N, ...], read only where it is touched.

    Raises:
      UserError: the file was damaged after it was stored.
    """
    try:
        found = np.load(path, mmap_mode="r", allow_pickle=False)
        if not isinstance(found, np.ndarray):
            raise ValueError("an archive of arrays")
        return np.asarray(found)
    except Exception as error:  # a damaged header fails in many ways
        remedy = f"remove {path.parent}, to decode again"
        raise UserError(str(path), "a whole cached array", str(error), remedy) from error


def take_rows(array: np.ndarray, rows: np.ndarray) -> np.ndarray:
    """`array[rows]`, of which little stays in memory: else a file's pages would, once touched.

    Args:
      array: from `read_array`, or any other.
      rows: positions along its first axis, in any order.
    """
    taken = np.empty((len(rows), *array.shape[1:]), array.dtype)
    regions = -(-array.nbytes // _REGION_BYTES)
    for part in np.array_split(np.argsort(rows), max(1, regions)):
        taken[part] = array[rows[part]]
        _let_go(array)
    return taken


def _let_go(array: np.ndarray) -> None:
    """Gives back the memory of what was read of a mapped file; the system may cache it."""
    base: Any = array
    while isinstance(base, np.ndarray):
        base = base.base
    if isinstance(base, mmap.mmap) and hasattr(mmap, "MADV_DONTNEED"):
        base.madvise(mmap.MADV_DONTNEED)


def new_array(path: Path, dtype: type, shape: tuple[int, ...]) -> np.memmap:
    """An array on the disk, to be filled; refused where the disk lacks the room.

    Raises:
      UserError: there is not enough room (writing to a mapped file would kill the process).
    """
    needed = int(np.prod(shape)) * np.dtype(dtype).itemsize
    free = shutil.disk_usage(path.parent).free
    if needed > free:
        expected, got = f"{needed:,} bytes of free disk", f"{free:,}"
        remedy = "set LEPTON_CACHE_DIR to a folder with more room"
        raise UserError(str(cache_folder()), expected, got, remedy)
    return np.lib.format.open_memmap(path, mode="w+", dtype=dtype, shape=shape)


def _scaffold(shelf: Path) -> tempfile.TemporaryDirectory[str]:
    try:
        shelf.mkdir(parents=True, exist_ok=True)
        _sweep(shelf)
        return tempfile.TemporaryDirectory(prefix=_BUILDING, dir=shelf)
    except OSError as error:
        remedy = "set LEPTON_CACHE_DIR to another folder"
        what = error.strerror or str(error)
        raise UserError(str(shelf), "a folder to keep files in", what, remedy) from error


def _sweep(shelf: Path) -> None:
    """Removes what killed processes left behind; younger ones may be at work."""
    for leftover in shelf.glob(f"{_BUILDING}*"):
        try:
            if time.time() - leftover.stat().st_mtime > _ABANDONED_S:
                shutil.rmtree(leftover, ignore_errors=True)
        except FileNotFoundError:  # its owner was quicker
            continue
