"""Checkpoints: written by Orbax behind the run's back, sealed by a manifest, verified on the way in.

A checkpoint is the folder `<index>/` with `state/` (Orbax), `host.json`, and `manifest.json`, which
holds the SHA-256 of every other file and comes last: without it a checkpoint is unfinished and
does not count. Orbax itself notices no flipped bit in its data; the manifest does.
"""

import hashlib
import json
import logging
import re
import shutil
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import jax
import msgspec
import numpy as np

from lepton_jax import untrusted
from lepton_jax.checks import UserError
from lepton_jax.training.records import read_json, write_json
from lepton_jax.typing import PyTree

_LOG = logging.getLogger(__name__)
_MANIFEST, _HOST, _STATE = "manifest.json", "host.json", "state"
_MANIFEST_BYTES = 2**24
_OTHER_BYTES = 2**18  # of a checkpoint's files besides its arrays
_MAKE_ROOM = "make room, then go on with --resume"
_NUMBER = re.compile(r"0|[1-9][0-9]{0,17}")  # not all that `isdigit` holds for


class Checkpoints(NamedTuple):
    """A folder of checkpoints, open for writing.

    Attributes:
      save: (index, state, host, score) -> None; returns as soon as the state is copied, so that it
        may be donated. `host` is JSON-able. `score`, greater is better, marks the best; None: none.
      restore_latest: template -> (index, state, host), or None where no checkpoint is finished.
      restore: (index, template) -> (state, host).
    """

    save: Callable[[int, PyTree, dict[str, Any], float | None], None]
    restore_latest: Callable[[PyTree], tuple[int, PyTree, dict[str, Any]] | None]
    restore: Callable[[int, PyTree], tuple[PyTree, dict[str, Any]]]


@contextmanager
def open_checkpoints(folder: Path, *, keep: int) -> Iterator[Checkpoints]:
    """Opens a folder of checkpoints; on leaving, what is being saved is finished first.

    Args:
      folder: made where missing.
      keep: how many of the newest are kept; the one with the best score is kept besides.

    Raises:
      UserError: the folder is a link, through which checkpoints would leave the run's folder.
    """
    import orbax.checkpoint as ocp

    if folder.is_symlink():
        raise UserError(str(folder), "a folder of the run's own", "a link", "remove it")
    folder.mkdir(parents=True, exist_ok=True)
    folder = folder.resolve()  # Orbax wants an absolute path
    _prune(folder, keep)  # what a kill left must not stay where nothing more is saved
    writer = ocp.AsyncCheckpointer(ocp.PyTreeCheckpointHandler())
    background = ThreadPoolExecutor(1, "checkpoints")
    pending: Future[None] | None = None

    def seal(path: Path, score: float | None) -> None:
        with _written(path):
            writer.wait_until_finished()
            _seal(path, score)
            _prune(folder, keep)

    def wait() -> None:
        nonlocal pending
        saved, pending = pending, None
        if saved is not None:
            saved.result()

    def save(index: int, state: PyTree, host: dict[str, Any], score: float | None) -> None:
        nonlocal pending
        wait()
        path = folder / str(index)
        _discard(path)
        _check_room(path, state)
        with _written(path):
            path.mkdir()
            write_json(path / _HOST, host)
            writer.save(path / _STATE, args=ocp.args.PyTreeSave(state))
        pending = background.submit(seal, path, score)

    def latest(template: PyTree) -> tuple[int, PyTree, dict[str, Any]] | None:
        wait()
        return restore_latest(folder, template)

    def one(index: int, template: PyTree) -> tuple[PyTree, dict[str, Any]]:
        wait()
        return restore(folder, index, template)

    try:
        yield Checkpoints(save, latest, one)
        wait()
    finally:
        background.shutdown()
        writer.close()


def restore_latest(folder: Path, template: PyTree) -> tuple[int, PyTree, dict[str, Any]] | None:
    """The newest checkpoint that is whole; damaged ones are named on stderr and passed over.

    Args:
      folder: of checkpoints.
      template: a tree of arrays; what comes back has its structure, dtypes and shardings.

    Returns:
      (index, state, host), or None where no checkpoint is finished.

    Raises:
      UserError: every finished checkpoint is damaged.
    """
    indices = finished(folder)
    for index in reversed(indices):
        try:
            return index, *restore(folder, index, template)
        except UserError as error:
            _LOG.warning("%s; trying the one before", error)
    if indices:
        raise UserError(
            str(folder),
            "an undamaged checkpoint",
            f"{len(indices)} damaged",
            "start anew in another folder",
        )
    return None


def restore(folder: Path, index: int, template: PyTree) -> tuple[PyTree, dict[str, Any]]:
    """One checkpoint, verified; arguments and errors as `restore_latest`'s."""
    import orbax.checkpoint as ocp

    path = (folder / str(index)).resolve()
    verify(path)
    abstract = jax.tree.map(ocp.utils.to_shape_dtype_struct, template)
    arguments = ocp.checkpoint_utils.construct_restore_args(abstract)
    with _readable(path), ocp.Checkpointer(ocp.PyTreeCheckpointHandler()) as reader:
        args = ocp.args.PyTreeRestore(item=abstract, restore_args=arguments)
        return reader.restore(path / _STATE, args=args), read_json(path / _HOST)


