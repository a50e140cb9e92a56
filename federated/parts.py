"""The parts of a federated run, made from its config: everything between TOML and the first round."""

import math
from collections.abc import Callable
from typing import NamedTuple

import jax

from federated.aggregate import aggregate, shared_statistics
from federated.algorithms import FederatedAlgorithm, ServerState, fed_avg
from federated.channel import plain
from federated.client import client_optimizer, local_update
from federated.over import Over, make_over
from federated.privacy.noise import make_noise
from federated.sampling import Sampler, make_sampler
from federated.shards import Client, partition
from federated.stages import make_stage
from lepton_jax.checks import UserError
from lepton_jax.config import Run
from lepton_jax.data.augment import augmenter
from lepton_jax.data.load import load
from lepton_jax.data.splits import Splits
from lepton_jax.models import build
from lepton_jax.models.presets import resolve
from lepton_jax.privacy.accounting import running_epsilon
from lepton_jax.training.losses import Loss, make_loss
from lepton_jax.training.optimizers import make_optimizer
from lepton_jax.training.stopping import check_target
from lepton_jax.typing import Classifier, PRNGKey, keys


class Parts(NamedTuple):
    """What stays the same while a run goes on."""

    run: Run
    splits: Splits
    clients: tuple[Client, ...]
    sampler: Sampler
    model: Classifier
    loss: Loss
    algorithm: FederatedAlgorithm
    over: Over
    key: PRNGKey
    epsilon: Callable[[int], float] | None
    target_accuracy: float | None


def check(run: Run, target_accuracy: float | None) -> None:
    """Refuses what can't be, before any data are loaded."""
    federated = run.federated
    if federated.noise is not None and resolve(run.model).norm == "batch":
        raise shared_statistics("gaussian noise")
    check_target(target_accuracy)


def set_up(run: Run, target_accuracy: float | None) -> tuple[Parts, ServerState]:
    """Makes the parts and the state before the first round; what can be refused early is."""
    federated = run.federated
    sampler = make_sampler(federated, run.seed)
    epsilon = _accountant(run, sampler)
    stages = [make_stage(stage) for stage in federated.stages]
    aggregator = aggregate(stages, plain(), make_noise(federated))

    splits = load(run.data)
    clients = partition(federated, splits.train, splits.info)
    model, loss = _model(run, splits), make_loss(run.loss)
    augment = augmenter(run.data.augment)
    optimizer = client_optimizer(federated)
    client = local_update(model, optimizer, loss, augment=augment, proximal=federated.proximal)
    over = make_over(federated.over)
    algorithm = fed_avg(client, make_optimizer(federated.server), aggregator, over)

    purpose = keys(jax.random.key(run.seed), "init", "rounds")
    state = algorithm.init(model.init(purpose["init"]))
    parts = Parts(
        run, splits, clients, sampler, model, loss, algorithm, over,
        purpose["rounds"], epsilon, target_accuracy,
    )  # fmt: skip
    return parts, state


def _accountant(run: Run, sampler: Sampler) -> Callable[[int], float] | None:
    """Rounds -> epsilon, from the event that the sampler states; None without noise."""
    noise, delta = run.federated.noise, run.federated.delta
    if noise is None or sampler.event is None:
        return None
    epsilon = running_epsilon(sampler.event, noise_multiplier=noise.multiplier, delta=delta)
    if not math.isfinite(epsilon(run.federated.rounds)):
        raise UserError(
            "federated.noise.multiplier",
            f"noise that keeps epsilon finite at delta = {delta}",
            noise.multiplier,
            "raise it; `lepton privacy noise` tells how far",
        )
    return epsilon


def _model(run: Run, splits: Splits) -> Classifier:
    info = splits.info
    height, width, channels = splits.train.images.shape[1:]
    shape, classes = (height, width, channels), len(info.classes)
    return build(run.model, shape, classes, mean=info.mean, std=info.std, in_loop=True)
