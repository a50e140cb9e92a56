"""Centralized training, the story from a config to a result."""

import math
import statistics
import time
from collections.abc import Generator, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from lepton_jax import metrics, trees
from lepton_jax.checks import UserError
from lepton_jax.config import Run
from lepton_jax.data.augment import augmenter
from lepton_jax.data.batches import epoch_batches, steps_per_epoch
from lepton_jax.data.load import load
from lepton_jax.data.splits import Examples, Splits
from lepton_jax.metrics import Tally
from lepton_jax.privacy.promise import Promise
from lepton_jax.training.account import Account, open_account
from lepton_jax.training.checkpoints import Checkpoints, open_checkpoints
from lepton_jax.training.evaluate import classifier, evaluate, evaluation
from lepton_jax.training.loop import fit
from lepton_jax.training.losses import Loss, make_loss
from lepton_jax.training.optimizers import Schedule, make_optimizer, make_schedule
from lepton_jax.training.private import check_private
from lepton_jax.training.private_run import private_promise, private_way
from lepton_jax.training.records import METRICS, TIMINGS, append, go_on, read_records, write_json
from lepton_jax.training.runs import Clock, Progress, Result, open_run
from lepton_jax.training.step import (
    Batches,
    Gradient,
    Step,
    TrainState,
    evaluated,
    init_state,
    make_step_along,
    mean_gradient,
)
from lepton_jax.training.stopping import Rule, best, check_target, chosen, is_over
from lepton_jax.typing import Batch, Classifier, PRNGKey, PyTree, Variables, keys

Record = dict[str, Any]
_LOOK_SECONDS, _LOOK_STEPS = 0.5, 50  # looking at figures waits for the device: not at every step


class _Parts(NamedTuple):
    """What stays the same while a run trains."""

    run: Run
    splits: Splits
    model: Classifier
    loss: Loss
    schedule: Schedule
    step: Step
    batches: Batches
    account: Account
    key: PRNGKey
    steps_per_epoch: int
    rule: Rule


def train(
    run: Run, out: Path, *, resume: bool = False, target_accuracy: float | None = None
) -> Generator[Progress, None, Result]:
    """Trains a model on one machine and leaves a run folder.

    Args:
      run: the configuration.
      out: the run folder; new or empty, unless resumed.
      resume: go on from the newest undamaged checkpoint. The end is bitwise equal to that of a run
        that was never interrupted, unless `train.privacy` draws from the system's entropy. A
        finished run returns its result again.
      target_accuracy: stop after the first epoch whose accuracy on the test split reaches this.

    Yields:
      Progress, about twice a second and after each epoch.

    Returns:
      The result. With `train.patience` the final variables are those of the best validation loss;
      with a budget, training stops before an epoch that would pass it.

    Raises:
      UserError: the config, data or folder can't be used, or training diverged.
    """
    began = time.monotonic()
    _check(run, target_accuracy)
    with open_run(out, run, resume=resume, kind="train") as finished:
        if finished is not None:
            return finished
        parts, state = _set_up(run, target_accuracy, out, resume=resume)
        with open_checkpoints(out / "checkpoints", keep=run.checkpoint.keep) as checkpoints:
            state, records = _restore(parts, checkpoints, state, out)
            clock = Clock(began, ready=time.monotonic())
            state, records = yield from _epochs(parts, state, records, checkpoints, out)
            final = chosen(parts.rule, records)
            if final != len(records):
                state = _from_tree(checkpoints.restore(final, _to_tree(state))[0])
        return _conclude(parts, evaluated(state), records, out, clock, checkpoint=final)


def _check(run: Run, target_accuracy: float | None) -> None:
    if run.train.patience is not None and run.data.validation_fraction == 0:
        raise UserError(
            "train.patience",
            "a validation split to watch",
            "data.validation_fraction = 0",
            "set data.validation_fraction=0.1",
        )
    if run.train.privacy is not None:
        check_private(run, "train.privacy")
    check_target(target_accuracy)


