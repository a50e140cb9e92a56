"""Federated training, the story from a config to a result."""

import json
import math
import statistics
import time
from collections.abc import Generator
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from federated.aggregate import Report
from federated.algorithms import ServerState, rounds
from federated.evaluate import federated_evaluation
from federated.parts import Parts, check, set_up
from federated.sampling import Cohort, cohort, step_sizes
from federated.shards import manifest, verify_manifest
from lepton_jax import metrics, trees
from lepton_jax.checks import UserError
from lepton_jax.config import Run
from lepton_jax.training.checkpoints import Checkpoints, open_checkpoints
from lepton_jax.training.evaluate import evaluate
from lepton_jax.training.records import (
    METRICS,
    TIMINGS,
    append,
    go_on,
    read_json,
    read_records,
    write_json,
    write_text,
)
from lepton_jax.training.runs import Clock, Progress, Result, open_run
from lepton_jax.typing import Variables

Record = dict[str, Any]
_RAW = ["clients", "examples", "train", "stages", "bytes_up", "bytes_down"]


def simulate(
    run: Run, out: Path, *, resume: bool = False, target_accuracy: float | None = None
) -> Generator[Progress, None, Result]:
    """Trains a model over clients that keep their data, and leaves a run folder.

    Args:
      run: the configuration.
      out: the run folder; new or empty, unless resumed.
      resume: go on from the newest undamaged checkpoint. With as many devices, the end is bitwise
        equal to that of a run that was never interrupted. A finished run returns its result again.
      target_accuracy: stop after the first evaluated round whose accuracy on the test split
        reaches this.

    Yields:
      Progress, after each round.

    Returns:
      The result.

    Raises:
      UserError: the config, data or folder can't be used, or training diverged.
    """
    began = time.monotonic()
    check(run, target_accuracy)
    with open_run(out, run, resume=resume, kind="simulate") as finished:
        if finished is not None:
            return finished
        parts, state = set_up(run, target_accuracy)
        _pin_partition(parts, out / "partition.json")
        with open_checkpoints(out / "checkpoints", keep=run.checkpoint.keep) as checkpoints:
            state, records = _restore(parts, checkpoints, state, out)
            if not _is_over(parts, records):
                _compile(parts, state)
            clock = Clock(began, ready=time.monotonic())
            state, records = yield from _rounds(parts, state, records, checkpoints, out)
        return _conclude(parts, _variables(state), records, out, clock)


def _pin_partition(parts: Parts, path: Path) -> None:
    """Writes who holds what; a run that goes on must find the same partition again."""
    run, splits = parts.run, parts.splits
    classes = len(splits.info.classes)
    found = manifest(run.federated, parts.clients, splits.train.labels, classes)
    if not path.exists():
        write_text(path, json.dumps(found) + "\n")
        return
    before = read_json(path)
    verify_manifest(before)
    if before["sha256"] != found["sha256"]:
        raise UserError(
            str(path),
            "the partition that the run began with",
            "another one, of other data",
            "restore the data, or start anew in another folder",
        )


# --- rounds ---------------------------------------------------------------------------------------


def _rounds(
    parts: Parts, state: ServerState, records: list[Record], checkpoints: Checkpoints, out: Path
) -> Generator[Progress, None, tuple[ServerState, list[Record]]]:
    """Trains until the last round or the target.

    A round's record is on disk before its checkpoint is: whatever a kill leaves, the records up to
    the newest checkpoint are there, and those after it can be told by their number.
    """
    run, saved = parts.run, len(records)
    over = _is_over(parts, records)
    todo = [] if over else range(len(records) + 1, run.federated.rounds + 1)
    cohorts = (_cohort(parts, parts.sampler.sample(number), number) for number in todo)
    began = time.monotonic()
    for number, now, report in rounds(parts.algorithm, state, cohorts, parts.key):
        state, report = now, jax.device_get(report)
        seconds = time.monotonic() - began
        _refuse_divergence(state, number, saved)
        record = _record(parts, state, report, number)
        records = [*records, record]
        append(out / METRICS, record)
        rate = int(report.tally.count) / seconds
        append(out / TIMINGS, {"round": number, "seconds": seconds, "images_per_second": rate})
        if number % run.checkpoint.every == 0 or _is_over(parts, records):
            checkpoints.save(number, state._asdict(), {"round": number}, None)
            saved = number
        yield _progress(parts, record, rate)
        if _is_over(parts, records):
            break
        began = time.monotonic()
    return state, records


def _cohort(parts: Parts, ids: np.ndarray, round: int, steps: int | None = None) -> Cohort:
    laid = cohort(
        parts.clients,
        ids,
        parts.splits.train,
        parts.run.federated,
        seed=parts.run.seed,
        round=round,
        slots=parts.sampler.capacity(len(ids)),
        steps=steps,
    )
    return parts.over.lay(laid)


