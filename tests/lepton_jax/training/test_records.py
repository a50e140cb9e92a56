from pathlib import Path

import pytest

from lepton_jax.checks import UserError
from lepton_jax.training.records import append, cut_back, read_json, read_records, write_json


def test_what_is_appended_is_read_back_bit_by_bit(tmp_path: Path) -> None:
    path = tmp_path / "metrics.jsonl"
    records = [{"epoch": i, "loss": 1 / (3 * i)} for i in (1, 2, 3)]
    for record in records:
        append(path, record)
    assert read_records(path) == records


def test_cutting_back_drops_later_records_and_a_torn_line(tmp_path: Path) -> None:
    path = tmp_path / "metrics.jsonl"
    for epoch in (1, 2, 3):
        append(path, {"epoch": epoch})
    whole = path.read_bytes()
    with path.open("ab") as file:
        file.write(b'{"epoch": 4, "lo')
    assert [record["epoch"] for record in cut_back(path, "epoch", 3)] == [1, 2, 3]
    assert path.read_bytes() == whole
    assert cut_back(path, "epoch", 1) == [{"epoch": 1}]
    assert cut_back(path, "epoch", 0) == [] and path.read_bytes() == b""


def test_a_damaged_line_is_named(tmp_path: Path) -> None:
    path = tmp_path / "metrics.jsonl"
    path.write_bytes(b'{"epoch": 1}\n{"epo\xff": 2}\n{"epoch": 3}\n')
    with pytest.raises(UserError, match=r"metrics.jsonl, line 2: expected JSON, got bytes"):
        read_records(path)


def test_a_file_that_cannot_be_written_leaves_the_old_one(tmp_path: Path) -> None:
    path = tmp_path / "result.json"
    write_json(path, {"loss": 0.5})
    with pytest.raises(ValueError, match="not JSON compliant"):
        write_json(path, {"loss": float("nan")})
    assert read_json(path) == {"loss": 0.5}


def test_a_missing_or_broken_json_file_is_the_users_to_mend(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="expected a file, got nothing"):
        read_json(tmp_path / "missing.json")
    (tmp_path / "broken.json").write_text("{")
    with pytest.raises(UserError, match="expected JSON"):
        read_json(tmp_path / "broken.json")
