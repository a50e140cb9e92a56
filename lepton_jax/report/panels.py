"""Drawing on given axes: curves, confusion, clients and what they hold."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import PowerNorm
from matplotlib.ticker import FuncFormatter

from lepton_jax.report import series, style
from lepton_jax.report.blocks import percent, size
from lepton_jax.report.contents import ClientFigures, Partition
from lepton_jax.report.files import RunFiles
from lepton_jax.report.series import SPLITS, Line

_COLOURS = {"train": style.BLUE, "validation": style.AMBER, "test": style.ORANGE}
_STEEP = 30  # a loss that falls by more than this factor is drawn on a logarithmic axis
_COUNTED, _NAMED = 15, 30  # a confusion matrix of more classes has no counts, no names
_SCALES = {"seconds": "seconds of training", "bytes": "bytes up and down"}
_REGIONS = 24  # more of them have no names beside their rows
_BARS, _STACKED = 200, len(style.CLASSES)  # more clients or classes than these: a heat map


def curve(axes: Axes, files: RunFiles, quantity: series.Quantity) -> None:
    """Loss or accuracy over epochs or rounds, a line for each split that was measured."""
    values: list[float] = []
    for split in SPLITS:
        line = series.line(files.records, split, quantity)
        if line.x:
            last = percent(line.y[-1]) if quantity == "accuracy" else f"{line.y[-1]:.3g}"
            _draw_line(axes, line, _COLOURS[split], f"{split} {last}")
            values += line.y
    if quantity == "loss" and values and 0 < min(values) < max(values) / _STEEP:
        style.logarithmic(axes)
    if quantity == "accuracy":
        style.percents(axes.yaxis)
    if values:
        axes.legend(loc="best")
    over_units(axes, files.unit)


def comparison(axes: Axes, runs: Sequence[RunFiles], names: Sequence[str], scale: str) -> None:
    """Accuracy of several runs over "epochs and rounds", "seconds" or "bytes"."""
    scales = {"seconds": series.seconds, "bytes": series.traffic}
    for i, (run, name) in enumerate(zip(runs, names, strict=True)):
        split = series.judged(run)
        line = series.line(run.records, split, "accuracy")
        if scale in scales:
            line = series.against(line, scales[scale](run))
        if line.x:
            title = f"{style.label(name, f'run {i + 1}')} ({split})"
            _draw_line(axes, line, style.SERIES[i % len(style.SERIES)], title, i)
    style.percents(axes.yaxis)
    if axes.lines:
        axes.legend(loc="best")
    axes.set_xlabel(_SCALES.get(scale, scale))
    if scale not in scales:
        style.whole(axes.xaxis)
    if scale == "bytes":
        axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: size(int(value))))


def _draw_line(axes: Axes, line: Line, colour: str, label: str, nth: int = 0) -> None:
    dashes = ("-", "--", ":", "-.")[nth // len(style.SERIES) % 4]  # colours are used up by then
    axes.plot(
        line.x, line.y, color=colour, label=label, linestyle=dashes, marker=marker(len(line.x))
    )


def marker(points: int) -> str:
    """Dots on the points of a line, unless they would touch each other."""
    return "o" if points <= 30 else ""


def over_units(axes: Axes, unit: str) -> None:
    """Labels the x axis with what a run counts."""
    axes.set_xlabel(unit)
    style.whole(axes.xaxis)


def confusion(axes: Axes, counts: Sequence[Sequence[int]], names: Sequence[str]) -> None:
    """Shares of each true class (rows) that were taken for each class (columns), as an image."""
    matrix = np.array(counts, float)
    shares = matrix / np.maximum(matrix.sum(axis=1, keepdims=True), 1)
    # The root makes rare mistakes visible beside a diagonal that is nearly full.
    norm = PowerNorm(0.5, vmin=0, vmax=1)
    axes.grid(visible=False)
    axes.spines[:].set_visible(False)
    image = axes.imshow(shares, cmap="Blues", norm=norm, interpolation="nearest")
    axes.set_xlabel("predicted class")
    axes.set_ylabel("true class")
    if len(names) <= _COUNTED:
        for (i, j), share in np.ndenumerate(shares):
            colour = style.SURFACE if share > 0.3 else style.INK
            text = f"{counts[i][j]}" if counts[i][j] else ""
            axes.text(j, i, text, ha="center", va="center", color=colour, fontsize=7.5)
    else:
        _shade_key(axes, image, "share of the true class")
    if len(names) <= _NAMED:
        drawn = [style.label(name, f"class {i}") for i, name in enumerate(names)]
        turned = max(map(len, drawn)) > 2
        axes.set_xticks(range(len(names)), drawn, rotation=90 if turned else 0)
        axes.set_yticks(range(len(names)), drawn)
    else:
        style.whole(axes.xaxis)
        style.whole(axes.yaxis)


def _shade_key(axes: Axes, image: Any, label: str) -> None:
    bar = axes.figure.colorbar(image, ax=axes, shrink=0.85)
    bar.outline.set_visible(False)
    bar.set_label(label)
    style.percents(bar.ax.yaxis)


def clients(axes: Axes, rows: Sequence[ClientFigures]) -> None:
    """Each client's accuracy as a dot in its region's row; the dot's area goes with its examples."""
    regions = list(dict.fromkeys(row.region for row in rows))
    most = max(row.examples for row in rows) or 1
    for i, region in enumerate(regions):
        own = [row for row in rows if row.region == region and row.accuracy is not None]
        accuracy = np.array([row.accuracy for row in own], float)
        heights = i + 0.22 * np.linspace(-1, 1, len(own)) if len(own) > 1 else np.full(len(own), i)
        sizes = [18 + 90 * row.examples / most for row in own]
        colour = style.SERIES[i % len(style.SERIES)]
        axes.scatter(accuracy, heights, sizes, color=colour, alpha=0.75, edgecolor=style.SURFACE)
        if own:
            median = float(np.median(accuracy))
            axes.plot([median] * 2, [i - 0.34, i + 0.34], color=style.INK, linewidth=1.4)
    named = [style.label(region, f"region {i}") for i, region in enumerate(regions)]
    shown = len(regions) if len(regions) <= _REGIONS else 0
    axes.set_yticks(range(shown), named[:shown])
    axes.set_ylim(len(regions) - 0.5, -0.5)
    axes.grid(axis="x", visible=True)
    axes.grid(axis="y", visible=False)
    axes.set_xlabel("accuracy; a line marks the median client")
    style.percents(axes.xaxis)


