"""Federated training, the story from a config to a result."""

import json
import statistics
import time
from collections.abc import Callable, Generator
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from federated.aggregate import Report
from federated.algorithms import FederatedAlgorithm, ServerState, rounds
from federated.evaluate import federated_evaluation, let_out
from federated.manifest import read_manifest
from federated.parts import Parts, check, set_up
from federated.privacy.noise import Drawn
from federated.records import Record, round_progress, round_record, variables_of
from federated.sampling import Cohort, step_sizes
from federated.shards import manifest
from lepton_jax import trees
from lepton_jax.checks import UserError
from lepton_jax.config import Run, Secure
from lepton_jax.training.account import Account, open_account
from lepton_jax.training.checkpoints import Checkpoints, open_checkpoints
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
from lepton_jax.typing import PRNGKey, Variables

MakeParts = Callable[[Run, float | None], tuple[Parts, ServerState]]


def simulate(
    run: Run,
    out: Path,
    *,
    resume: bool = False,
    target_accuracy: float | None = None,
    make_parts: MakeParts | None = None,
) -> Generator[Progress, None, Result]:
    """Trains a model over clients that keep their data, and leaves a run folder.

    Args:
      run: the configuration.
      out: the run folder; new or empty, unless resumed.
      resume: go on from the newest undamaged checkpoint. With as many devices, the end is bitwise
        equal to that of a run that was never interrupted. A finished run returns its result again.
      target_accuracy: stop after the first evaluated round whose accuracy on the test split
        reaches this.
      make_parts: replaces `set_up`, for clients that work otherwise.

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
        parts, state = (make_parts or set_up)(run, target_accuracy)
        _pin_partition(parts, out / "partition.json")
        _pin_policies(parts, out / "policies.json")
        account = open_account(parts.promise, run, out, resume=resume)
        with open_checkpoints(out / "checkpoints", keep=run.checkpoint.keep) as checkpoints:
            state, records = _restore(parts, account, checkpoints, state, out)
            if not _is_over(parts, records, account):
                _compile(parts, state)
            clock = Clock(began, ready=time.monotonic())
            state, records = yield from _rounds(parts, state, records, account, checkpoints, out)
        return _conclude(parts, variables_of(state), records, account, out, clock)


def _pin_partition(parts: Parts, path: Path) -> None:
    """Writes who holds what; a run that goes on must find the same partition again."""
    run, splits = parts.run, parts.splits
    classes = len(splits.info.classes)
    found = manifest(run.federated, parts.clients, splits.train.labels, classes)
    if not path.exists():
        write_text(path, json.dumps(found) + "\n")
        return
    before = read_manifest(path)
    if before["sha256"] != found["sha256"]:
        raise UserError(
            str(path),
            "the partition that the run began with",
            "another one, of other data",
            "restore the data, or start anew in another folder",
        )


def _pin_policies(parts: Parts, path: Path) -> None:
    """Writes what each region lets out; a run that goes on must find the same terms again."""
    if parts.borders is None:
        return
    if not path.exists():
        write_json(path, parts.borders.policies)
        return
    before: Any = read_json(path)
    for region, policy in parts.borders.policies.items():
        if not isinstance(before, dict) or before.get(region) != policy:
            raise UserError(
                str(path),
                f"the policy of region {region} that the run began with",
                "another one",
                "restore it, or start anew in another folder",
            )


# --- rounds ---------------------------------------------------------------------------------------


def _rounds(
    parts: Parts,
    state: ServerState,
    records: list[Record],
    account: Account,
    checkpoints: Checkpoints,
    out: Path,
) -> Generator[Progress, None, tuple[ServerState, list[Record]]]:
    """Trains until the last round, the target, or the end of the budget.

    A round is charged before it is made. Its record is on disk before its checkpoint is: whatever a
    kill leaves, the records up to the newest checkpoint are there, and those after it can be told
    by their number.
    """
    run, saved = parts.run, len(records)
    over = _is_over(parts, records, account)
    todo = [] if over else range(len(records) + 1, run.federated.rounds + 1)
    cohorts = (parts.cohort(_chosen(parts, number, account), number, None) for number in todo)
    algorithm = _charged(parts, account)
    began = time.monotonic()
    for number, now, report in rounds(algorithm, state, cohorts, parts.key, parts.sources):
        state, report = now, jax.device_get(report)
        seconds = time.monotonic() - began
        _refuse_divergence(state, number, saved)
        record = round_record(parts, state, report, number, account)
        records = [*records, record]
        append(out / METRICS, record)
        rate = int(report.tally.count) / seconds
        append(out / TIMINGS, {"round": number, "seconds": seconds, "images_per_second": rate})
        over = _is_over(parts, records, account)
        if number % run.checkpoint.every == 0 or over:
            checkpoints.save(number, state._asdict(), {"round": number, **account.marks()}, None)
            saved = number
        yield round_progress(parts, record, rate)
        if over:
            break
        began = time.monotonic()
    return state, records


def _chosen(parts: Parts, number: int, account: Account) -> np.ndarray:
    """The round's clients, less those of regions that have stopped."""
    ids = parts.sampler.sample(number)
    if parts.borders is None:
        return ids
    return ids[parts.borders.open_to(account.after(number))[ids]]


