"""The sections of a page that sets several runs side by side."""

from collections.abc import Mapping, Sequence
from itertools import chain

import msgspec
from matplotlib.figure import Figure

from lepton_jax.report import blocks, headline, phone, plots, series
from lepton_jax.report.blocks import Block, Cell, Plot, Prose, Section, Table
from lepton_jax.report.files import RunFiles
from lepton_jax.report.lookup import Lookup

_SCALES = ("epochs and rounds", "seconds", "bytes")


def drawings(runs: Sequence[RunFiles], names: Sequence[str]) -> dict[str, Figure]:
    """Accuracy over each scale on which at least one run has points, by name."""
    known = {
        "epochs and rounds": any(run.records for run in runs),
        "seconds": any(run.records and run.timings for run in runs),
        "bytes": any(series.traffic(run) for run in runs),
    }
    return {
        scale.replace(" ", "-"): plots.comparison(runs, names, scale)
        for scale in _SCALES
        if known[scale]
    }


def sections(
    runs: Sequence[RunFiles],
    found: Sequence[Lookup],
    names: Sequence[str],
    svgs: Mapping[str, str],
) -> tuple[Section, ...]:
    """Figures, curves, phone models, and in what the configs differ."""
    pictures: list[Block] = []
    for name, svg in svgs.items():
        scale = name.replace("-", " ")
        caption = f"Accuracy over {scale}"
        alt = f"{caption}: {', '.join(names)}"
        pictures.append(Plot(name, svg, caption, alt, narrow=True))
    return (
        Section("figures", "Figures", (_figures(runs, found, names),)),
        *([Section("curves", "Curves", tuple(pictures))] if pictures else []),
        *_phone(runs, names),
        Section("config", "Configuration", (_differences(runs, names),)),
    )


def _figures(runs: Sequence[RunFiles], found: Sequence[Lookup], names: Sequence[str]) -> Table:
    tiles = [
        {tile.label: tile.value for tile in headline.tiles(run, each)}
        for run, each in zip(runs, found, strict=True)
    ]
    labels = list(dict.fromkeys(chain.from_iterable(tiles)))
    rows = [(label, *(own.get(label, blocks.MISSING) for own in tiles)) for label in labels]
    amounts = [
        blocks.plural(run.records[-1].number if run.records else 0, run.unit) for run in runs
    ]
    kinds = ["federated" if run.kind == "simulate" else "central" for run in runs]
    rows = [("Training", *kinds), ("Length", *amounts), *rows]
    return Table("Headline figures", ("", *names), tuple(rows))


def _phone(runs: Sequence[RunFiles], names: Sequence[str]) -> list[Section]:
    rows: list[tuple[Cell, ...]] = [
        (
            name,
            each.name,
            blocks.size(each.bytes),
            blocks.percent(each.accuracy),
            blocks.percent(each.top1_agreement),
            phone.worst_loss(each),
            f"{each.latency_ms.median:.3f} ms",
            phone.gates(each),
        )
        for run, name in zip(runs, names, strict=True)
        for each in (run.export.variants if run.export else [])
    ]
    accuracy = ("accuracy", "agrees with JAX", "worst region")
    header = ("run", "model", "size", *accuracy, "latency", "gates")
    table = Table("Phone models", header, tuple(rows), texts=2)
    return [Section("phone", "On the phone", (table,))] if rows else []


def _differences(runs: Sequence[RunFiles], names: Sequence[str]) -> Block:
    flat = [_flatten(msgspec.to_builtins(run.config)) for run in runs]
    keys = list(dict.fromkeys(chain.from_iterable(flat)))
    rows = [
        (key, *(str(each.get(key, blocks.MISSING)) for each in flat))
        for key in keys
        if len({str(each.get(key)) for each in flat}) > 1
    ]
    if not rows:
        return Prose("The runs have the same configuration.")
    header = ("key", *names)
    return Table("Where the configs differ", header, tuple(rows), texts=len(header))


def _flatten(value: object, key: str = "") -> dict[str, object]:
    """Nested tables as one, with the keys that `--set` takes; what is unset is left out.

    >>> _flatten({"a": {"b": 1}, "c": [{"d": 2}], "e": [3, 4], "f": None})
    {'a.b': 1, 'c[0].d': 2, 'e': '3, 4'}
    """
    if isinstance(value, dict):
        parts = [(f"{key}.{name}" if key else name, item) for name, item in value.items()]
    elif isinstance(value, list | tuple):
        if not any(isinstance(item, dict) for item in value):
            return {key: ", ".join(map(str, value)) or "none"}
        parts = [(f"{key}[{i}]", item) for i, item in enumerate(value)]
    else:
        return {} if value is None else {key: value}
    return {name: leaf for place, item in parts for name, leaf in _flatten(item, place).items()}
