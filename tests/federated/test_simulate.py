"""A federated run leaves its folder, stops where it should, and resumes to the same bits."""

import importlib
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import msgspec
import pytest

from federated import evaluate_run, simulate
from federated.shards import verify_manifest
from lepton_jax import config, trees
from lepton_jax.checks import UserError
from lepton_jax.privacy.accounting import epsilon
from lepton_jax.training import Progress, Result, finish, load_run
from lepton_jax.training.checkpoints import finished, restore_raw
from lepton_jax.training.records import read_json, read_records
from tests.federated import tiny

MODEL_BYTES = 4 * (6 * tiny.CLASSES + tiny.CLASSES)
PRIVATE: dict[str, Any] = {
    "stages": (config.Clip(max_norm=0.5),),
    "noise": config.Gaussian(multiplier=0.8),
    "weights": "uniform",
    "sampling": "poisson",
    "clients_per_round": 1,
    "randomness": "reproducible",
}
SETTINGS: dict[str, Any] = {
    "rounds": 4,
    "clients": 6,
    "regions": ("north", "south"),
    "partition": config.Iid(size_sigma=0.5),
    "clients_per_round": 3,
    "batch_size": 4,
    "local_epochs": 3,
    "client": config.Sgd(learning_rate=1.0),
    "over": "scan",
    "evaluate_every": 2,
}


def make_run(**changes: Any) -> config.Run:
    return config.Run(
        name="tiny",
        data=config.Data(normalization="unit"),
        model=config.Model(norm="group"),
        federated=config.Federated(**{**SETTINGS, **changes}),
    )


@pytest.fixture(scope="module", autouse=True)
def replaced() -> Iterator[None]:
    yield from tiny.replaced_by(tiny.make_model())


@pytest.fixture
def statistics() -> Iterator[None]:
    yield from tiny.replaced_by(tiny.make_model(statistics=True))


@pytest.fixture
def other_data() -> Iterator[None]:
    yield from tiny.replaced_by(tiny.make_model(), data_seed=1)


class Whole(NamedTuple):
    """An uninterrupted run."""

    out: Path
    progress: list[Progress]
    result: Result


@pytest.fixture(scope="module")
def whole(replaced: None, tmp_path_factory: pytest.TempPathFactory) -> Whole:
    out = tmp_path_factory.mktemp("whole") / "run"
    progress = list(simulate(make_run(), out))
    return Whole(out, progress, finish(simulate(make_run(), out, resume=True)))


def interrupt(run: config.Run, out: Path, rounds: int, *, resume: bool = False) -> None:
    """Goes on until so many more rounds are recorded, then stops as Ctrl-C would."""
    progress = simulate(run, out, resume=resume)
    for _ in range(rounds):
        next(progress)
    progress.close()


def check_same_end(one: Path, other: Path) -> None:
    """Fails where two run folders differ in any bit that doesn't depend on the clock."""
    for name in ("metrics.jsonl", "evaluation.json", "partition.json", "config.toml"):
        assert (one / name).read_bytes() == (other / name).read_bytes()
    states = [restore_raw(folder / "checkpoints") for folder in (one, other)]
    assert trees.sha256(states[0]) == trees.sha256(states[1])


# --- what a run leaves ----------------------------------------------------------------------------


def test_a_run_learns_and_reports_each_round(whole: Whole) -> None:
    assert [(each.done, each.total, each.unit) for each in whole.progress] == [
        (number, 4, "round") for number in (1, 2, 3, 4)
    ]
    assert [bool(each.note) for each in whole.progress] == [False, True, False, True]
    assert whole.progress[-1].note == f"test {whole.result.test_accuracy:.4f}"
    assert whole.progress[-1].loss < whole.progress[0].loss
    assert whole.result.test_accuracy > 0.4
    assert (whole.result.rounds, whole.result.kind) == (4, "simulate")
    assert whole.result.images_per_second > 0


