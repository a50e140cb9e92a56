"""The arithmetic of a result: medians, spreads, ratios, and which variant of a peer counts."""

import platform
import statistics
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Literal

from benchmarks.measure import Outcome
from lepton_jax.processor import cores

Unit = Literal["images_per_second", "gflops", "seconds", "processor_seconds"]
_TIMES = ("seconds", "processor_seconds")
OURS = "lepton"


def make_result(
    workload: str, unit: Unit, outcomes: Sequence[Outcome], **more: Any
) -> dict[str, Any]:
    """A measurement as plain JSON values.

    Args:
      workload: its name.
      unit: of the figures; less is better in seconds, of either clock, more in the others.
      outcomes: of its sides.
      **more: what stands beside it.

    Returns:
      `sides`: of every side its raw figures, median, low, high, peak_rss_mb and accuracy; then, of
      the best variant of each, the medians under the unit's name, `peak_rss_mb`, `accuracy`,
      `variants` (which one that is) and `ratio`: how many times ahead of it lepton is.
    """
    sides = {outcome.side.key: _figures(outcome, unit) for outcome in outcomes}
    best = _best(outcomes, sides, unit)
    medians = {group: sides[key]["median"] for group, key in best.items()}
    return {
        "workload": workload,
        unit: medians,
        "peak_rss_mb": {group: sides[key]["peak_rss_mb"] for group, key in best.items()},
        "accuracy": {group: sides[key]["accuracy"] for group, key in best.items()},
        "ratio": ratios(medians, unit),
        "variants": {group: key for group, key in best.items() if group != key},
        "sides": sides,
        "versions": {outcome.side.group: outcome.versions for outcome in outcomes},
        "hardware": hardware(),
        "date": datetime.now(UTC).strftime("%Y-%m-%d"),
        **more,
    }


def unit_of(result: Mapping[str, Any]) -> Unit:
    """The unit of a result's figures."""
    units: tuple[Unit, ...] = ("images_per_second", "gflops", "seconds", "processor_seconds")
    return next(unit for unit in units if unit in result)


def ratios(medians: Mapping[str, float], unit: Unit) -> dict[str, float]:
    """How many times ahead of each other side lepton is.

    >>> ratios({"lepton": 300.0, "torch": 200.0}, "images_per_second")
    {'torch': 1.5}
    >>> ratios({"lepton": 2.0, "torch": 3.0}, "seconds")
    {'torch': 1.5}
    """
    if OURS not in medians:
        return {}
    ours = medians[OURS]
    others = {name: median for name, median in medians.items() if name != OURS}
    if unit in _TIMES:
        return {name: median / ours for name, median in others.items()}
    return {name: ours / median for name, median in others.items()}


def hardware() -> dict[str, Any]:
    """What this machine is."""
    lines = _lines("/proc/cpuinfo")
    model = (line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    memory = (line.split()[1] for line in _lines("/proc/meminfo") if line.startswith("MemTotal"))
    return {
        "processor": next(model, platform.machine()),
        "cores": cores(),
        "memory_gb": round(int(next(memory, "0")) / 2**20, 1),
        "system": platform.system(),
        "python": platform.python_version(),
    }


def _figures(outcome: Outcome, unit: Unit) -> dict[str, Any]:
    work = outcome.side.work
    taken = outcome.processor_seconds if unit == "processor_seconds" else outcome.seconds
    raw = [each if unit in _TIMES else work / each for each in taken]
    return {
        "median": statistics.median(raw),
        "low": min(raw),
        "high": max(raw),
        "peak_rss_mb": outcome.peak_rss / 2**20,
        "accuracy": outcome.accuracy,
        "raw": raw,
    }


def _best(
    outcomes: Sequence[Outcome], sides: Mapping[str, Mapping[str, Any]], unit: Unit
) -> dict[str, str]:
    """Of each group the key of its fastest variant."""
    sign = -1 if unit in _TIMES else 1
    best: dict[str, str] = {}
    for outcome in outcomes:
        group, key = outcome.side.group, outcome.side.key
        if group not in best or sign * (sides[key]["median"] - sides[best[group]]["median"]) > 0:
            best[group] = key
    return best


def _lines(path: str) -> list[str]:
    try:
        return Path(path).read_text().splitlines()
    except OSError:
        return []
