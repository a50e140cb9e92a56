"""All files of an export, or none: a full disk leaves the folder as it was, and is told in one line."""

import os
import tempfile
from collections.abc import Collection, Iterator, Mapping
from contextlib import contextmanager, suppress
from errno import EDQUOT, EFBIG, EISDIR, ENOSPC
from pathlib import Path

from lepton_jax.checks import UserError

_NEW, _OLD = "new", "old"
_FULL = (EDQUOT, EFBIG, ENOSPC)


def write_all(folder: Path, files: Mapping[str, bytes], *, without: Collection[str] = ()) -> None:
    """Writes files into a folder, all or none.

    Each is written under another name first; then those of these names give way and the new ones
    take their places, in the order given. A kill in between leaves some missing, none half, and the
    last one never beside others of another export.

    Args:
      folder: that is there.
      files: content by name.
      without: names of files that are to go, where they are.

    Raises:
      UserError: one can't be written, the disk is full for instance; the folder is as it was.
    """
    at = folder
    try:
        for name, content in files.items():
            at = folder / name
            _write(_beside(at, _NEW), content)
        at = folder
        _swap(folder, list(files), [name for name in without if name not in files])
    except OSError as error:
        got = error.strerror or str(error)
        remedy = "make room, and export again" if error.errno in _FULL else ""
        where = error.filename if isinstance(error, IsADirectoryError) else str(at)
        raise UserError(where, "a file that can be written", got, remedy) from error
    finally:
        for name in files:
            with suppress(OSError):
                _beside(folder / name, _NEW).unlink(missing_ok=True)


@contextmanager
def scratch() -> Iterator[Path]:
    """A folder for files of a moment, which goes with them.

    Raises:
      UserError: they can't be written, the disk is full for instance.
    """
    try:
        with tempfile.TemporaryDirectory() as folder:
            yield Path(folder)
    except OSError as error:
        got = error.strerror or str(error)
        raise UserError(
            "TMPDIR", "room for temporary files", got, "make room, or name another folder"
        ) from error


def _write(path: Path, content: bytes) -> None:
    path.unlink(missing_ok=True)  # if it is a link, then not to write through it
    with path.open("xb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())


def _swap(folder: Path, names: list[str], gone: list[str]) -> None:
    put_aside: list[str] = []
    placed: list[str] = []
    try:
        for name in (*reversed(names), *gone):
            if (folder / name).is_dir():
                raise IsADirectoryError(EISDIR, os.strerror(EISDIR), str(folder / name))
            if os.path.lexists(folder / name):
                os.replace(folder / name, _beside(folder / name, _OLD))
                put_aside.append(name)
        for name in names:
            os.replace(_beside(folder / name, _NEW), folder / name)
            placed.append(name)
        _sync(folder)
    except BaseException:
        for name in placed:
            with suppress(OSError):
                (folder / name).unlink()
        for name in put_aside:
            with suppress(OSError):
                os.replace(_beside(folder / name, _OLD), folder / name)
        raise
    for path in _left(folder, put_aside):
        with suppress(OSError):
            path.unlink(missing_ok=True)


def _left(folder: Path, names: list[str]) -> Iterator[Path]:
    return (_beside(folder / name, _OLD) for name in names)


def _beside(path: Path, kind: str) -> Path:
    return path.with_name(f".{path.name}.{kind}")


def _sync(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)  # the new names are on disk before anything that relies on them
    finally:
        os.close(descriptor)
