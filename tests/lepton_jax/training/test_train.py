import logging
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import jax
import msgspec
import numpy as np
import pytest

from lepton_jax import config, trees
from lepton_jax.checks import UserError
from lepton_jax.training import Progress, Result, evaluate_run, finish, load_run, train
from lepton_jax.training.checkpoints import finished, restore_raw
from lepton_jax.training.records import read_json, read_records
from lepton_jax.typing import Classifier, Variables


def changed(run: config.Run, **fields: Any) -> config.Run:
    """The run with other fields in `train`."""
    return msgspec.structs.replace(run, train=msgspec.structs.replace(run.train, **fields))


def interrupt(run: config.Run, out: Path, epochs: int, *, resume: bool = False) -> None:
    """Trains until so many more epochs are recorded, then stops as Ctrl-C would."""
    progress = train(run, out, resume=resume)
    for _ in range(epochs):
        while not next(progress).note:
            pass
    progress.close()


class Whole(NamedTuple):
    """An uninterrupted run."""

    out: Path
    progress: list[Progress]
    result: Result


@pytest.fixture(scope="module")
def whole(tiny: config.Run, tmp_path_factory: pytest.TempPathFactory) -> Whole:
    out = tmp_path_factory.mktemp("whole") / "run"
    progress = list(train(tiny, out))
    return Whole(out, progress, finish(train(tiny, out, resume=True)))


def record(out: Path) -> bytes:
    return (out / "metrics.jsonl").read_bytes()


def test_a_run_learns_and_leaves_its_folder(whole: Whole) -> None:
    epochs = [each for each in whole.progress if each.note]
    assert [each.done for each in epochs] == [3, 6, 9, 12]
    assert all((each.total, each.unit) == (12, "step") for each in whole.progress)
    assert all(each.note.startswith("validation ") for each in epochs)

    records = read_records(whole.out / "metrics.jsonl")
    assert [(each["epoch"], each["step"]) for each in records] == [(1, 3), (2, 6), (3, 9), (4, 12)]
    assert records[0].keys() == {"epoch", "step", "learning_rate", "train", "validation"}
    assert records[0]["learning_rate"] == 0.5
    assert records[-1]["train"]["loss"] < records[0]["train"]["loss"]
    assert len(read_records(whole.out / "timings.jsonl")) == 4
    assert finished(whole.out / "checkpoints")[-2:] == [3, 4]
    evaluation = read_json(whole.out / "evaluation.json")
    assert evaluation["test"]["accuracy"] == whole.result.test_accuracy > 0.6
    assert evaluation["test"]["loss"] == whole.result.test_loss
    assert len(evaluation["samples"]) == 20


def test_the_same_config_gives_the_same_run_and_another_seed_another(
    tiny: config.Run, whole: Whole, tmp_path: Path
) -> None:
    again = finish(train(tiny, tmp_path / "again"))
    other = finish(train(msgspec.structs.replace(tiny, seed=1), tmp_path / "other"))
    assert again.params_sha256 == whole.result.params_sha256 != other.params_sha256
    assert record(tmp_path / "again") == record(whole.out)


@pytest.mark.parametrize("fields", [{}, {"ema": 0.5, "optimizer": config.Adam()}])
def test_a_resumed_run_is_bitwise_equal_to_an_uninterrupted_one(
    tiny: config.Run, tmp_path: Path, fields: dict[str, Any]
) -> None:
    run = changed(tiny, **fields)
    whole = finish(train(run, tmp_path / "whole"))
    interrupt(run, tmp_path / "parts", epochs=1)
    interrupt(run, tmp_path / "parts", epochs=2, resume=True)
    parts = finish(train(run, tmp_path / "parts", resume=True))
    assert parts.params_sha256 == whole.params_sha256
    assert record(tmp_path / "parts") == record(tmp_path / "whole")
    states = [restore_raw(tmp_path / name / "checkpoints") for name in ("whole", "parts")]
    assert trees.sha256(states[0]) == trees.sha256(states[1])


