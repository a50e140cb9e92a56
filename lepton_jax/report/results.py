"""Sections that any run may have: curves, classes, samples, the config."""

from collections.abc import Mapping

from lepton_jax import config_files
from lepton_jax.report import blocks, series
from lepton_jax.report.blocks import Block, Plot, Section, Table
from lepton_jax.report.contents import Evaluation
from lepton_jax.report.files import RunFiles
from lepton_jax.report.lookup import Lookup

_LABELLED = 30  # a confusion matrix of more classes is an image
_BESIDE = 12  # a matrix of more classes takes the page's width, until it is an image
_CONFUSED = 10


def curves(files: RunFiles, svgs: Mapping[str, str]) -> list[Section]:
    """Accuracy and loss over epochs or rounds, and all of it as a table."""
    if not files.records:
        return []
    parts: list[Block] = []
    for name in series.QUANTITIES:
        alt = f"{name} by {files.unit}: {_course(files, name)}"
        title = f"{name.capitalize()} over {files.unit}s"
        parts.append(Plot(name, svgs[name], title, alt, narrow=True))
    return [Section("curves", "Curves", (*parts, _history(files)))]


def classes(files: RunFiles, found: Lookup, svgs: Mapping[str, str]) -> list[Section]:
    """What was taken for what, and each class's precision, recall and F1."""
    if not files.evaluation:
        return []
    counts = files.evaluation.test.confusion
    shown: Block
    if len(counts) <= _LABELLED:
        caption = "Confusion matrix: true classes down, predictions across"
        cells = tuple(tuple(row) for row in counts)
        shown = blocks.Matrix(caption, found.classes, cells, narrow=_beside(len(cells)))
    else:
        caption = "Confusion matrix: shares of each true class"
        alt = f"confusion matrix of {len(counts)} classes; the tables here say it in numbers"
        shown = Plot("confusion", svgs["confusion"], caption, alt, narrow=True)
    tables = (_per_class(files.evaluation, found), *_confusions(files.evaluation, found))
    return [Section("classes", "Classes", (shown, *tables))]


def samples(files: RunFiles, found: Lookup) -> list[Section]:
    """Test images with their predictions, or why there are none."""
    if not files.evaluation or not files.evaluation.samples:
        return []
    title = "Samples"
    if not found.samples:
        why = f"The images are left out, since the run's data can't be had: {found.missing}"
        return [Section("samples", title, (blocks.Prose(why),))]
    pictures = tuple(
        blocks.Picture(
            uri,
            found.classes[sample.label],
            found.classes[sample.predicted],
            f"{sample.confidence:.1%}",
            sample.label == sample.predicted,
        )
        for uri, sample in zip(found.samples, files.evaluation.samples, strict=True)
    )
    lead = blocks.Prose(
        "Of the test split: the most confident mistakes first, then images told right."
    )
    return [Section("samples", title, (lead, blocks.Gallery(pictures)))]


def configuration(files: RunFiles) -> Section:
    """The resolved config, from which the run can be made again."""
    verb = "train" if files.kind == "train" else "simulate"
    again = f"Saved as config.toml, `lepton {verb} config.toml` makes the run again."
    parts: list[Block] = [blocks.Prose(again)]
    if files.result:
        sha256 = files.result.params_sha256
        parts.append(blocks.Prose(f"SHA-256 of its parameters: {sha256}"))
    parts.append(
        blocks.Code("config.toml, every default spelled out", config_files.dumps(files.config))
    )
    return Section("config", "Configuration", tuple(parts))


def _course(files: RunFiles, quantity: series.Quantity) -> str:
    lines = {split: series.line(files.records, split, quantity) for split in series.SPLITS}
    return "; ".join(
        f"{split} from {blocks.number(line.y[0])} to {blocks.number(line.y[-1])}"
        for split, line in lines.items()
        if line.y
    )


def _history(files: RunFiles) -> Table:
    splits = [s for s in series.SPLITS if series.line(files.records, s, "loss").x]
    header = [f"{split} {figure}" for split in splits for figure in ("loss", "accuracy")]
    rows = []
    for record in files.records:
        row = [str(record.number)]
        for split in splits:
            figures = getattr(record, split)
            row.append(blocks.number(figures.loss if figures else None))
            row.append(blocks.percent(figures.accuracy if figures else None))
        rows.append(tuple(row))
    caption = f"Every {files.unit} in figures"
    return Table(caption, (files.unit, *header), tuple(rows), texts=0, fold=True)


def _beside(classes: int) -> bool:
    """Whether the confusion matrix and the table of classes stand side by side."""
    return classes <= _BESIDE or classes > _LABELLED


def _per_class(evaluation: Evaluation, found: Lookup) -> Table:
    test = evaluation.test
    each = test.per_class
    rows: list[tuple[blocks.Cell, ...]] = [
        (name, f"{support:,}", blocks.rated(precision), blocks.rated(recall), blocks.rated(f1))
        for name, support, precision, recall, f1 in zip(
            found.classes, each.support, each.precision, each.recall, each.f1, strict=True
        )
    ]
    means = (test.precision_macro, test.recall_macro, test.f1_macro)
    rows.append(("all, mean", f"{test.examples:,}", *map(blocks.percent, means)))
    header = ("class", "images", "precision", "recall", "F1")
    return Table("Precision, recall and F1", header, tuple(rows), narrow=_beside(len(each.support)))


def _confusions(evaluation: Evaluation, found: Lookup) -> list[Table]:
    counts = evaluation.test.confusion
    pairs = [
        (count, i, j)
        for i, row in enumerate(counts)
        for j, count in enumerate(row)
        if i != j and count
    ]
    worst = sorted(pairs, key=lambda pair: (-pair[0], pair[1], pair[2]))[:_CONFUSED]
    rows = tuple(
        (found.classes[i], found.classes[j], f"{count:,}", blocks.rated(count / sum(counts[i])))
        for count, i, j in worst
    )
    header = ("true class", "taken for", "images", "share of the true class")
    return [Table("Most frequent confusions", header, rows, texts=2)] if rows else []
