"""Secure sums as they are measured: what both sides read, and our own side at work."""

from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import pytest

from benchmarks import secure
from benchmarks.measure import Outcome, take_turns
from benchmarks.peers.secure import sums
from benchmarks.peers.sums import SumJob, check_mean, read_sum_job, vectors, write_sum_job
from benchmarks.sides import Side

_JOB = SumJob(clients=5, dimension=40, degree=4, threshold=3, gone=1, clip=1.0, levels=2**18)


def test_a_job_is_read_as_it_was_written(tmp_path: Path) -> None:
    write_sum_job(tmp_path, _JOB)
    assert read_sum_job(tmp_path) == _JOB


def test_both_sides_have_the_same_vectors_none_above_the_clip() -> None:
    own = vectors(_JOB)
    assert np.array_equal(own, vectors(_JOB))
    assert own.shape == (5, 40) and np.abs(own).max() == 1.0


def test_only_the_mean_of_those_who_stayed_is_right() -> None:
    own = vectors(_JOB)
    check_mean(_JOB, own, own[1:].mean(0))
    for wrong in (own.mean(0), own[1:].sum(0), np.full(40, np.nan)):
        with pytest.raises(ValueError, match="off by"):
            check_mean(_JOB, own, wrong)


@pytest.mark.parametrize("gone", [0, 1])
def test_our_own_mean_is_right_and_none_is_before_the_first_round(gone: int) -> None:
    advance, checked = sums(_JOB._replace(gone=gone))
    with pytest.raises(ValueError, match="off by"):
        checked()
    advance(range(1, 3))
    assert checked() is None


def test_our_own_runner_sums_in_turns(tmp_path: Path) -> None:
    write_sum_job(tmp_path, _JOB)
    (outcome,) = take_turns([secure.side_of("lepton", tmp_path)], repetitions=2)
    assert len(outcome.processor_seconds) == 2
    assert all(0 < each < 1 for each in outcome.processor_seconds)
    assert outcome.accuracy is None
    assert outcome.versions["cryptography"]


def test_large_sums_are_done_on_either_graph(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(secure, "take_turns", _with_seconds_of("degree"))
    result = secure.large_sums(repetitions=2)
    assert result["processor_seconds"] == {"99 neighbours": 99.0, "22 neighbours": 22.0}
    assert result["ratio"] == {}


@pytest.mark.parametrize(("name", "gone"), [("", 0.0), ("-dropouts", 3.0)])
def test_a_round_loses_the_clients_that_its_name_says(
    monkeypatch: pytest.MonkeyPatch, name: str, gone: float
) -> None:
    monkeypatch.setattr(secure, "take_turns", _with_seconds_of("gone"))
    result = secure.secure_sums(f"secure-aggregation{name}", (), repetitions=2)
    assert result["processor_seconds"] == {"lepton": gone}
    assert result["wall_seconds"] == {"lepton": 1.0}
    assert result["jobs"][0]["gone"] == gone


def _with_seconds_of(field: str) -> Callable[..., list[Outcome]]:
    """Turns that take as many CPU seconds as a field of the job says."""

    def turns(sides: Sequence[Side], repetitions: int) -> list[Outcome]:
        fields = [getattr(read_sum_job(side.folder), field) for side in sides]
        return [
            Outcome(side, (1.0,) * repetitions, 1, None, {}, (float(value),) * repetitions)
            for side, value in zip(sides, fields, strict=True)
        ]

    return turns
