from pathlib import Path

import pytest

from lepton_jax.checks import UserError
from lepton_jax.training.records import append
from lepton_jax.training.tensorboard import tensorboard


def test_events_are_written_from_the_record_and_replaced(tmp_path: Path) -> None:
    pytest.importorskip("tensorboardX")
    for epoch in (1, 2):
        record = {
            "epoch": epoch,
            "step": 5 * epoch,
            "train": {"loss": 1 / epoch},
            "validation": None,
        }
        append(tmp_path / "metrics.jsonl", record)
    for _ in range(2):
        (events,) = tensorboard(tmp_path).iterdir()
    assert b"train/loss" in events.read_bytes()


def test_a_run_without_records_is_refused(tmp_path: Path) -> None:
    pytest.importorskip("tensorboardX")
    with pytest.raises(UserError, match="expected at least one record, got none"):
        tensorboard(tmp_path)
