"""What a run comes to: one sentence, and the figures that one asks for first."""

from lepton_jax.report import blocks
from lepton_jax.report.blocks import Tile
from lepton_jax.report.files import RunFiles
from lepton_jax.report.lookup import Lookup


def lead(files: RunFiles) -> str:
    """What was trained on what, and how far it got."""
    done = files.records[-1].number if files.records else 0
    amount = blocks.plural(done, files.unit)
    what = f"{files.config.model.name} on {files.config.data.name}"
    if files.kind == "simulate":
        federated = files.config.federated
        homes = {client.region for client in files.partition.clients} if files.partition else set()
        regions = f" in {blocks.plural(len(homes), 'region')}" if homes else ""
        noised = ", with differential privacy" if federated.noise else ""
        clients = blocks.plural(federated.clients, "client")
        told = f"{what}: {amount} of federated averaging over {clients}{regions}{noised}."
    else:
        noised = ", with differential privacy" if files.config.train.privacy else ""
        told = f"{what}: {amount} of training in one place{noised}."
    return told if files.result else f"{told} The run is not finished."


def tiles(files: RunFiles, found: Lookup) -> tuple[Tile, ...]:
    """The headline figures, as far as they are known."""
    return (*_accuracy(files), *_fairness(files), *_privacy(files), *_cost(files, found))


def _accuracy(files: RunFiles) -> list[Tile]:
    if files.evaluation:
        test = files.evaluation.test
        hits = sum(row[i] for i, row in enumerate(test.confusion))
        right = f"{hits:,} of {blocks.plural(test.examples, 'image')}"
        return [
            Tile("Test accuracy", blocks.percent(test.accuracy), right),
            Tile("Test loss", blocks.number(test.loss), "mean over images"),
            Tile("Macro F1", blocks.percent(test.f1_macro), "mean over classes"),
        ]
    if files.result:
        return [
            Tile("Test accuracy", blocks.percent(files.result.test_accuracy)),
            Tile("Test loss", blocks.number(files.result.test_loss)),
        ]
    return []


def _fairness(files: RunFiles) -> list[Tile]:
    spread = files.evaluation.client_percentiles.get("accuracy") if files.evaluation else None
    if not spread:
        return []
    median = f"the median client has {blocks.percent(spread.get('p50'))}"
    return [Tile("Weakest 5% of clients", f"≤ {blocks.percent(spread.get('p5'))}", median)]


def _privacy(files: RunFiles) -> list[Tile]:
    if not files.result or files.result.epsilon is None:
        return []
    delta = "" if files.result.delta is None else f"at delta {files.result.delta:g}"
    return [Tile("Epsilon", blocks.number(files.result.epsilon), delta)]


def _cost(files: RunFiles, found: Lookup) -> list[Tile]:
    costs = []
    if found.parameters is not None:
        costs.append(Tile("Parameters", blocks.number(found.parameters), files.config.model.name))
    if files.result:
        rate = f"{files.result.images_per_second:,.0f} images/s"
        costs.append(Tile("Time", blocks.duration(files.result.seconds), rate))
    moved = sum((record.bytes_up or 0) + (record.bytes_down or 0) for record in files.records)
    if moved:
        costs.append(Tile("Traffic", blocks.size(moved), "all clients, up and down"))
    if files.export and files.export.variants:
        least = min(files.export.variants, key=lambda each: (not each.within_tolerance, each.bytes))
        note = f"{least.name}, accuracy {blocks.percent(least.accuracy)}"
        costs.append(Tile("Phone model", blocks.size(least.bytes), note))
    return costs
