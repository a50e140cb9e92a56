"""A federated simulation whose clients are phones: each client's part is done by LiteRT.

The same clients, cohorts, batches in the same order, aggregation and server as of `simulate`; only
the local steps are taken by the training file in an interpreter, opened anew for every client and
round, so that nothing of one client's reaches another.
"""

from collections.abc import Generator
from functools import partial
from operator import attrgetter
from pathlib import Path

import jax
import jax.numpy as jnp
import msgspec
import numpy as np
from jax.flatten_util import ravel_pytree

from federated.aggregate import Report, aggregate
from federated.algorithms import FederatedAlgorithm, ServerState, fed_avg
from federated.channel import plain
from federated.client import Count, Update, learning_rate
from federated.parts import Parts, set_up
from federated.privacy.noise import Drawn
from federated.sampling import Cohort, batch_size
from federated.simulate import simulate
from federated.stages import make_stage
from lepton_jax import config, trees
from lepton_jax.checks import UserError
from lepton_jax.config import Run
from lepton_jax.export import learning
from lepton_jax.export.device import open_device, read_facts
from lepton_jax.metrics import Tally
from lepton_jax.models import check_learner
from lepton_jax.training.optimizers import make_optimizer
from lepton_jax.training.runs import Progress, Result
from lepton_jax.typing import PRNGKey, PyTree, Variables


def simulate_on_devices(
    run: Run,
    out: Path,
    *,
    model: bytes | None = None,
    resume: bool = False,
    target_accuracy: float | None = None,
) -> Generator[Progress, None, Result]:
    """Trains a model over clients whose local steps are taken by TFLite's interpreter.

    Round by round the model equals that of `simulate`, up to the order of float32 sums. Where that
    order decides (a ReLU's input within rounding of 0, a tie of max-pooling) two gradients are both
    right, and differ; so they do between the forms in which JAX convolves.

    Args:
      run: the configuration.
      out: the run folder, as of `simulate`.
      model: the content of a training file for this run, made here; None: made from the config.
      resume: as of `simulate`.
      target_accuracy: as of `simulate`.

    Yields:
      Progress, after each round.

    Returns:
      The result, as of `simulate`.

    Raises:
      UserError: as `simulate`; something that phones do not train; a file of another model.
    """
    check(run)
    # Here the clients' work is done on the host, and only sums are left for the devices of JAX.
    federated = msgspec.structs.replace(run.federated, over="scan")
    run = msgspec.structs.replace(run, federated=federated)
    return simulate(
        run,
        out,
        resume=resume,
        target_accuracy=target_accuracy,
        make_parts=partial(_set_up, model=model),
    )


def check(run: Run) -> None:
    """Refuses, before any data are loaded, what phones do not train.

    Raises:
      UserError: names the setting.
    """
    federated, sgd = run.federated, run.federated.client
    check_learner(run.model)
    plain_sgd = isinstance(sgd, config.Sgd) and not (sgd.nesterov or sgd.weight_decay)
    refused = (
        (plain_sgd, "federated.client", "sgd without nesterov and weight decay"),
        (federated.proximal == 0, "federated.proximal", "0"),
        (federated.noise is None, "federated.noise", "none"),
        (federated.example_privacy is None, "federated.example_privacy", "none"),
        (federated.policies is None, "federated.policies", "none"),
        (isinstance(federated.channel, config.Plain), "federated.channel", "plain"),
        (not run.data.augment, "data.augment", "none"),
        (run.model.dtype == "float32", "model.dtype", "float32"),
    )
    for allowed, where, expected in refused:
        if not allowed:
            expected = f"{expected} where clients are phones"
            remedy = "change it, or simulate without devices"
            raise UserError(where, expected, attrgetter(where)(run), remedy)


