"""Run folders as the report reads them: every file is checked when it is read."""

from pathlib import Path
from typing import Any, NamedTuple, TypeVar

from lepton_jax import config_files
from lepton_jax.checks import UserError
from lepton_jax.config import Run
from lepton_jax.report.contents import (
    Evaluation,
    Export,
    Kind,
    Partition,
    Record,
    Result,
    Timing,
)
from lepton_jax.untrusted import JSON_BYTES, convert, parse_json, read_bytes, read_json

Content = TypeVar("Content")
_PER_CLASS = ("precision", "recall", "f1", "support")


class RunFiles(NamedTuple):
    """All that the report takes from a run folder; None or empty is what is not there (yet)."""

    folder: Path
    config: Run
    kind: Kind
    records: list[Record]
    timings: list[Timing]
    result: Result | None
    evaluation: Evaluation | None
    partition: Partition | None
    export: Export | None

    @property
    def unit(self) -> str:
        """What the run counts: epochs or rounds."""
        return "epoch" if self.kind == "train" else "round"


def read(folder: Path) -> RunFiles:
    """Reads a run folder, finished or not.

    Args:
      folder: of a run; it must hold a config.toml.

    Returns:
      The content of its files.

    Raises:
      UserError: no run folder, or a damaged file; the place names the file and the line or key.
    """
    path = folder / "config.toml"
    if not path.is_file():
        raise UserError(
            str(folder), "a run folder", "no config.toml in it", "name one that `lepton train` made"
        )
    records = _lines(folder / "metrics.jsonl", Record)
    result = _whole(folder / "result.json", Result)
    partition = _whole(folder / "partition.json", Partition)
    files = RunFiles(
        folder=folder,
        config=config_files.load(path),
        kind=_kind(result, records, partition),
        records=records,
        timings=_lines(folder / "timings.jsonl", Timing),
        result=result,
        evaluation=_whole(folder / "evaluation.json", Evaluation),
        partition=partition,
        export=_whole(folder / "export.json", Export),
    )
    _check_sizes(files)
    return files


def class_count(files: RunFiles) -> int | None:
    """How many classes the run tells apart, as far as its files say."""
    if files.evaluation:
        return len(files.evaluation.test.confusion)
    if files.partition and files.partition.clients:
        return len(files.partition.clients[0].labels)
    return None


def _kind(result: Result | None, records: list[Record], partition: Partition | None) -> Kind:
    if result:
        return result.kind
    federated = partition or (records and records[0].round is not None)
    return "simulate" if federated else "train"


def _whole(path: Path, kind: type[Content]) -> Content | None:
    if not path.is_file():
        return None
    return convert(read_json(path), kind, str(path))


def _lines(path: Path, kind: type[Content]) -> list[Content]:
    if not path.is_file():
        return []
    whole = read_bytes(path, JSON_BYTES).split(b"\n")[:-1]  # what follows the last newline is torn
    return [
        convert(parse_json(line, str(path), number), kind, f"{path}, line {number}")
        for number, line in enumerate(whole, start=1)
    ]


def _check_sizes(files: RunFiles) -> None:
    """Refuses files whose parts speak of different numbers of classes."""
    count = class_count(files)
    if files.evaluation:
        where = str(files.folder / "evaluation.json")
        test = files.evaluation.test
        lists = [*test.confusion, *(getattr(test.per_class, name) for name in _PER_CLASS)]
        _check_lengths(where, lists, count)
        worst = max(
            (max(each.label, each.predicted) for each in files.evaluation.samples), default=-1
        )
        if count is not None and worst >= count:
            raise UserError(where, f"samples of {count} classes", f"class {worst}")
    if files.partition:
        labels = [client.labels for client in files.partition.clients]
        _check_lengths(str(files.folder / "partition.json"), labels, count)


def _check_lengths(where: str, lists: list[list[Any]], count: int | None) -> None:
    for each in lists:
        if len(each) != count:
            raise UserError(where, f"figures of {count} classes", len(each), "restore the file")