def test_records_after_the_newest_checkpoint_are_made_again(
    tiny: config.Run, tmp_path: Path
) -> None:
    run = msgspec.structs.replace(tiny, checkpoint=config.Checkpoint(every=2))
    whole = finish(train(run, tmp_path / "whole"))
    interrupt(run, tmp_path / "parts", epochs=3)
    assert len(read_records(tmp_path / "parts" / "metrics.jsonl")) == 3
    assert finished(tmp_path / "parts" / "checkpoints") == [2]
    parts = finish(train(run, tmp_path / "parts", resume=True))
    assert parts.params_sha256 == whole.params_sha256
    assert record(tmp_path / "parts") == record(tmp_path / "whole")


def test_a_run_resumes_from_before_a_damaged_checkpoint(
    tiny: config.Run, whole: Whole, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    interrupt(tiny, tmp_path, epochs=3)
    (tmp_path / "checkpoints" / "3" / "host.json").write_text("{}")
    with caplog.at_level(logging.WARNING):
        parts = finish(train(tiny, tmp_path, resume=True))
    assert "checkpoints/3" in caplog.text and "host.json" in caplog.text
    assert parts.params_sha256 == whole.result.params_sha256
    assert record(tmp_path) == record(whole.out)


def test_a_run_without_a_checkpoint_resumes_from_the_start(
    tiny: config.Run, whole: Whole, tmp_path: Path
) -> None:
    interrupt(tiny, tmp_path, epochs=1)
    (tmp_path / "checkpoints" / "1" / "manifest.json").unlink()
    parts = finish(train(tiny, tmp_path, resume=True))
    assert parts.params_sha256 == whole.result.params_sha256
    assert record(tmp_path) == record(whole.out)


def test_a_finished_run_returns_its_result_again(tiny: config.Run, whole: Whole) -> None:
    before = {path: path.stat().st_mtime_ns for path in whole.out.rglob("*.json*")}
    assert finish(train(tiny, whole.out, resume=True)) == whole.result
    assert {path: path.stat().st_mtime_ns for path in whole.out.rglob("*.json*")} == before


def test_a_run_that_lost_its_records_is_refused(tiny: config.Run, tmp_path: Path) -> None:
    interrupt(tiny, tmp_path, epochs=2)
    (tmp_path / "metrics.jsonl").unlink()
    with pytest.raises(UserError, match="expected the records of 2 epochs, got 0"):
        finish(train(tiny, tmp_path, resume=True))


def test_divergence_names_the_step_and_keeps_the_last_good_checkpoint(
    tiny: config.Run, tmp_path: Path
) -> None:
    optimizer = config.Sgd(learning_rate=1.5)
    blow_up = config.Step(epochs=(2,), factor=3e38)
    run = changed(tiny, optimizer=optimizer, schedule=blow_up, warmup_epochs=0)
    with pytest.raises(UserError, match=r"^train: step 7: expected a finite .* epoch 2 is kept$"):
        finish(train(run, tmp_path))
    assert finished(tmp_path / "checkpoints") == [1, 2]
    assert len(read_records(tmp_path / "metrics.jsonl")) == 2


def test_divergence_in_the_first_epoch_says_that_nothing_is_kept(
    tiny: config.Run, tmp_path: Path
) -> None:
    run = changed(tiny, optimizer=config.Sgd(learning_rate=1e38), warmup_epochs=0)
    with pytest.raises(UserError, match="there is no checkpoint yet"):
        finish(train(run, tmp_path))


def stubborn(run: config.Run, patience: int) -> config.Run:
    """A run whose validation loss gets worse soon: it starts to unlearn at epoch 2."""
    rising = config.Step(epochs=(2,), factor=200.0)
    return changed(run, epochs=8, patience=patience, schedule=rising, warmup_epochs=0)


def test_patience_ends_a_run_with_the_best_variables(tiny: config.Run, tmp_path: Path) -> None:
    result = finish(train(stubborn(tiny, 2), tmp_path))
    losses = [each["validation"]["loss"] for each in read_records(tmp_path / "metrics.jsonl")]
    best = int(np.argmin(losses)) + 1
    assert len(losses) == best + 2 < 8
    assert result.checkpoint == best
    at_best = restore_raw(tmp_path / "checkpoints", best)
    at_best_variables = Variables(at_best["params"], at_best.get("stats", {}))
    assert result.params_sha256 == trees.sha256(at_best_variables)


def test_patience_resumes_as_if_uninterrupted(tiny: config.Run, tmp_path: Path) -> None:
    run = stubborn(tiny, 2)
    whole = finish(train(run, tmp_path / "whole"))
    interrupt(run, tmp_path / "parts", epochs=len(read_records(tmp_path / "whole/metrics.jsonl")))
    parts = finish(train(run, tmp_path / "parts", resume=True))
    assert (parts.params_sha256, parts.checkpoint) == (whole.params_sha256, whole.checkpoint)
    assert record(tmp_path / "parts") == record(tmp_path / "whole")


def test_a_damaged_best_checkpoint_is_not_passed_over_in_silence(
    tiny: config.Run, tmp_path: Path
) -> None:
    run = stubborn(tiny, 2)
    finish(train(run, tmp_path))
    best = read_json(tmp_path / "result.json")["checkpoint"]
    for name in ("result.json", f"checkpoints/{best}/host.json"):
        (tmp_path / name).unlink()
    with pytest.raises(UserError, match=f"checkpoints/{best}: .* another host.json"):
        finish(train(run, tmp_path, resume=True))


def test_patience_without_a_validation_split_is_refused(tiny: config.Run, tmp_path: Path) -> None:
    run = changed(tiny, patience=1)
    run = msgspec.structs.replace(run, data=config.Data(validation_fraction=0.0))
    with pytest.raises(UserError, match=r"train\.patience: expected a validation split"):
        finish(train(run, tmp_path / "run"))
    assert not (tmp_path / "run").exists()


def test_a_target_stops_the_run_when_the_test_split_reaches_it(
    tiny: config.Run, tmp_path: Path
) -> None:
    run = changed(tiny, epochs=30)
    result = finish(train(run, tmp_path, target_accuracy=0.5))
    *before, last = read_records(tmp_path / "metrics.jsonl")
    assert len(before) + 1 < 30
    assert last["test"]["accuracy"] >= 0.5 > max((r["test"]["accuracy"] for r in before), default=0)
    assert result.test_accuracy == last["test"]["accuracy"]


@pytest.mark.parametrize("ema", [None, 0.9])
def test_a_finished_run_is_loaded_with_the_variables_it_was_measured_with(
    tiny: config.Run, tmp_path: Path, model: Classifier, examples: Callable, ema: float | None
) -> None:
    result = finish(train(changed(tiny, ema=ema), tmp_path))
    saved = load_run(tmp_path)
    assert (saved.kind, saved.config) == ("train", changed(tiny, ema=ema))
    assert trees.sha256(saved.variables) == result.params_sha256
    test = examples(20, 2)
    predicted = np.asarray(model.apply(saved.variables, jax.numpy.asarray(test.images))).argmax(-1)
    assert (predicted == test.labels).mean() == pytest.approx(result.test_accuracy)
    before = read_json(tmp_path / "evaluation.json")
    assert evaluate_run(tmp_path) == before


def test_a_result_of_other_parameters_is_noticed(whole: Whole, tmp_path: Path) -> None:
    copy = Path(shutil.copytree(whole.out, tmp_path / "copy"))
    text = (copy / "result.json").read_text()
    (copy / "result.json").write_text(text.replace(whole.result.params_sha256, "0" * 64))
    with pytest.raises(UserError, match="expected the fingerprint of the checkpoint"):
        load_run(copy)
