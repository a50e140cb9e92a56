"""Plots of one run and of several, each a figure of its own: curves, classes, clients."""

from collections.abc import Sequence
from pathlib import Path

from matplotlib.figure import Figure

from lepton_jax.report import panels, series, style
from lepton_jax.report.contents import ClientFigures, Partition
from lepton_jax.report.files import RunFiles, read


def of_run(files: RunFiles, classes: Sequence[str]) -> dict[str, Figure]:
    """All plots that a run's files allow, by name.

    Args:
      files: of the run.
      classes: names of its K classes.
    """
    made: dict[str, Figure] = {}
    if files.records:
        made |= {name: curve(files, name) for name in series.QUANTITIES}
    if any(record.epsilon is not None for record in files.records):
        made["epsilon"] = epsilon(files)
    if files.evaluation:
        made["confusion"] = confusion(files.evaluation.test.confusion, classes)
    if files.evaluation and files.evaluation.clients:
        made["clients"] = clients(files.evaluation.clients)
    if files.partition:
        made["labels"] = labels(files.partition, classes)
    return made


@style.styled
def curve(files: RunFiles, quantity: series.Quantity) -> Figure:
    """Loss or accuracy over epochs or rounds, a line for each split that was measured."""
    made = style.figure()
    panels.curve(made.subplots(), files, quantity)
    return made


@style.styled
def epsilon(files: RunFiles) -> Figure:
    """The privacy that was spent, over the rounds."""
    made = style.figure()
    axes = made.subplots()
    known = [(r.number, r.epsilon) for r in files.records if r.epsilon is not None]
    axes.plot(*zip(*known, strict=True), color=style.PINK, marker=panels.marker(len(known)))
    axes.set_ylim(bottom=0)
    panels.over_units(axes, files.unit)
    return made


@style.styled
def confusion(counts: Sequence[Sequence[int]], names: Sequence[str]) -> Figure:
    """Shares of each true class (rows) that were taken for each class (columns), as an image."""
    made = style.figure(4.8, 4.6)
    panels.confusion(made.subplots(), counts, names)
    return made


@style.styled
def clients(rows: Sequence[ClientFigures]) -> Figure:
    """Each client's accuracy as a dot in its region's row; the dot's area goes with its examples."""
    regions = list(dict.fromkeys(row.region for row in rows))
    made = style.figure(8.4, min(0.8 + 0.55 * len(regions), 8))
    panels.clients(made.subplots(), rows)
    return made


@style.styled
def labels(partition: Partition, names: Sequence[str]) -> Figure:
    """What each client holds: bars of examples by class, or a heat map of shares where there are many."""
    made = style.figure(8.4, 3.0)
    panels.labels(made.subplots(), partition, names)
    return made


@style.styled
def comparison(runs: Sequence[RunFiles], names: Sequence[str], scale: str) -> Figure:
    """Accuracy of several runs over "epochs and rounds", "seconds" or "bytes"."""
    made = style.figure()
    panels.comparison(made.subplots(), runs, names, scale)
    return made


@style.styled
def overview(folders: Sequence[Path]) -> Figure:
    """One picture of runs: their accuracy, and of the last federated one its clients and classes.

    Args:
      folders: of runs; with a federated run among them there are four panels, else two.

    Raises:
      UserError: no run folder, or a damaged file.
    """
    runs = [read(folder) for folder in folders]
    names = titles(runs)
    shown = next((run for run in reversed(runs) if run.partition), runs[-1])
    classes = shown.export.classes if shown.export else []
    made = style.figure(10.0, 6.8 if shown.partition else 3.4)
    axes = made.subplots(2 if shown.partition else 1, 2, squeeze=False).ravel()
    axes[0].set_title("Accuracy")
    panels.comparison(axes[0], runs, names, "epochs and rounds")
    if shown.evaluation:
        counts = shown.evaluation.test.confusion
        axes[1].set_title("Confusion, images")
        panels.confusion(axes[1], counts, classes or numbered(len(counts)))
    if shown.evaluation and shown.partition:
        axes[2].set_title("Accuracy of each client, by region")
        panels.clients(axes[2], shown.evaluation.clients)
    if shown.partition:
        axes[3].set_title("What each client holds", pad=20)
        count = len(shown.partition.clients[0].labels)
        panels.labels(axes[3], shown.partition, classes or numbered(count))
    return made


def numbered(count: int) -> tuple[str, ...]:
    """Names for classes that have none."""
    return tuple(f"class {i}" for i in range(count))


def titles(runs: Sequence[RunFiles]) -> tuple[str, ...]:
    """A name for each run: its own, or its folder where several runs are named alike."""
    names = [run.config.name for run in runs]
    if len(set(names)) == len(names):
        return tuple(names)
    folders = [run.folder.name for run in runs]
    return tuple(folders if len(set(folders)) == len(folders) else (str(r.folder) for r in runs))
