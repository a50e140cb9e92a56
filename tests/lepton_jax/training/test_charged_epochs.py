"""Central training draws the batches that it is charged for, and is charged before it draws them."""

import importlib
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest

from lepton_jax import config
from lepton_jax.checks import UserError
from lepton_jax.training import finish, train
from lepton_jax.training.ledger import read_ledger
from lepton_jax.training.losses import cross_entropy
from lepton_jax.training.private import PrivateBatch
from lepton_jax.training.private_run import private_promise, private_way
from lepton_jax.training.records import METRICS, read_records
from tests.lepton_jax.training.tiny_private import (
    MODEL,
    SECURE,
    as_floats,
    numbered,
    private_run,
)


@pytest.mark.parametrize("count", [1000, 1024, 1025])
def test_an_epoch_is_charged_as_the_batches_that_it_has_at_their_rate(count: int) -> None:
    run = private_run(privacy=SECURE)
    promise = private_promise(run, count)
    examples = numbered(count)
    _, batches = private_way(run, promise.terms, examples, MODEL, cross_entropy(), as_floats)
    sizes = [
        int(np.sum(each.examples.mask))
        for epoch in (1, 2, 3)
        for each in batches(epoch)
        if isinstance(each, PrivateBatch)
    ]
    assert len(sizes) == 3 * promise.releases(1, False) == 3 * promise.releases(1, True)
    rate = promise.terms.sampling_rate
    assert rate == 128 / count
    deviation = (len(sizes) * count * rate * (1 - rate)) ** 0.5
    assert abs(sum(sizes) - len(sizes) * 128) < 6 * deviation


def test_an_epoch_that_dies_is_charged(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def dies(*given: Any) -> Any:
        raise KeyboardInterrupt

    monkeypatch.setattr(importlib.import_module("lepton_jax.training.train"), "fit", dies)
    with pytest.raises(KeyboardInterrupt):
        finish(train(private_run(privacy=SECURE), tmp_path / "run"))
    entries = read_ledger(tmp_path / "run")
    assert [each["body"]["number"] for each in entries if each["kind"] == "release"] == [1]


def test_a_run_does_not_go_on_with_a_ledger_older_than_its_checkpoint(tmp_path: Path) -> None:
    run = private_run(privacy=SECURE, epochs=3)
    run = msgspec.structs.replace(run, checkpoint=config.Checkpoint(every=1))
    before: dict[Path, bytes] = {}
    progress = train(run, tmp_path / "run")
    for _ in progress:
        records = read_records(tmp_path / "run" / METRICS)
        if len(records) == 1 and not before:
            before = {path: path.read_bytes() for path in (tmp_path / "run").glob("ledger.*")}
        if len(records) == 2:
            break
    progress.close()
    assert len(before) == 2
    for path, content in before.items():
        path.write_bytes(content)
    with pytest.raises(UserError, match="the ledger that it was made with"):
        finish(train(run, tmp_path / "run", resume=True))