def restore_raw(folder: Path, index: int | None = None) -> dict[str, Any]:
    """A checkpoint as nested dicts and lists of NumPy arrays, without a template.

    Args:
      folder: of checkpoints.
      index: which one; None: the newest.

    Raises:
      UserError: there is no finished checkpoint, or it is damaged.
    """
    import orbax.checkpoint as ocp

    if index is None:
        index = max(finished(folder), default=0)
    path = (folder / str(index)).resolve()
    if not path.exists():
        raise UserError(str(path), "a finished checkpoint", "none", "restore the run folder")
    verify(path)
    with _readable(path), ocp.Checkpointer(ocp.PyTreeCheckpointHandler()) as reader:
        tree = reader.metadata(path / _STATE).item_metadata.tree
        as_numpy = jax.tree.map(lambda _: ocp.RestoreArgs(restore_type=np.ndarray), tree)
        return reader.restore(path / _STATE, args=ocp.args.PyTreeRestore(restore_args=as_numpy))


def finished(folder: Path) -> list[int]:
    """The numbers of the finished checkpoints, damaged or not, in order."""
    names = [path.parent.name for path in folder.glob(f"*/{_MANIFEST}")]
    return sorted(int(name) for name in names if _NUMBER.fullmatch(name))


def verify(path: Path) -> None:
    """Compares a checkpoint with its manifest, and its name with the number that it was saved under.

    Raises:
      UserError: it names the first file that is not as it was saved.
    """
    manifest = _read_manifest(path)
    damaged = None if manifest is not None else _MANIFEST
    if manifest is not None:
        now, then = _hashes(path), manifest.files
        damaged = next(
            (name for name in sorted({*now, *then}) if now.get(name) != then.get(name)), None
        )
    if damaged is not None:
        raise UserError(str(path), "the checkpoint as it was saved", f"another {damaged}")
    host = read_json(path / _HOST)
    number = next((host[unit] for unit in ("round", "epoch") if unit in host), path.name)
    if str(number) != path.name:
        raise UserError(str(path), f"checkpoint {path.name}", f"that of {number}", "restore it")


def _seal(path: Path, score: float | None) -> None:
    manifest = {"files": _hashes(path), "score": score}
    write_json(path / _MANIFEST, {**manifest, "sha256": _digest(manifest)})


class _Manifest(msgspec.Struct, forbid_unknown_fields=True):
    """What manifest.json holds; its names are compared with the files there, and none is opened."""

    files: dict[str, str]
    score: float | None
    sha256: str


def _read_manifest(path: Path) -> _Manifest | None:
    """A checkpoint's manifest, or None where it is missing or not as it was written."""
    try:
        content = untrusted.read_bytes(path / _MANIFEST, _MANIFEST_BYTES)
        tree = untrusted.parse_json(content, str(path / _MANIFEST))
        manifest = untrusted.convert(tree, _Manifest, str(path / _MANIFEST))
    except UserError:
        return None
    same = content == (json.dumps(tree, indent=1) + "\n").encode()
    body = {"files": manifest.files, "score": manifest.score}
    return manifest if same and manifest.sha256 == _digest(body) else None


def _digest(manifest: dict[str, Any]) -> str:
    return hashlib.sha256(json.dumps(manifest, sort_keys=True).encode()).hexdigest()


def _hashes(path: Path) -> dict[str, str]:
    """SHA-256 by name of all files but the manifest; what is no file, a link too, has none."""
    hashes = {}
    for entry in sorted(path.rglob("*")):
        if entry == path / _MANIFEST or (entry.is_dir() and not entry.is_symlink()):
            continue
        name = str(entry.relative_to(path))
        if entry.is_symlink() or not entry.is_file():
            hashes[name] = "no file"
            continue
        with entry.open("rb") as file:
            hashes[name] = hashlib.file_digest(file, "sha256").hexdigest()
    return hashes


def _check_room(path: Path, state: PyTree) -> None:
    """Refuses before the disk is full, at which Orbax' threads would fail one by one."""
    needed = sum(leaf.nbytes for leaf in jax.tree.leaves(state)) + _OTHER_BYTES
    free = shutil.disk_usage(path.parent).free
    if free < needed:
        expected, remedy = f"{needed:,} bytes of room for a checkpoint", _MAKE_ROOM
        raise UserError(str(path), expected, f"{free:,}", remedy)


@contextmanager
def _written(path: Path) -> Iterator[None]:
    """A full disk: the system's error, or Orbax' own, which goes on for lines."""
    try:
        yield
    except (OSError, ValueError) as error:
        got = str(error).partition(":")[0] if isinstance(error, ValueError) else error.strerror
        raise UserError(str(path), "a checkpoint to be written", got, _MAKE_ROOM) from error


@contextmanager
def _readable(path: Path) -> Iterator[None]:
    """A sealed checkpoint may still be one that no run wrote; Orbax fails on it in many ways."""
    try:
        yield
    except UserError:
        raise
    except Exception as error:
        got = f"{type(error).__name__} ({error})"
        raise UserError(str(path), "a checkpoint of a run", got, "restore the folder") from error


def _prune(folder: Path, keep: int) -> None:
    """Removes all but the newest and the best; also what a kill left unfinished."""
    indices = finished(folder)
    manifests = {i: _read_manifest(folder / str(i)) for i in indices}
    scores = {i: m.score for i, m in manifests.items() if m and m.score is not None}
    kept = {*indices[-keep:], max(scores, key=lambda i: scores[i], default=0)}
    for path in folder.iterdir():
        if _NUMBER.fullmatch(path.name) and int(path.name) not in kept:
            _discard(path)


def _discard(path: Path) -> None:
    """Removes a checkpoint; without its manifest first, so that no kill leaves half of it valid."""
    if path.is_symlink():
        path.unlink()
        return
    (path / _MANIFEST).unlink(missing_ok=True)
    shutil.rmtree(path, ignore_errors=True)
