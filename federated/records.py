"""What a round's line in metrics.jsonl says, and what is shown of it."""

import math
from typing import Any

import jax

from federated.aggregate import Report
from federated.algorithms import ServerState
from federated.parts import Parts
from federated.privacy.promise import ROUND_FIGURES
from lepton_jax import metrics, trees
from lepton_jax.training.account import Account
from lepton_jax.training.evaluate import evaluate
from lepton_jax.training.runs import Progress
from lepton_jax.typing import Variables

Record = dict[str, Any]


def round_record(
    parts: Parts, state: ServerState, report: Report, number: int, account: Account
) -> Record:
    """The round's line in metrics.jsonl: nothing in it depends on the clock."""
    federated, clients = parts.run.federated, int(report.clients)
    model_bytes = trees.nbytes(state.params) + trees.nbytes(state.stats)
    record: Record = {
        "round": number,
        "clients": clients,
        "examples": int(report.tally.count),
        "train": _figures(report.tally),
        # Down goes the model; up come an update of the same size and its weight, a float32.
        "bytes_up": clients * (model_bytes + 4),
        "bytes_down": clients * model_bytes,
    }
    if federated.stages:
        record["stages"] = [jax.tree.map(int, counts) for counts in report.counts]
        record |= _adapted(state)
    if number % federated.evaluate_every == 0 or number == federated.rounds:
        record["test"] = _figures(
            evaluate(parts.model, variables_of(state), parts.splits.test, parts.loss)
        )
    raw = list(ROUND_FIGURES)
    if parts.borders is not None:
        record["egress"] = parts.borders.passed()
        raw.append("egress")  # how many updates a region let out tells how many were chosen there
    return record | account.figures(raw)


def _figures(sums: metrics.Tally | metrics.Metrics) -> dict[str, float | None]:
    """Loss and accuracy; None of no examples, and where a client that was discarded diverged."""
    figures = metrics.result(sums)
    loss = figures["loss"]
    known = loss is not None and math.isfinite(loss)
    return {"loss": loss if known else None, "accuracy": figures["accuracy"]}


def variables_of(state: ServerState) -> Variables:
    """The model, on one device: every other one would only compute the same."""
    return jax.device_put(Variables(state.params, state.stats), jax.local_devices()[0])


def _adapted(state: ServerState) -> Record:
    """The norm of an adaptive clip in the next round."""
    norms = [each["norm"] for each in state.aggregator.stages if "norm" in each]
    return {"clip_norm": float(norms[0])} if norms else {}


def round_progress(parts: Parts, record: Record, images_per_second: float) -> Progress:
    """What is shown of it, NaN where there is no figure."""
    train = {name: math.nan if x is None else x for name, x in record["train"].items()}
    notes = [f"test {record['test']['accuracy']:.4f}"] if "test" in record else []
    name = "hypothetical epsilon" if record.get("hypothetical") else "epsilon"
    notes += [f"{name} {record['epsilon']:.3f}"] if "epsilon" in record else []
    done, total = record["round"], parts.run.federated.rounds
    return Progress(
        done, total, "round", train["loss"], train["accuracy"], images_per_second, ", ".join(notes)
    )
