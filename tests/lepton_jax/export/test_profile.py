from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from lepton_jax.checks import UserError
from lepton_jax.export import measuring, ops
from lepton_jax.export.pareto import Point, front
from lepton_jax.export.profile import profile
from tests.lepton_jax.export.conftest import Net
from tests.lepton_jax.export.made import variant

MACS = 8 * 8 * 3 + 8 * 8 * 4 * 27 + 8 * 8 * 8 * 36 + 8 * 3  # the standardization of pixels first


@pytest.fixture(scope="module")
def int8(net: Net) -> bytes:
    return variant(net, "int8")


@pytest.fixture(scope="module")
def figures(int8: bytes) -> dict[str, Any]:
    return profile(int8)


def test_every_setting_is_timed(figures: dict[str, Any]) -> None:
    settings = [(each["threads"], each["xnnpack"]) for each in figures["latency"]]
    assert settings == [(1, True), (2, True), (1, False), (2, False)]
    for each in figures["latency"]:
        assert 0 < each["min_ms"] <= each["median_ms"] <= each["p95_ms"]
        assert each["runs"] >= 3
    assert figures["first_run_ms"] > figures["latency"][0]["min_ms"]


def test_the_work_is_counted(figures: dict[str, Any], int8: bytes) -> None:
    assert figures["batch"] == 1
    assert figures["multiply_adds"] == MACS
    counts = {each["op"]: each["count"] for each in figures["ops"]}
    assert counts == ops(int8)
    for name in ("multiply_adds", "bytes_moved"):
        assert sum(each[name] for each in figures["ops"]) == figures[name] > 0
    shares = [each["share"] for each in figures["ops"]]
    assert sum(shares) == pytest.approx(1)
    assert shares == sorted(shares, reverse=True) and shares[-1] > 0


def test_memory_is_that_of_a_process_of_its_own(figures: dict[str, Any]) -> None:
    if not Path("/proc/self/status").exists():
        pytest.skip("the system doesn't tell")
    assert 2**20 < figures["runtime_bytes"] < 2**27  # LiteRT's library, and no more
    assert 2**20 < figures["memory_bytes"] < 2**27


def test_ops_that_the_delegate_leaves_are_named(figures: dict[str, Any], int8: bytes) -> None:
    delegate = figures["delegate"]
    assert "QUANTIZE" in delegate["left"]
    assert "CONV_2D" not in delegate["left"]
    assert delegate["taken"] + sum(delegate["left"].values()) == sum(ops(int8).values())
    assert delegate["parts"] >= 1


@pytest.mark.parametrize(
    ("script", "said"),
    [
        ("import os; os.kill(os.getpid(), 11)", r"a model that can be measured, got exit code -11"),
        ("raise MemoryError('none left')", r"got exit code 1 \(MemoryError: none left\)"),
        ("print('{')", "figures, line 1: expected JSON"),
        ("print('{\"first_run_ms\": -1}')", r"figures: \$\.first_run_ms: expected"),
    ],
)
def test_a_process_that_fails_is_one_line(
    script: str, said: str, int8: bytes, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "script.py"
    path.write_text(script)
    monkeypatch.setattr(measuring, "__file__", str(path))
    with pytest.raises(UserError, match=said):
        profile(int8)


# --- the Pareto front -----------------------------------------------------------------------------

coordinate = st.sampled_from([1.0, 2.0, 3.0])
points = st.lists(st.builds(Point, coordinate, coordinate, coordinate), max_size=8)


@given(points)
def test_a_point_is_marked_unless_another_beats_it(points: list[Point]) -> None:
    costs = np.array([(a, b, -c) for a, b, c in points]).reshape(-1, 3)
    for cost, marked in zip(costs, front(points), strict=True):
        beaten = ((costs <= cost).all(axis=1) & (costs < cost).any(axis=1)).any()
        assert marked == (not beaten)


@given(points)
def test_whatever_is_beaten_is_beaten_by_a_marked_point(points: list[Point]) -> None:
    best = [point for point, marked in zip(points, front(points), strict=True) if marked]
    for a in points:
        assert any(
            b.bytes <= a.bytes and b.latency_ms <= a.latency_ms and b.accuracy >= a.accuracy
            for b in best
        )