def _compile(parts: Parts, state: ServerState) -> None:
    """Compiles the round ahead of the first, whose clock then counts training alone.

    A cohort of nobody takes no steps, and what it leads to is thrown away.
    """
    image = parts.splits.train.images[0]
    for steps in step_sizes(parts.clients, parts.run.federated, image.nbytes):
        nobody = _cohort(parts, np.zeros(0, np.int64), 0, steps)
        jax.block_until_ready(parts.algorithm.apply(_copy(state), nobody, parts.key))


def _copy(state: ServerState) -> ServerState:
    return jax.tree.map(jnp.copy, state)


def _refuse_divergence(state: ServerState, number: int, saved: int) -> None:
    leaves = jax.tree.leaves(jax.device_get((state.params, state.stats)))
    if not all(np.isfinite(leaf).all() for leaf in leaves):
        kept = f"the checkpoint of round {saved} is kept" if saved else "there is no checkpoint yet"
        raise UserError(
            f"simulate: round {number}",
            "finite parameters",
            "NaN or infinity",
            f"lower federated.client.learning_rate, or add a clip to federated.stages; {kept}",
        )


def _record(parts: Parts, state: ServerState, report: Report, number: int) -> Record:
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
    if number % federated.evaluate_every == 0 or number == federated.rounds:
        record["test"] = _figures(
            evaluate(parts.model, _variables(state), parts.splits.test, parts.loss)
        )
    if parts.epsilon is not None:
        record |= {"epsilon": parts.epsilon(number), "not_private": _RAW}
    return record


def _figures(sums: metrics.Tally | metrics.Metrics) -> dict[str, float | None]:
    """Loss and accuracy; None of no examples, and where a client that was discarded diverged."""
    figures = metrics.result(sums)
    loss = figures["loss"]
    known = loss is not None and math.isfinite(loss)
    return {"loss": loss if known else None, "accuracy": figures["accuracy"]}


def _variables(state: ServerState) -> Variables:
    """The model, on one device: every other one would only compute the same."""
    return jax.device_put(Variables(state.params, state.stats), jax.local_devices()[0])


def _is_over(parts: Parts, records: list[Record]) -> bool:
    return len(records) >= parts.run.federated.rounds or _reached(parts, records[-1:]) is not None


def _reached(parts: Parts, records: list[Record]) -> int | None:
    """The first round that reached the target."""
    target = parts.target_accuracy
    if target is None:
        return None
    good = (each["round"] for each in records if each.get("test", {}).get("accuracy", 0) >= target)
    return next(good, None)


def _progress(parts: Parts, record: Record, images_per_second: float) -> Progress:
    train = {name: math.nan if x is None else x for name, x in record["train"].items()}
    notes = [f"test {record['test']['accuracy']:.4f}"] if "test" in record else []
    notes += [f"epsilon {record['epsilon']:.3f}"] if "epsilon" in record else []
    done, total = record["round"], parts.run.federated.rounds
    return Progress(
        done, total, "round", train["loss"], train["accuracy"], images_per_second, ", ".join(notes)
    )


# --- beginning again, and the end -----------------------------------------------------------------


def _restore(
    parts: Parts, checkpoints: Checkpoints, state: ServerState, out: Path
) -> tuple[ServerState, list[Record]]:
    """The state and records to go on from: those of the newest good checkpoint, else the first."""
    restored = checkpoints.restore_latest(state._asdict())
    records = go_on(out, "round", 0 if restored is None else restored[0])
    if restored is not None:
        on_host = jax.tree.map(np.asarray, ServerState(**restored[1]))
        state = parts.over.place(jax.tree.map(jnp.asarray, on_host))
    return state, records


def _conclude(
    parts: Parts, variables: Variables, records: list[Record], out: Path, clock: Clock
) -> Result:
    """Evaluates the final model; result.json comes last and says that the run is finished."""
    run = parts.run
    figures = federated_evaluation(run, parts.model, variables, parts.splits, parts.clients)
    write_json(out / "evaluation.json", figures)
    rates = [record["images_per_second"] for record in read_records(out / TIMINGS)]
    result = Result(
        run=run.name,
        kind="simulate",
        test_accuracy=figures["test"]["accuracy"],
        test_loss=figures["test"]["loss"],
        steps=None,
        rounds=len(records),
        seconds=time.monotonic() - clock.began,
        images_per_second=statistics.median(rates) if rates else 0.0,
        params_sha256=trees.sha256(variables),
        seconds_to_first_step=clock.ready - clock.began,
        epsilon=None if parts.epsilon is None else parts.epsilon(len(records)),
        delta=None if parts.epsilon is None else run.federated.delta,
        rounds_to_target=_reached(parts, records),
    )
    write_json(out / "result.json", result.to_json())
    return result