def labels(axes: Axes, partition: Partition, names: Sequence[str]) -> None:
    """Examples of each client by class; shares, as an image, where clients or classes are many."""
    counts = np.array([client.labels for client in partition.clients])  # [clients, classes]
    if len(counts) <= _BARS and len(names) <= _STACKED:
        below = np.zeros(len(counts))
        for k, each in enumerate(counts.T):
            axes.bar(range(len(counts)), each, 0.86, below, color=style.CLASSES[k])
            below = below + each
        axes.set_ylabel("examples")
        axes.set_xlim(-0.7, len(counts) - 0.3)
    else:
        shares = counts / np.maximum(counts.sum(axis=1, keepdims=True), 1)
        axes.grid(visible=False)
        image = axes.imshow(shares.T, cmap="Blues", vmin=0, aspect="auto", interpolation="nearest")
        _shade_key(axes, image, "share of the client's examples")
        axes.set_ylabel("class")
        style.whole(axes.yaxis)
    axes.set_xlabel("client, by number")
    style.whole(axes.xaxis)
    _mark_regions(axes, partition)


def _mark_regions(axes: Axes, partition: Partition) -> None:
    """Writes each region over its clients, where they stand side by side."""
    homes = [client.region for client in partition.clients]
    starts = [i for i, home in enumerate(homes) if i == 0 or home != homes[i - 1]]
    if len(starts) != len(set(homes)) or len(starts) > 8:
        return
    for i, (start, end) in enumerate(zip(starts, [*starts[1:], len(homes)], strict=True)):
        name = style.label(homes[start], f"region {i}")
        middle, transform = (start + end - 1) / 2, axes.get_xaxis_transform()
        axes.text(
            middle, 1.02, name, transform=transform, ha="center", color=style.MUTED, fontsize=8.5
        )
        if start:
            axes.axvline(start - 0.5, color=style.MUTED, linewidth=0.8, linestyle=":")
