"""Reading a run folder: what is not there is left out, what is damaged is named."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from lepton_jax.checks import UserError
from lepton_jax.report import files

MakeRun = Callable[..., Path]


def test_a_finished_run_is_read_whole(make_run: MakeRun) -> None:
    found = files.read(make_run("r", "simulate", exported=True))
    assert found.kind == "simulate" and found.unit == "round"
    assert [record.number for record in found.records] == list(range(1, 41))
    assert found.result and found.evaluation and found.partition and found.export


def test_a_run_that_only_began_is_a_run(make_run: MakeRun) -> None:
    folder = make_run()
    for path in folder.iterdir():
        if path.name != "config.toml":
            path.unlink()
    found = files.read(folder)
    assert found.kind == "train" and not found.records and found.evaluation is None


def test_the_kind_of_an_unfinished_run_is_told_by_its_records(make_run: MakeRun) -> None:
    folder = make_run("r", "simulate")
    for name in ("result.json", "partition.json", "evaluation.json"):
        (folder / name).unlink()
    assert files.read(folder).kind == "simulate"


def test_a_folder_without_a_config_is_no_run(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="expected a run folder, got no config"):
        files.read(tmp_path)


def test_a_torn_last_line_is_left_out(make_run: MakeRun) -> None:
    folder = make_run()
    with (folder / "metrics.jsonl").open("a") as file:
        file.write('{"epoch": 13, "tr')
    assert len(files.read(folder).records) == 12


@pytest.mark.parametrize("damage", ["{oops", '{"epoch": 1, "train": {"loss": "low"}}', "7", "\xff"])
def test_a_damaged_line_is_named(make_run: MakeRun, damage: str) -> None:
    folder = make_run()
    lines = (folder / "metrics.jsonl").read_text().splitlines()
    lines[3] = damage
    (folder / "metrics.jsonl").write_text("\n".join(lines) + "\n", encoding="latin-1")
    with pytest.raises(UserError, match=r"metrics\.jsonl, line 4: "):
        files.read(folder)


def test_the_line_of_damaged_json_is_named(make_run: MakeRun) -> None:
    folder = make_run()
    lines = (folder / "result.json").read_text().splitlines()
    lines[4] = lines[4].replace(":", "=")
    (folder / "result.json").write_text("\n".join(lines))
    with pytest.raises(UserError, match=r"result\.json, line 5: expected JSON"):
        files.read(folder)


def test_json_that_was_cut_off_is_damaged_at_its_end(make_run: MakeRun) -> None:
    folder = make_run()
    text = (folder / "evaluation.json").read_text()
    cut = text[: text.index('"examples"')]
    (folder / "evaluation.json").write_text(cut)
    last = cut.rstrip().count("\n") + 1
    with pytest.raises(UserError, match=rf"evaluation\.json, line {last}: expected JSON"):
        files.read(folder)


def test_json_of_another_shape_is_named_by_its_key(make_run: MakeRun) -> None:
    folder = make_run()
    result = json.loads((folder / "result.json").read_text())
    (folder / "result.json").write_text(json.dumps({**result, "test_loss": None}))
    with pytest.raises(UserError, match=r"result\.json: \$\.test_loss: .* got expected float"):
        files.read(folder)


def test_figures_of_different_numbers_of_classes_are_refused(make_run: MakeRun) -> None:
    folder = make_run("r", "simulate")
    partition = json.loads((folder / "partition.json").read_text())
    partition["clients"][4]["labels"].pop()
    (folder / "partition.json").write_text(json.dumps(partition))
    with pytest.raises(UserError, match=r"partition\.json: expected figures of 10 classes, got 9"):
        files.read(folder)


def test_a_sample_of_an_unknown_class_is_refused(make_run: MakeRun) -> None:
    folder = make_run()
    evaluation = json.loads((folder / "evaluation.json").read_text())
    evaluation["samples"][0]["predicted"] = 10
    (folder / "evaluation.json").write_text(json.dumps(evaluation))
    with pytest.raises(UserError, match="samples of 10 classes, got class 10"):
        files.read(folder)
