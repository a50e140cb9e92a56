"""Sections of a federated run: regions and clients, what each holds, traffic."""

from collections.abc import Mapping, Sequence

from lepton_jax.report import blocks, style
from lepton_jax.report.blocks import Block, Plot, Prose, Section, Table, Tile, Tiles
from lepton_jax.report.contents import ClientFigures, Evaluation, Partition, Record
from lepton_jax.report.files import RunFiles
from lepton_jax.report.lookup import Lookup

_PERCENTILES = ("min", "p5", "p25", "p50", "p75", "p95", "max")


def served(files: RunFiles, svgs: Mapping[str, str]) -> list[Section]:
    """How well the one model serves each region and each client."""
    evaluation = files.evaluation
    if not evaluation or not evaluation.regions:
        return []
    where = {
        "holdout": "on examples of its own that it did not train on",
        "training": "on the examples that it trained on, since no holdout was kept",
    }[evaluation.client_data]
    told = f"Each client evaluates the final model {where}."
    if not evaluation.clients:
        withheld = "Regions have policies: only what these name has left them."
        return [_served(Prose(f"{told} {withheld}"), _regions(evaluation))]
    lead = Prose(f"{told} Each counts once in percentiles.")
    regions = list(dict.fromkeys(client.region for client in evaluation.clients))
    alt = (
        f"accuracy of {len(evaluation.clients)} clients in {blocks.plural(len(regions), 'region')}"
    )
    plot = Plot("clients", svgs["clients"], "Accuracy of each client, by region", alt)
    tables = (*_percentiles(evaluation), _regions(evaluation), _clients(evaluation.clients))
    return [_served(lead, plot, *tables)]


def _served(*parts: Block) -> Section:
    return Section("clients", "Regions and clients", parts)


def held(files: RunFiles, found: Lookup, svgs: Mapping[str, str]) -> list[Section]:
    """Which classes each client holds."""
    partition = files.partition
    if not partition or not partition.clients:
        return []
    lead = (
        f"The training split was dealt to {blocks.plural(len(partition.clients), 'client')} "
        f'by "{partition.kind}" with seed {partition.seed}. Counts are of training and holdout '
        "together; no example is held twice."
    )
    caption = "Examples of each client, by class"
    alt = "bars of each client's examples by class; the table below has the counts"
    parts: list[Block] = [
        Prose(lead),
        Plot("labels", svgs["labels"], caption, alt),
    ]
    if len(found.classes) <= len(style.CLASSES):
        colours = [f"var(--class-{i})" for i in range(len(found.classes))]
        parts.append(blocks.Key(tuple(zip(colours, found.classes, strict=True))))
        parts.append(_holdings(partition, found.classes))
    return [Section("data", "What each client holds", tuple(parts))]


def traffic(files: RunFiles) -> list[Section]:
    """The bytes between the server and the clients, exactly."""
    rounds = [record for record in files.records if record.bytes_up is not None]
    if not rounds:
        return []
    up = sum(record.bytes_up or 0 for record in rounds)
    down = sum(record.bytes_down or 0 for record in rounds)
    tiles = (
        Tile("Clients to server", blocks.size(up), f"{up:,} bytes"),
        Tile("Server to clients", blocks.size(down), f"{down:,} bytes"),
        Tile("Both, per round", blocks.size((up + down) // len(rounds)), "mean"),
    )
    rows = tuple(
        (
            str(record.number),
            blocks.number(record.clients),
            blocks.number(record.examples),
            blocks.number(record.bytes_up),
            blocks.number(record.bytes_down),
        )
        for record in rounds
    )
    total = ("all", *(blocks.number(sum(c or 0 for c in column)) for column in _columns(rounds)))
    header = ("round", "clients", "examples", "bytes up", "bytes down")
    table = Table("Traffic of each round", header, (*rows, total), texts=0, fold=True)
    return [Section("traffic", "Communication", (Tiles(tiles), table))]


# --- tables ---------------------------------------------------------------------------------------


def _percentiles(evaluation: Evaluation) -> list[Table]:
    rows = tuple(
        (figure, *(blocks.percent(values.get(name)) for name in _PERCENTILES))
        for figure, values in evaluation.client_percentiles.items()
    )
    header = ("over clients", "least", "5%", "25%", "median", "75%", "95%", "most")
    return [Table("Percentiles over clients", header, rows)] if rows else []


def _regions(evaluation: Evaluation) -> Table:
    rows = tuple(
        (
            region.region,
            f"{region.clients:,}",
            blocks.number(region.examples),
            blocks.number(region.loss),
            blocks.percent(region.f1_macro),
            blocks.rated(region.accuracy),
        )
        for region in evaluation.regions
    )
    header = ("region", "clients", "examples", "loss", "macro F1", "accuracy")
    return Table("Regions", header, rows)


def _clients(clients: Sequence[ClientFigures]) -> Table:
    rows = tuple(
        (
            str(client.client),
            client.region,
            f"{client.examples:,}",
            blocks.number(client.loss),
            blocks.rated(client.accuracy),
        )
        for client in clients
    )
    header = ("client", "region", "examples", "loss", "accuracy")
    return Table("Every client", header, rows, texts=2, fold=True)


def _holdings(partition: Partition, classes: tuple[str, ...]) -> Table:
    rows = tuple(
        (
            str(client.client),
            client.region,
            *(f"{count:,}" if count else blocks.MISSING for count in client.labels),
            f"{sum(client.labels):,}",
        )
        for client in partition.clients
    )
    header = ("client", "region", *classes, "all")
    return Table("Examples of each client and class", header, rows, texts=2, fold=True)


def _columns(rounds: Sequence[Record]) -> list[list[int | None]]:
    names = ("clients", "examples", "bytes_up", "bytes_down")
    return [[getattr(record, name) for record in rounds] for name in names]