def _set_up(
    run: Run, target_accuracy: float | None, out: Path, *, resume: bool
) -> tuple[_Parts, TrainState]:
    splits = load(run.data)
    model, loss = classifier(run, splits), make_loss(run.loss)
    per_epoch = steps_per_epoch(len(splits.train.labels), run.train.batch_size)
    schedule = make_schedule(run.train, per_epoch)
    tx = make_optimizer(run.train.optimizer, learning_rate=schedule, clip_norm=run.train.clip_norm)
    purpose = keys(jax.random.key(run.seed), "init", "train")
    state = init_state(jax.jit(model.init)(purpose["init"]), tx, ema=run.train.ema)
    gradient, batches, promise = (_plain if run.train.privacy is None else _private)(
        run, splits, model, loss
    )
    account = open_account(promise, run, out, resume=resume)
    step = make_step_along(gradient, tx, ema=run.train.ema)
    rule = Rule(run.train.epochs, run.train.patience, target_accuracy)
    # Compiled ahead of the first epoch, whose clock then counts training alone.
    lowered = jax.jit(step, donate_argnums=0).lower(state, next(batches(1)), purpose["train"])
    parts = _Parts(
        run, splits, model, loss, schedule, lowered.compile(), batches, account,
        purpose["train"], per_epoch, rule,
    )  # fmt: skip
    return parts, state


_Way = tuple[Gradient, Batches, Promise | None]


def _plain(run: Run, splits: Splits, model: Classifier, loss: Loss) -> _Way:
    """The mean gradient of shuffled batches."""

    def batches(epoch: int) -> Iterator[Batch]:
        return epoch_batches(splits.train, run.train.batch_size, seed=run.seed, epoch=epoch)

    return mean_gradient(model, loss, augment=augmenter(run.data.augment)), batches, None


def _private(run: Run, splits: Splits, model: Classifier, loss: Loss) -> _Way:
    """The noised gradient of Poisson batches, and what is promised of them."""
    promise, augment = private_promise(run, len(splits.train.labels)), augmenter(run.data.augment)
    return *private_way(run, promise.terms, splits.train, model, loss, augment), promise


# --- epochs ---------------------------------------------------------------------------------------


def _epochs(
    parts: _Parts, state: TrainState, records: list[Record], checkpoints: Checkpoints, out: Path
) -> Generator[Progress, None, tuple[TrainState, list[Record]]]:
    """Trains until the last epoch, the target, the end of patience, or that of the budget.

    An epoch is charged before its first step. Its record is on disk before its checkpoint is: whatever a kill leaves, the records up to
    the newest checkpoint are there, and those after it can be told by their number.
    """
    run, saved = parts.run, len(records)
    while not _is_over(parts, records):
        epoch = len(records) + 1
        parts.account.charge(epoch)
        state, total, seconds = yield from _epoch(parts, state, epoch, saved)
        record = _record(parts, state, total, epoch)
        records = [*records, record]
        append(out / METRICS, record)
        rate = int(total.count) / seconds
        append(out / TIMINGS, {"epoch": epoch, "seconds": seconds, "images_per_second": rate})
        improved = run.train.patience is not None and best(records) == epoch
        if improved or epoch % run.checkpoint.every == 0 or _is_over(parts, records):
            validation = record["validation"]
            score = None if validation is None else -validation["loss"]
            host = {"epoch": epoch, **parts.account.marks()}
            checkpoints.save(epoch, _to_tree(state), host, score)
            saved = epoch
        yield _progress(parts, record["step"], total, rate, _note(record))
    return state, records


def _is_over(parts: _Parts, records: list[Record]) -> bool:
    return is_over(parts.rule, records) or not parts.account.affords(len(records) + 1)


def _epoch(
    parts: _Parts, state: TrainState, epoch: int, saved: int
) -> Generator[Progress, None, tuple[TrainState, Tally, float]]:
    total = metrics.zero_tally()
    began = looked = time.monotonic()
    for done, now, tally in fit(parts.step, state, parts.batches(epoch), parts.key):
        state = now
        total = _merge(total, tally)
        if time.monotonic() - looked >= _LOOK_SECONDS or done % _LOOK_STEPS == 0:
            _refuse_divergence(state, saved)
            looked = time.monotonic()
            yield _progress(parts, done, total, int(total.count) / (looked - began))
    _refuse_divergence(state, saved)
    return state, total, time.monotonic() - began


_merge = jax.jit(metrics.merge)


def _refuse_divergence(state: TrainState, saved: int) -> None:
    step = int(state.first_bad)
    if step:
        kept = f"the checkpoint of epoch {saved} is kept" if saved else "there is no checkpoint yet"
        raise UserError(
            f"train: step {step}",
            "a finite loss and finite variables",
            "NaN or infinity",
            f"lower train.optimizer.learning_rate or set train.clip_norm; {kept}",
        )


