"""A run's record as TensorBoard events: written from metrics.jsonl, which stays the single source."""

import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from lepton_jax.checks import UserError
from lepton_jax.training.records import METRICS, read_records


def tensorboard(folder: Path) -> Path:
    """Writes a run's metrics as TensorBoard events; what it wrote before is replaced.

    Args:
      folder: of a run, finished or not.

    Returns:
      The folder of the events, `tensorboard` in that of the run.

    Raises:
      UserError: there are no records, or tensorboardX is not installed.
    """
    try:
        from tensorboardX import SummaryWriter
    except ImportError:
        remedy = "pip install 'lepton-jax[tensorboard]'"
        raise UserError("tensorboard", "tensorboardX", "no such package", remedy) from None
    records = read_records(folder / METRICS)
    if not records:
        raise UserError(str(folder / METRICS), "at least one record", "none", "train first")
    events = folder / "tensorboard"
    shutil.rmtree(events, ignore_errors=True)
    with SummaryWriter(str(events)) as writer:
        for record in records:
            step = record["step"] if "step" in record else record["round"]
            for name, value in scalars(record):
                writer.add_scalar(name, value, step)
    return events


def scalars(record: dict[str, Any], prefix: str = "") -> Iterator[tuple[str, float]]:
    """The numbers of a record by their path.

    >>> dict(scalars({"round": 2, "train": {"loss": 0.5}, "test": None}))
    {'round': 2, 'train/loss': 0.5}
    """
    for name, value in record.items():
        if isinstance(value, dict):
            yield from scalars(value, f"{prefix}{name}/")
        elif isinstance(value, int | float):
            yield f"{prefix}{name}", value
