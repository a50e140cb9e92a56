"""Results as a table and a plot: `python -m benchmarks.table results.jsonl`."""

import json
import sys
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from benchmarks.result import unit_of
from benchmarks.workloads import PEERS
from lepton_jax.checks import UserError
from lepton_jax.console import one_line_errors

Result = Mapping[str, Any]
_UNITS = {
    "images_per_second": "images/s",
    "gflops": "GFLOP/s",
    "seconds": "seconds",
    "processor_seconds": "CPU seconds",
}
_HEAD = ("workload", "side", "median", "spread", "ahead", "peak memory", "accuracy")


def main(path: Path) -> None:
    """Writes NAME.md and NAME.png beside NAME.jsonl.

    Raises:
      UserError: the file holds no results.
    """
    results = read(path)
    path.with_suffix(".md").write_text(markdown(results))
    plot(results, path.with_suffix(".png"))


def read(path: Path) -> list[Result]:
    """The results in a file, a JSON line each."""
    try:
        results = [json.loads(line) for line in path.read_text().splitlines() if line.strip()]
    except (OSError, ValueError) as error:
        raise UserError(str(path), "a file of JSON lines", str(error)) from error
    if not results:
        remedy = "python -m benchmarks.run W2 --json >> results.jsonl"
        raise UserError(str(path), "at least one result", "none", remedy)
    return results


def markdown(results: Sequence[Result]) -> str:
    """All results as one table, then what they were measured on and with."""
    lines = _aligned([_HEAD, *(row for result in results for row in _rows(result))])
    return "\n".join([*lines, "", *_circumstances(results), ""])


def text(result: Result) -> str:
    """One result, for a terminal."""
    return "\n".join(_aligned([_HEAD, *_rows(result)]))


def plot(results: Sequence[Result], path: Path) -> None:
    """How many times ahead of each peer lepton-jax is, a group of bars for each workload."""
    from matplotlib.figure import Figure

    ahead = [
        (result["workload"], peer, ratio)
        for result in results
        for peer, ratio in result["ratio"].items()
        # Of secure sums the ratios are of another order: the others' bars would shrink to nothing.
        if peer in PEERS and unit_of(result) != "processor_seconds"
    ]
    figure = Figure(figsize=(8, 1.5 + 0.24 * max(len(ahead), 8)), layout="constrained")
    axes = figure.add_subplot()
    at, before, marks = 0.0, None, []
    for workload, peer, ratio in ahead:
        at -= 1.0 if workload == before else 1.6
        before = workload
        marks.append((at, f"{workload}  {peer}"))
        axes.barh(at, ratio, 0.85, color=f"C{PEERS.index(peer)}")
        axes.annotate(f" {ratio:.2f}", (ratio, at), va="center", fontsize=8)
    axes.axvline(1, color="black", linewidth=0.8)
    axes.set_yticks([mark for mark, _ in marks], [text for _, text in marks], fontsize=8)
    axes.set_xlabel("times as fast as the peer")
    axes.set_title("lepton-jax beside its peers")
    axes.spines[["top", "right"]].set_visible(False)
    figure.savefig(path, dpi=120)


# --- cells ----------------------------------------------------------------------------------------


def _rows(result: Result) -> Iterable[tuple[str, ...]]:
    unit = unit_of(result)
    best = {result["variants"].get(group, group): group for group in result[unit]}
    for key, side in result["sides"].items():
        ratio = result["ratio"].get(best.get(key))
        yield (
            result["workload"],
            key,
            f"{_number(side['median'])} {_UNITS[unit]}",
            f"{_number(side['low'])}–{_number(side['high'])}",
            "" if ratio is None else f"{ratio:.2f}x",
            f"{side['peak_rss_mb']:,.0f} MiB",
            "" if side["accuracy"] is None else f"{100 * side['accuracy']:.2f} %",
        )


def _number(value: float) -> str:
    """Four digits or more.

    >>> _number(12345.6), _number(1.23456)
    ('12,346', '1.235')
    """
    return f"{value:,.0f}" if value >= 1000 else f"{value:.4g}"


def _aligned(rows: Sequence[Sequence[str]]) -> list[str]:
    """Rows as Markdown, the first of them the head."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    lines = [
        "| " + " | ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)) + " |"
        for row in rows
    ]
    return [lines[0], "|" + "|".join("-" * (width + 2) for width in widths) + "|", *lines[1:]]


def _circumstances(results: Sequence[Result]) -> list[str]:
    """Hardware, versions and commands, each said once."""
    lines = []
    for hardware in _distinct(result["hardware"] for result in results):
        lines.append(f"- Measured on {_pairs(hardware)}.")
    for side in dict.fromkeys(name for result in results for name in result["versions"]):
        for versions in _distinct(
            result["versions"][side] for result in results if side in result["versions"]
        ):
            lines.append(f"- {side}: {_pairs(versions)}.")
    for command in dict.fromkeys(result.get("command", "") for result in results):
        lines.append(f"- `{command}`")
    return lines


def _distinct(values: Iterable[Mapping[str, Any]]) -> list[Mapping[str, Any]]:
    return list({json.dumps(value): value for value in values}.values())


def _pairs(values: Mapping[str, Any]) -> str:
    return ", ".join(f"{name} {value}" for name, value in values.items())


if __name__ == "__main__":
    with one_line_errors("benchmarks"):
        if len(sys.argv) != 2:
            raise UserError("benchmarks.table", "one file of results", f"{len(sys.argv) - 1}")
        main(Path(sys.argv[1]))
