"""Run folders: what a run reports while it goes on, what it leaves behind, and how it is found again."""

import fcntl
from collections.abc import Generator, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Literal, NamedTuple, get_type_hints

import jax
import jax.numpy as jnp
import msgspec

from lepton_jax import config_files, trees, untrusted
from lepton_jax.checks import UserError
from lepton_jax.config import Randomness, Run
from lepton_jax.training import checkpoints
from lepton_jax.training.records import (
    METRICS,
    read_json,
    read_records,
    through_no_link,
    write_text,
)
from lepton_jax.typing import Variables

Kind = Literal["train", "simulate"]
_UNIT = {"train": "epoch", "simulate": "round"}
_CONFIG, _RESULT, _LOCK = "config.toml", "result.json", ".lock"


class Progress(NamedTuple):
    """Where a run is: `done` of `total` units, and how it is doing; `note` adds what is particular."""

    done: int
    total: int
    unit: Literal["step", "round"]
    loss: float
    accuracy: float
    images_per_second: float
    note: str = ""


class Result(NamedTuple):
    """What came of a run.

    Attributes:
      run: its name.
      kind: what made it.
      test_accuracy: of the final variables, in [0, 1].
      test_loss: likewise, mean over the test split.
      steps: optimizer steps, of `train`.
      rounds: rounds, of `simulate`.
      seconds: wall time of the process that ended it, loading and compilation included.
      images_per_second: median over epochs or rounds of training images a second, compilation and
        evaluation left out.
      params_sha256: fingerprint of the final parameters and BatchNorm statistics.
      seconds_to_first_step: from the start until all was loaded and compiled.
      epsilon: privacy spent, with noise.
      delta: at which epsilon holds.
      noise_multiplier: deviation of the noise over the bound of one unit's share.
      randomness: where noise and selection came from.
      hypothetical: epsilon is that of a larger federation than the simulated one.
      not_private: with noise: the figures here and in the records that were taken without.
      stopped: `budget` where that ended the run before its last round or epoch.
      rounds_to_target: the first round that reached the target accuracy.
      checkpoint: number of the checkpoint with the final variables; None: the newest.
    """

    run: str
    kind: Kind
    test_accuracy: float
    test_loss: float
    steps: int | None
    rounds: int | None
    seconds: float
    images_per_second: float
    params_sha256: str
    seconds_to_first_step: float | None = None
    epsilon: float | None = None
    delta: float | None = None
    noise_multiplier: float | None = None
    randomness: Randomness | None = None
    hypothetical: bool | None = None
    not_private: list[str] | None = None
    stopped: Literal["budget"] | None = None
    rounds_to_target: int | None = None
    checkpoint: int | None = None

    def to_json(self) -> dict[str, Any]:
        """The fields that are set."""
        return {name: value for name, value in self._asdict().items() if value is not None}

    @classmethod
    def from_json(cls, fields: Any, where: str = "result") -> "Result":
        """The inverse of `to_json`; raises UserError, whose place begins with `where`."""
        return cls(**msgspec.structs.asdict(untrusted.convert(fields, _ResultFields, where)))


_ResultFields: Any = msgspec.defstruct(
    "_ResultFields",
    [
        (name, kind, None if kind == kind | None else msgspec.NODEFAULT)
        for name, kind in get_type_hints(Result).items()
    ],
    forbid_unknown_fields=True,
    kw_only=True,
)


class Clock(NamedTuple):
    """When a run began, and when all was loaded and compiled; seconds of `time.monotonic`."""

    began: float
    ready: float


class SavedRun(NamedTuple):
    """A finished run, read back."""

    folder: Path
    config: Run
    kind: Kind
    result: dict[str, Any]
    variables: Variables


def finish(progress: Generator[Progress, None, Result]) -> Result:
    """Runs a run to its end."""
    while True:
        try:
            next(progress)
        except StopIteration as end:
            return end.value


@contextmanager
def open_run(folder: Path, run: Run, *, resume: bool, kind: Kind) -> Iterator[Result | None]:
    """Makes a run folder, or goes on with one, and keeps other processes out of it meanwhile.

    Args:
      folder: where the run leaves its files; it must be new or empty unless resumed.
      run: the configuration, written there as `config.toml`.
      resume: go on with what is there; where nothing is, begin.
      kind: who asks.

    Yields:
      The result if the run is finished already, else None.

    Raises:
      UserError: the folder is a file, not writable, not empty (without `resume`), of a run with
        another configuration (the first key that differs is named), or in use.
    """
    with held(folder):
        _check_contents(folder, run, resume=resume, kind=kind)
        if not (folder / _CONFIG).exists():
            write_text(folder / _CONFIG, config_files.dumps(run))
        done = (folder / _RESULT).exists()
        try:
            yield _read_result(folder)[1] if done else None
        except BaseException:
            _withdraw(folder)
            raise


