"""Evaluation of a federated model: over the test split, and by client and region."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from federated.borders import Borders
from federated.parts import make_borders
from federated.privacy.promise import EVALUATION_FIGURES
from federated.regions import evaluate_clients
from federated.shards import Client, partition
from lepton_jax import training
from lepton_jax.config import Run
from lepton_jax.data.load import load
from lepton_jax.data.splits import Splits
from lepton_jax.training.evaluate import classifier, evaluation
from lepton_jax.training.losses import make_loss
from lepton_jax.training.records import write_json
from lepton_jax.training.runs import load_run
from lepton_jax.typing import Classifier, Variables


def federated_evaluation(
    run: Run,
    model: Classifier,
    variables: Variables,
    splits: Splits,
    clients: Sequence[Client],
) -> dict[str, Any]:
    """What `evaluation.json` says of a federated run.

    Returns:
      `test` and `samples` as of a central run, and what `evaluate_clients` finds. With noise,
      `not_private` names what comes from the clients' data without any.
    """
    loss = make_loss(run.loss)
    classes = len(splits.info.classes)
    by_client = evaluate_clients(model, variables, clients, splits.train, loss, classes)
    figures = {**evaluation(model, variables, splits.test, loss), **by_client}
    federated = run.federated
    promised = federated.noise is not None or federated.example_privacy is not None
    return {**figures, "not_private": list(EVALUATION_FIGURES)} if promised else figures


def let_out(borders: Borders, figures: dict[str, Any]) -> dict[str, Any]:
    """Those figures that leave their regions: what policies name, and of no client by itself."""
    regions = borders.figures(figures["regions"])
    return {**figures, "regions": regions, "clients": [], "client_percentiles": {}}


def evaluate_run(folder: Path) -> dict[str, Any]:
    """Measures a finished run again over the test split; a federated one by client and region too.

    Args:
      folder: of the run; the figures are left in its evaluation.json.

    Raises:
      UserError: no run folder, not finished, or damaged.
    """
    saved = load_run(folder)
    if saved.kind == "train":
        return training.evaluate_run(folder)
    run, splits = saved.config, load(saved.config.data)
    clients = partition(run.federated, splits.train, splits.info)
    model = classifier(run, splits)
    figures = federated_evaluation(run, model, saved.variables, splits, clients)
    borders = make_borders(run.federated, clients)
    if borders is not None:
        figures = let_out(borders, figures)
    write_json(folder / "evaluation.json", figures)
    return figures