def test_records_count_clients_examples_and_bytes(whole: Whole) -> None:
    records = read_records(whole.out / "metrics.jsonl")
    assert [each["round"] for each in records] == [1, 2, 3, 4]
    assert records[0].keys() == {
        *("round", "clients", "examples", "train", "bytes_up", "bytes_down")
    }
    assert ["test" in each for each in records] == [False, True, False, True]
    sizes = [len(each["examples"]) for each in read_json(whole.out / "partition.json")["clients"]]
    for record in records:
        assert record["clients"] == 3
        assert 3 * sum(sorted(sizes)[:3]) <= record["examples"] <= 3 * sum(sorted(sizes)[-3:])
        assert record["bytes_down"] == 3 * MODEL_BYTES
        assert record["bytes_up"] == 3 * (MODEL_BYTES + 4)
    timings = read_records(whole.out / "timings.jsonl")
    assert [each["round"] for each in timings] == [1, 2, 3, 4]
    assert all(each["images_per_second"] > 0 for each in timings)


def test_a_run_folder_can_be_read_back_and_evaluated_again(whole: Whole) -> None:
    verify_manifest(read_json(whole.out / "partition.json"))
    saved = load_run(whole.out)
    assert saved.kind == "simulate" and saved.config == make_run()
    assert trees.sha256(saved.variables) == whole.result.params_sha256
    figures = read_json(whole.out / "evaluation.json")
    assert figures["test"]["accuracy"] == whole.result.test_accuracy
    assert [each["region"] for each in figures["regions"]] == ["north", "south"]
    assert len(figures["clients"]) == 6 and figures["client_data"] == "holdout"
    assert "not_private" not in figures
    assert evaluate_run(whole.out) == figures


def test_a_finished_run_returns_its_result_again(whole: Whole) -> None:
    before = {path: path.stat().st_mtime_ns for path in whole.out.rglob("*.jsonl")}
    assert finish(simulate(make_run(), whole.out, resume=True)) == whole.result
    assert {path: path.stat().st_mtime_ns for path in whole.out.rglob("*.jsonl")} == before


# --- resuming -------------------------------------------------------------------------------------


def test_another_seed_is_another_run(whole: Whole, tmp_path: Path) -> None:
    other = finish(simulate(msgspec.structs.replace(make_run(rounds=1), seed=1), tmp_path))
    assert other.params_sha256 != whole.result.params_sha256
    records = [read_records(out / "metrics.jsonl")[0]["train"] for out in (tmp_path, whole.out)]
    assert records[0] != records[1]


def test_a_resumed_run_is_bitwise_equal_to_an_uninterrupted_one(
    whole: Whole, tmp_path: Path
) -> None:
    interrupt(make_run(), tmp_path, 1)
    interrupt(make_run(), tmp_path, 2, resume=True)
    assert len(read_records(tmp_path / "metrics.jsonl")) == 3
    finish(simulate(make_run(), tmp_path, resume=True))
    check_same_end(tmp_path, whole.out)


def test_a_run_over_several_devices_with_server_state_and_statistics_resumes_too(
    statistics: None, tmp_path: Path
) -> None:
    run = make_run(over="shard", server=config.Adam(learning_rate=0.1), client_decay=0.9)
    run = msgspec.structs.replace(run, checkpoint=config.Checkpoint(every=2))
    finish(simulate(run, tmp_path / "whole"))
    interrupt(run, tmp_path / "parts", 3)
    assert finished(tmp_path / "parts" / "checkpoints") == [2]
    finish(simulate(run, tmp_path / "parts", resume=True))
    check_same_end(tmp_path / "parts", tmp_path / "whole")
    assert restore_raw(tmp_path / "parts" / "checkpoints")["stats"]["mean"] != 0.5


def test_a_run_whose_last_round_is_done_only_concludes(whole: Whole, tmp_path: Path) -> None:
    interrupt(make_run(), tmp_path, 4)
    assert not (tmp_path / "result.json").exists()
    assert list(simulate(make_run(), tmp_path, resume=True)) == []
    check_same_end(tmp_path, whole.out)


def test_a_run_on_other_data_is_not_resumed(whole: Whole, other_data: None, tmp_path: Path) -> None:
    (tmp_path / "config.toml").write_bytes((whole.out / "config.toml").read_bytes())
    (tmp_path / "partition.json").write_bytes((whole.out / "partition.json").read_bytes())
    with pytest.raises(UserError, match=r"partition\.json: expected the partition that the run"):
        finish(simulate(make_run(), tmp_path, resume=True))


