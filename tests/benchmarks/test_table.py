"""Results become a table and a plot."""

import json
from pathlib import Path

import pytest

from benchmarks import table
from benchmarks.result import make_result
from lepton_jax.checks import UserError
from tests.benchmarks.tiny import outcome


def _result(workload: str) -> table.Result:
    outcomes = [outcome("lepton", "", 0.01, 0.02), outcome("torch", "threads", 0.04)]
    return make_result(workload, "images_per_second", outcomes, command=f"run {workload}")


def test_every_side_has_a_row() -> None:
    lines = table.text(_result("W2")).splitlines()
    assert len(lines) == 4
    assert len({len(line) for line in lines}) == 1
    assert "7,500 images/s" in lines[2]
    assert "3.00x" in lines[3]


def test_circumstances_are_said_once() -> None:
    text = table.markdown([_result("W1"), _result("W2")])
    assert text.count("Measured on") == 1
    assert text.count("torch: torch 1.0") == 1
    assert "`run W1`" in text


def test_a_file_of_results_leaves_a_table_and_a_plot(tmp_path: Path) -> None:
    path = tmp_path / "results.jsonl"
    path.write_text("".join(json.dumps(_result(name)) + "\n" for name in ("W1", "W2")))
    table.main(path)
    assert "| W2" in (tmp_path / "results.md").read_text()
    assert (tmp_path / "results.png").read_bytes().startswith(b"\x89PNG")


def test_a_plot_leaves_secure_sums_out(tmp_path: Path) -> None:
    sums = make_result("sums", "processor_seconds", [], ratio={"secaggplus": 1e9})
    table.plot([_result("W1")], tmp_path / "alone.png")
    table.plot([_result("W1"), sums], tmp_path / "both.png")
    assert (tmp_path / "both.png").read_bytes() == (tmp_path / "alone.png").read_bytes()


@pytest.mark.parametrize("content", ["", "| no | JSON |"])
def test_a_file_without_results_is_refused(tmp_path: Path, content: str) -> None:
    (tmp_path / "results.jsonl").write_text(content)
    with pytest.raises(UserError, match=r"results\.jsonl"):
        table.main(tmp_path / "results.jsonl")