def _set_up(
    run: Run, target_accuracy: float | None, *, model: bytes | None
) -> tuple[Parts, ServerState]:
    """The parts of `simulate`, but that clients learn by a training file."""
    parts, state = set_up(run, target_accuracy)
    batch = batch_size(parts.clients, run.federated)
    model = _made(parts, state, batch) if model is None else model
    _check_file(model, run, batch, trees.size(state.params))
    return parts._replace(algorithm=_algorithm(parts, model)), state


def _made(parts: Parts, state: ServerState, batch: int) -> bytes:
    run = parts.run
    height, width, channels = parts.splits.train.images.shape[1:]
    params = jax.device_get(state.params)
    learner = learning.make_learner(run, parts.splits.info, (height, width, channels), params)
    settings = config.TrainOnPhone(batch_size=batch, momentum=_momentum(run))
    return learning.training_model(learner, settings)


def _momentum(run: Run) -> float:
    return run.federated.client.momentum if isinstance(run.federated.client, config.Sgd) else 0.0


def _check_file(model: bytes, run: Run, batch: int, parameters: int) -> None:
    facts = read_facts(model)
    pairs = (
        ("parameters", parameters, facts.parameters, parameters == facts.parameters),
        ("momentum", _momentum(run), facts.momentum, _momentum(run) == facts.momentum),
        ("loss", run.loss, facts.loss, run.loss == facts.loss),
        ("batch_size", f"at least {batch}", facts.batch_size, batch <= facts.batch_size),
    )
    for name, expected, got, equal in pairs:
        if not equal:
            raise UserError(
                f"model: {name}", f"{expected}, as of the run", got, "export the run's own file"
            )


# --- rounds ---------------------------------------------------------------------------------------


def _algorithm(parts: Parts, model: bytes) -> FederatedAlgorithm:
    """Federated averaging of updates that come from outside.

    In place of batches, the cohort that the compiled program is given has the phones' updates.
    """
    run, federated = parts.run, parts.run.federated
    stages = [make_stage(stage, run.seed) for stage in federated.stages]
    server = make_optimizer(federated.server)
    inner = fed_avg(_replay, server, aggregate(stages, plain(), None), parts.over)

    def apply(
        state: ServerState, cohort: Cohort, key: PRNGKey, drawn: Drawn
    ) -> tuple[ServerState, Report]:
        params = jax.device_get(state.params)
        flat, unravel = ravel_pytree(params)
        rate = float(learning_rate(federated, jnp.asarray(state.round)))
        begin = np.asarray(flat)
        slots = range(len(cohort.ids))
        deltas, tallies = zip(
            *(_train(model, begin, _own(cohort, slot), rate) for slot in slots), strict=True
        )
        updates = Update(
            jax.vmap(unravel)(jnp.asarray(np.stack(deltas))),
            {},
            jax.tree.map(lambda *each: np.stack(each), *tallies),
        )
        return inner.apply(state, cohort._replace(batches=updates), key, drawn)

    return FederatedAlgorithm(inner.init, apply, inner.draw)


def _replay(
    variables: Variables, batches: PyTree, steps: Count, round: Count, key: PRNGKey
) -> Update:
    return batches


def _own(cohort: Cohort, slot: int) -> list[np.ndarray]:
    """A client's images, labels and masks, without the steps that are not its own."""
    steps = int(cohort.steps[slot])
    return [np.asarray(array[slot][:steps]) for array in cohort.batches]


def _train(
    model: bytes, begin: np.ndarray, own: list[np.ndarray], rate: float
) -> tuple[np.ndarray, Tally]:
    """What a client sends: its weights after its steps less those before, and its tally."""
    loss, correct, count = 0.0, 0.0, int(own[2].sum())
    delta = np.zeros_like(begin)
    if len(own[0]):
        device = open_device(model)
        device.set_weights(begin)
        for images, labels, mask in zip(*own, strict=True):
            sums = device.train(images, labels, mask.astype(np.float32), rate)
            loss, correct = loss + sums.loss, correct + sums.correct
        delta = device.get_weights() - begin
    return delta, Tally(jnp.float32(loss), jnp.int32(round(correct)), jnp.int32(count))