def test_a_partition_that_was_changed_is_noticed(whole: Whole, tmp_path: Path) -> None:
    (tmp_path / "config.toml").write_bytes((whole.out / "config.toml").read_bytes())
    changed = read_json(whole.out / "partition.json")
    changed["clients"][0]["examples"].pop()
    (tmp_path / "partition.json").write_text(json.dumps(changed))
    with pytest.raises(UserError, match="partition manifest: expected the SHA-256"):
        finish(simulate(make_run(), tmp_path, resume=True))


# --- where a run stops ----------------------------------------------------------------------------


def test_a_target_ends_the_run(whole: Whole, tmp_path: Path) -> None:
    target = read_records(whole.out / "metrics.jsonl")[1]["test"]["accuracy"]
    result = finish(simulate(make_run(), tmp_path, target_accuracy=target))
    assert (result.rounds, result.rounds_to_target) == (2, 2)
    assert result.test_accuracy == target
    assert whole.result.rounds_to_target is None


def test_divergence_names_the_round_and_keeps_the_last_checkpoint(tmp_path: Path) -> None:
    growing = config.Sgd(learning_rate=1.0, weight_decay=1e10)
    with pytest.raises(UserError, match=r"^simulate: round 2: expected finite .* round 1 is kept$"):
        finish(simulate(make_run(client=growing, local_epochs=1), tmp_path))
    assert finished(tmp_path / "checkpoints") == [1]
    assert len(read_records(tmp_path / "metrics.jsonl")) == 1


def test_clients_that_diverge_behind_a_clip_are_counted_and_left_out(tmp_path: Path) -> None:
    growing = config.Sgd(learning_rate=1.0, weight_decay=1e30)
    run = make_run(client=growing, stages=(config.Clip(max_norm=1.0),), rounds=1)
    finish(simulate(run, tmp_path))
    (record,) = read_records(tmp_path / "metrics.jsonl")
    counts = record["stages"][0]
    assert counts["discarded"] >= 1 and counts["discarded"] + counts["clipped"] <= 3


# --- with noise -----------------------------------------------------------------------------------


def test_a_private_run_tells_epsilon_and_what_is_not_private(tmp_path: Path) -> None:
    run = make_run(**PRIVATE)
    result = finish(simulate(run, tmp_path / "whole"))
    records = read_records(tmp_path / "whole" / "metrics.jsonl")
    spent = [
        epsilon(sampling_rate=1 / 6, noise_multiplier=0.8, steps=steps, delta=1e-5)
        for steps in (1, 2, 3, 4)
    ]
    assert [each["epsilon"] for each in records] == spent
    assert (result.epsilon, result.delta) == (spent[-1], 1e-5)
    for each in records:
        assert {"clients", "examples", "train", "stages"} <= set(each["not_private"])
    empty = [each for each in records if each["clients"] == 0]
    assert empty and empty[0]["train"] == {"loss": None, "accuracy": None}
    assert empty[0]["bytes_up"] == empty[0]["examples"] == 0
    evaluation = read_json(tmp_path / "whole" / "evaluation.json")
    assert evaluation["not_private"] == ["clients", "regions", "client_percentiles"]

    interrupt(run, tmp_path / "parts", 2)
    finish(simulate(run, tmp_path / "parts", resume=True))
    check_same_end(tmp_path / "parts", tmp_path / "whole")


def test_batch_norm_with_noise_is_refused_before_data_are_loaded(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    run = msgspec.structs.replace(make_run(**PRIVATE), model=config.Model(norm="batch"))
    monkeypatch.setattr(importlib.import_module("federated.parts"), "load", None)
    with pytest.raises(UserError, match=r"^model\.norm: expected 'group' or 'none'"):
        finish(simulate(run, tmp_path / "run"))
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("target", [0.0, 1.5, float("nan")])
def test_a_target_out_of_range_is_refused(target: float, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="--target-accuracy"):
        finish(simulate(make_run(), tmp_path / "run", target_accuracy=target))
    assert not (tmp_path / "run").exists()


def test_noise_too_small_for_a_finite_epsilon_is_refused(tmp_path: Path) -> None:
    run = make_run(**{**PRIVATE, "noise": config.Gaussian(multiplier=1e-4)})
    with pytest.raises(
        UserError, match=r"^noise multiplier: expected one that keeps epsilon finite"
    ):
        finish(simulate(run, tmp_path / "run"))