@contextmanager
def held(folder: Path) -> Iterator[None]:
    """Keeps other processes out of a run folder meanwhile; made where missing.

    Raises:
      UserError: the folder is a file, not writable, or in use.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        lock = open(folder / _LOCK, "a", opener=through_no_link)  # noqa: SIM115
    except OSError as error:
        raise UserError(f"--out {folder}", "a folder to write to", error.strerror) from error
    with lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            raise UserError(
                f"--out {folder}",
                "a run folder that is free",
                "one that another process runs in",
                "wait for it, or choose another folder",
            ) from None
        yield


def load_run(folder: Path) -> SavedRun:
    """Reads a finished run.

    Args:
      folder: of the run.

    Returns:
      Its configuration, result and final variables: the moving average where one was kept.

    Raises:
      UserError: no run folder, not finished, or damaged.
    """
    if not (folder / _CONFIG).is_file():
        raise UserError(
            str(folder), "a run folder", "no config.toml in it", "name one that `lepton train` made"
        )
    if not (folder / _RESULT).is_file():
        raise UserError(
            str(folder), "a finished run", "no result.json in it", "finish it with --resume"
        )
    result, fields = _read_result(folder)
    variables = _final(folder / "checkpoints", fields.checkpoint)
    found = trees.sha256(variables)
    if found != result["params_sha256"]:
        raise UserError(
            str(folder / _RESULT),
            f"the fingerprint of the checkpoint, {found[:12]}",
            result["params_sha256"][:12],
            "restore the run folder",
        )
    config = config_files.load(folder / _CONFIG)
    return SavedRun(folder, config, result["kind"], result, variables)


def _read_result(folder: Path) -> tuple[dict[str, Any], Result]:
    result = read_json(folder / _RESULT)
    return result, Result.from_json(result, str(folder / _RESULT))


def _final(folder: Path, checkpoint: int | None) -> Variables:
    state = checkpoints.restore_raw(folder, checkpoint)
    try:
        final = state.get("ema") or state
        found = final["params"], final.get("stats") or {}
        return Variables(*jax.tree.map(jnp.asarray, found))
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        got = f"something else ({type(error).__name__})"
        raise UserError(str(folder), "parameters", got, "restore the run folder") from error


def _check_contents(folder: Path, run: Run, *, resume: bool, kind: Kind) -> None:
    where = f"--out {folder}"
    contents = _contents(folder)
    if not contents:
        return
    if not resume:
        raise UserError(
            where,
            "a new or empty folder",
            f"one with {contents[0]}",
            "go on with --resume, or choose another folder",
        )
    if _CONFIG not in contents:
        raise UserError(
            where,
            "a run folder",
            f"one with {contents[0]} and no {_CONFIG}",
            "choose another folder",
        )
    before = config_files.load(folder / _CONFIG)
    change = _first_difference(msgspec.to_builtins(before), msgspec.to_builtins(run))
    if change is not None:
        key, old, new = change
        raise UserError(
            f"{where}: {key}",
            f"{old!r} as in its {_CONFIG}",
            repr(new),
            "resume with the same config, or choose another folder",
        )
    first = next(iter(read_records(folder / METRICS)), None)
    if first is not None and _UNIT[kind] not in first:
        raise UserError(
            where, f"a run of `lepton {kind}`", "one of another verb", "choose another folder"
        )


def _contents(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir() if not path.name.startswith("."))


def _withdraw(folder: Path) -> None:
    """Takes the config back where a run failed before it began, so that it can be tried again."""
    if _contents(folder) == [_CONFIG]:
        (folder / _CONFIG).unlink()


def _first_difference(old: Any, new: Any, key: str = "") -> tuple[str, Any, Any] | None:
    if isinstance(old, dict) and isinstance(new, dict):
        for name in [*old, *(name for name in new if name not in old)]:
            inner = f"{key}.{name}" if key else name
            found = _first_difference(old.get(name), new.get(name), inner)
            if found is not None:
                return found
        return None
    return None if old == new else (key, old, new)