def _record(parts: _Parts, state: TrainState, total: Tally, epoch: int) -> Record:
    """The epoch's line in metrics.jsonl: nothing in it depends on the clock."""
    last = int(state.step)
    record = {
        "epoch": epoch,
        "step": last,
        "learning_rate": _shortest(parts.schedule(last - 1)),
        "train": _figures(total),
        "validation": _measured(parts, evaluated(state), parts.splits.validation, epoch),
    }
    record |= parts.account.figures(("train", "validation", "test"))
    if parts.rule.target_accuracy is not None:
        record["test"] = _measured(parts, evaluated(state), parts.splits.test, epoch)
    return record


def _measured(
    parts: _Parts, variables: Variables, examples: Examples, epoch: int
) -> dict[str, float] | None:
    if len(examples.labels) == 0:
        return None
    figures = _figures(evaluate(parts.model, variables, examples, parts.loss))
    if not math.isfinite(figures["loss"]):
        raise UserError(
            f"train: evaluation after epoch {epoch}",
            "a finite loss",
            figures["loss"],
            "lower train.optimizer.learning_rate",
        )
    return figures


def _figures(sums: Tally | metrics.Metrics) -> dict[str, float]:
    figures = metrics.result(sums)
    return {"loss": figures["loss"], "accuracy": figures["accuracy"]}


def _shortest(number: jax.Array) -> float:
    """A float32 with no more digits than tell it apart: 0.1, not 0.10000000149011612."""
    return float(str(np.float32(number)))


def _progress(
    parts: _Parts, done: int, total: Tally, images_per_second: float, note: str = ""
) -> Progress:
    figures = _figures(total)
    steps = parts.run.train.epochs * parts.steps_per_epoch
    return Progress(
        done, steps, "step", figures["loss"], figures["accuracy"], images_per_second, note
    )


def _note(record: Record) -> str:
    validation, epsilon = record["validation"], record.get("epsilon")
    notes = [] if validation is None else [f"validation {validation['accuracy']:.4f}"]
    return "  ".join(notes if epsilon is None else [*notes, f"epsilon {epsilon:.3f}"])


# --- beginning again, and the end -----------------------------------------------------------------


def _to_tree(state: TrainState) -> dict[str, PyTree]:
    """What a checkpoint holds: the state, less what is not there."""
    fields = state._asdict()
    del fields["first_bad"]  # a state that is saved has none
    return {name: value for name, value in fields.items() if value is not None}


def _from_tree(tree: dict[str, PyTree]) -> TrainState:
    return TrainState(**{"ema": None, "first_bad": jnp.int32(0), **tree})


def _restore(
    parts: _Parts, checkpoints: Checkpoints, state: TrainState, out: Path
) -> tuple[TrainState, list[Record]]:
    """The state and records to go on from: those of the newest good checkpoint, else the first."""
    restored = checkpoints.restore_latest(_to_tree(state))
    records = go_on(out, "epoch", 0 if restored is None else restored[0])
    if restored is not None:
        parts.account.check(out / "checkpoints" / str(restored[0]), restored[2])
    return state if restored is None else _from_tree(restored[1]), records


def _conclude(
    parts: _Parts,
    variables: Variables,
    records: list[Record],
    out: Path,
    clock: Clock,
    *,
    checkpoint: int,
) -> Result:
    """Evaluates the final variables; result.json comes last and says that the run is finished."""
    figures = evaluation(parts.model, variables, parts.splits.test, parts.loss)
    write_json(out / "evaluation.json", figures)
    rates = [record["images_per_second"] for record in read_records(out / TIMINGS)]
    result = Result(
        run=parts.run.name,
        kind="train",
        test_accuracy=figures["test"]["accuracy"],
        test_loss=figures["test"]["loss"],
        steps=records[-1]["step"],
        rounds=None,
        seconds=time.monotonic() - clock.began,
        images_per_second=statistics.median(rates) if rates else 0.0,
        params_sha256=trees.sha256(variables),
        seconds_to_first_step=clock.ready - clock.began,
        checkpoint=checkpoint,
        **parts.account.result(),
    )
    parts.account.close("train", result.params_sha256, figures)
    write_json(out / "result.json", result.to_json())
    return result
