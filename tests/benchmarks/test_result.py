"""Medians, ratios, and the faster variant of a peer."""

import pytest

from benchmarks.result import make_result, ratios
from tests.benchmarks.tiny import outcome


def test_the_median_is_of_rates_not_of_seconds() -> None:
    result = make_result("W", "images_per_second", [outcome("lepton", "", 1.0, 2.0, 4.0)])
    assert result["images_per_second"] == {"lepton": 50.0}
    assert result["sides"]["lepton"]["raw"] == [100.0, 50.0, 25.0]


def test_the_faster_variant_counts() -> None:
    outcomes = [
        outcome("lepton", "", 1.0),
        outcome("torch", "threads", 4.0),
        outcome("torch", "processes", 2.0),
    ]
    result = make_result("W", "images_per_second", outcomes)
    assert result["variants"] == {"torch": "torch-processes"}
    assert result["ratio"] == {"torch": 2.0}
    assert result["sides"]["torch-threads"]["median"] == 25.0


def test_the_fewer_seconds_count() -> None:
    outcomes = [outcome("lepton", "", 2.0), outcome("torch", "a", 3.0), outcome("torch", "b", 5.0)]
    result = make_result("cold-start", "seconds", outcomes)
    assert result["variants"] == {"torch": "torch-a"}
    assert result["ratio"] == {"torch": 1.5}


@pytest.mark.parametrize(
    ("unit", "ahead"), [("images_per_second", 2.0), ("seconds", 0.5), ("processor_seconds", 0.5)]
)
def test_a_ratio_above_one_is_lepton_ahead(unit: str, ahead: float) -> None:
    assert ratios({"lepton": 4.0, "torch": 2.0}, unit) == {"torch": ahead}  # type: ignore[arg-type]


def test_processor_seconds_are_not_the_walls() -> None:
    ours, peer = (
        outcome(name, "", wall)._replace(processor_seconds=(busy,))
        for name, wall, busy in (("lepton", 9.0, 1.0), ("secaggplus", 1.0, 4.0))
    )
    result = make_result("W", "processor_seconds", [ours, peer])
    assert result["processor_seconds"] == {"lepton": 1.0, "secaggplus": 4.0}
    assert result["ratio"] == {"secaggplus": 4.0}


def test_without_lepton_there_is_no_ratio() -> None:
    assert ratios({"matmul": 4.0, "W1": 2.0}, "gflops") == {}


def test_memory_is_in_mebibytes() -> None:
    result = make_result("W", "images_per_second", [outcome("lepton", "", 1.0)])
    assert result["peak_rss_mb"] == {"lepton": 1024.0}