def _charged(parts: Parts, account: Account) -> FederatedAlgorithm:
    """The run's algorithm, but that each round is charged before it is made."""
    algorithm = parts.algorithm

    def apply(
        state: ServerState, cohort: Cohort, key: PRNGKey, drawn: Drawn
    ) -> tuple[ServerState, Report]:
        number = int(state.round) + 1
        if parts.borders is not None:
            # The expected number is of the regions that go on, and as public as they are.
            open_to = parts.borders.open_to(account.after(number))
            drawn = drawn._replace(expected=drawn.expected * np.float32(np.mean(open_to)))
        account.charge(number)
        return algorithm.apply(state, cohort, key, drawn)

    return parts.algorithm._replace(apply=apply)


def _compile(parts: Parts, state: ServerState) -> None:
    """Compiles the round ahead of the first, whose clock then counts training alone.

    A cohort of nobody takes no steps, and what it leads to is thrown away. Where a protocol sums,
    there is no such thing as a round that doesn't count.
    """
    if parts.borders is not None or isinstance(parts.run.federated.channel, Secure):
        return
    image = parts.splits.train.images[0]
    for steps in step_sizes(parts.clients, parts.run.federated, image.nbytes):
        nobody = parts.cohort(np.zeros(0, np.int64), 0, steps)
        drawn = parts.algorithm.draw(state, parts.sources(0), nobody)
        jax.block_until_ready(parts.algorithm.apply(_copy(state), nobody, parts.key, drawn))


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


def _is_over(parts: Parts, records: list[Record], account: Account) -> bool:
    done = len(records) >= parts.run.federated.rounds
    if done or _reached(parts, records[-1:]) is not None or not account.affords(len(records) + 1):
        return True
    if parts.borders is None:
        return False
    return not parts.borders.open_to(account.after(len(records) + 1)).any()


def _reached(parts: Parts, records: list[Record]) -> int | None:
    """The first round that reached the target."""
    target = parts.target_accuracy
    if target is None:
        return None
    good = (each["round"] for each in records if each.get("test", {}).get("accuracy", 0) >= target)
    return next(good, None)


# --- beginning again, and the end -----------------------------------------------------------------


def _restore(
    parts: Parts, account: Account, checkpoints: Checkpoints, state: ServerState, out: Path
) -> tuple[ServerState, list[Record]]:
    """The state and records to go on from: those of the newest good checkpoint, else the first."""
    restored = checkpoints.restore_latest(state._asdict())
    records = go_on(out, "round", 0 if restored is None else restored[0])
    if restored is not None:
        account.check(out / "checkpoints" / str(restored[0]), restored[2])
        on_host = jax.tree.map(np.asarray, ServerState(**restored[1]))
        state = parts.over.place(jax.tree.map(jnp.asarray, on_host))
    return state, records


def _conclude(
    parts: Parts,
    variables: Variables,
    records: list[Record],
    account: Account,
    out: Path,
    clock: Clock,
) -> Result:
    """Evaluates the final model; result.json comes last and says that the run is finished."""
    run = parts.run
    figures = federated_evaluation(run, parts.model, variables, parts.splits, parts.clients)
    if parts.borders is not None:
        figures = let_out(parts.borders, figures)
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
        rounds_to_target=_reached(parts, records),
        **account.result(),
    )
    account.close("simulate", result.params_sha256, figures)
    write_json(out / "result.json", result.to_json())
    return result
