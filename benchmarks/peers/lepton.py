"""lepton-jax' own runner, through the functions that its verbs use."""

import sys
from collections.abc import Iterator
from itertools import islice
from pathlib import Path

import jax
import jax.numpy as jnp
import msgspec
import numpy as np

from benchmarks.peers.protocol import (
    MATMUL_SIZE,
    Accuracy,
    Advance,
    Job,
    open_line,
    read_job,
    serve,
)
from federated.algorithms import rounds
from federated.parts import set_up
from federated.sampling import Cohort, cohort
from federated.shards import Client
from lepton_jax import metrics
from lepton_jax.config import Run
from lepton_jax.data.augment import augmenter
from lepton_jax.data.batches import epoch_batches
from lepton_jax.data.load import load
from lepton_jax.data.splits import Examples, Splits
from lepton_jax.startup import start_jax
from lepton_jax.training.evaluate import classifier, evaluate, predict
from lepton_jax.training.loop import fit
from lepton_jax.training.losses import make_loss
from lepton_jax.training.optimizers import make_optimizer, make_schedule
from lepton_jax.training.private import private_terms
from lepton_jax.training.private_run import private_way
from lepton_jax.training.step import (
    Batches,
    Gradient,
    evaluated,
    init_state,
    make_step_along,
    mean_gradient,
)
from lepton_jax.typing import Batch, Classifier, Variables, keys

_PACKAGES = ("lepton-jax", "jax", "jaxlib", "flax", "optax", "numpy")


def main(folder: Path) -> None:
    """Serves one job."""
    line = open_line()
    start_jax()
    job = read_job(folder)
    kinds = {
        "federated": federated,
        "central": central,
        "private": private,
        "inference": inference,
        "matmul": matmul,
    }
    serve(line, _PACKAGES, *kinds[job.kind](job))


def federated(job: Job) -> tuple[Advance, Accuracy]:
    """Rounds as `lepton simulate` does them: cohorts are laid out on the host meanwhile."""
    run = _run(job)
    parts, state = set_up(run, None)
    nothing = np.zeros(0, np.int64)
    clients = [Client(i, "all", own, nothing) for i, own in enumerate(job.clients)]

    def lay_out(number: int) -> Cohort:
        ids = job.cohorts[number - 1]
        slots = parts.sampler.capacity(len(ids))
        laid = cohort(
            clients,
            ids,
            parts.splits.train,
            run.federated,
            seed=run.seed,
            round=number,
            slots=slots,
        )
        return parts.over.lay(laid)

    def advance(numbers: range) -> None:
        nonlocal state
        for _, now, _ in rounds(parts.algorithm, state, map(lay_out, numbers), parts.key):
            state = now
        jax.block_until_ready(state)

    def accuracy() -> float:
        learned = jax.device_put(Variables(state.params, state.stats), jax.local_devices()[0])
        return _accuracy(parts.model, learned, parts.splits.test, run)

    return advance, accuracy


def central(job: Job) -> tuple[Advance, Accuracy]:
    """Steps as `lepton train` does them; a round is an epoch, or the beginning of one."""
    run = _run(job)
    splits = load(run.data)
    model = classifier(run, splits)
    gradient = mean_gradient(model, make_loss(run.loss), augment=augmenter(run.data.augment))

    def epoch(number: int) -> Iterator[Batch]:
        return epoch_batches(splits.train, run.train.batch_size, seed=run.seed, epoch=number)

    return _steps(job, run, splits, model, gradient, epoch)


def private(job: Job) -> tuple[Advance, Accuracy]:
    """Steps as `lepton train` does them with `train.privacy`."""
    run = _run(job)
    splits = load(run.data)
    model = classifier(run, splits)
    terms = private_terms(run, len(splits.train.labels))
    loss, augment = make_loss(run.loss), augmenter(run.data.augment)
    gradient, epoch = private_way(run, terms, splits.train, model, loss, augment)
    return _steps(job, run, splits, model, gradient, epoch)


def _steps(
    job: Job,
    run: Run,
    splits: Splits,
    model: Classifier,
    gradient: Gradient,
    epoch: Batches,
) -> tuple[Advance, Accuracy]:
    tx = make_optimizer(run.train.optimizer, learning_rate=make_schedule(run.train, job.steps))
    purpose = keys(jax.random.key(run.seed), "init", "train")
    state = init_state(jax.jit(model.init)(purpose["init"]), tx)
    step = jax.jit(make_step_along(gradient, tx), donate_argnums=0)

    def advance(numbers: range) -> None:
        nonlocal state
        for number in numbers:
            for _, now, _ in fit(step, state, islice(epoch(number), job.steps), purpose["train"]):
                state = now
        jax.block_until_ready(state)

    return advance, lambda: _accuracy(model, evaluated(state), splits.test, run)


def inference(job: Job) -> tuple[Advance, Accuracy]:
    """The logits of the first test images, batch by batch, from bytes on the host and back there."""
    run = _run(job)
    splits = load(run.data)
    model = classifier(run, splits)
    variables = model.init(jax.random.key(run.seed))
    images = splits.test.images[: job.steps * job.batch_size]

    def advance(numbers: range) -> None:
        for _ in numbers:
            predict(model, variables, images, batch_size=job.batch_size)

    return advance, lambda: None


def matmul(job: Job) -> tuple[Advance, Accuracy]:
    """Square matrix products in float32: what this machine can do at most."""
    matrix = jax.random.normal(jax.random.key(0), (MATMUL_SIZE, MATMUL_SIZE))
    product = jax.jit(jnp.matmul)

    def advance(numbers: range) -> None:
        for _ in numbers:
            product(matrix, matrix).block_until_ready()

    return advance, lambda: None


def _run(job: Job) -> Run:
    return msgspec.convert(job.run, Run)


def _accuracy(model: Classifier, variables: Variables, test: Examples, run: Run) -> float:
    found = metrics.result(evaluate(model, variables, test, make_loss(run.loss)))
    return float(found["accuracy"])


if __name__ == "__main__":
    main(Path(sys.argv[1]))
