"""The parts of a federated run, made from its config: everything between TOML and the first round."""

from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np

from federated.aggregate import aggregate, shared_statistics
from federated.algorithms import FederatedAlgorithm, ServerState, fed_avg
from federated.borders import Borders, open_borders
from federated.channel import Channel, HostChannel, host_sums, plain
from federated.client import client_optimizer, local_update
from federated.example_privacy import example_privacy
from federated.over import Over, make_over
from federated.policy import Policy, load_policies
from federated.privacy.make import make_noise
from federated.privacy.promise import promise
from federated.sampling import Cohort, Sampler, cohort, make_sampler
from federated.shards import Client, partition
from federated.stages import make_stage
from lepton_jax import config
from lepton_jax.checks import UserError
from lepton_jax.config import Run
from lepton_jax.data.augment import augmenter
from lepton_jax.data.load import load
from lepton_jax.data.splits import Splits
from lepton_jax.models import build
from lepton_jax.models.presets import resolve
from lepton_jax.privacy.entropy import Source, secure_source, seeded_source
from lepton_jax.privacy.promise import Promise
from lepton_jax.training.losses import Loss, make_loss
from lepton_jax.training.optimizers import make_optimizer
from lepton_jax.training.private import check_private
from lepton_jax.training.stopping import check_target
from lepton_jax.typing import Classifier, PRNGKey, keys

_NOISE = 2**32  # the stream of noise must be none of the cohorts'


class Parts(NamedTuple):
    """What stays the same while a run goes on.

    Attributes:
      promise: its guarantee, or None.
      borders: the gates of its regions, where they have policies.
      sources: number of a round -> where its noise comes from.
      cohort: (the chosen clients' numbers, number of a round, steps T or None) -> their cohort.
    """

    run: Run
    splits: Splits
    clients: tuple[Client, ...]
    sampler: Sampler
    model: Classifier
    loss: Loss
    algorithm: FederatedAlgorithm
    over: Over
    key: PRNGKey
    promise: Promise | None
    borders: Borders | None
    sources: Callable[[int], Source]
    cohort: Callable[[np.ndarray, int, int | None], Cohort]
    target_accuracy: float | None


def check(run: Run, target_accuracy: float | None) -> None:
    """Refuses what can't be, before any data are loaded."""
    federated = run.federated
    _check_processes(federated)
    if federated.noise is not None or federated.example_privacy is not None:
        who = "noise" if federated.noise is not None else "example_privacy"
        check_private(run, f"federated.{who}")
    elif isinstance(federated.channel, config.Secure) and resolve(run.model).norm == "batch":
        raise shared_statistics("secure sums")
    check_target(target_accuracy)


def _check_processes(federated: config.Federated) -> None:
    """Refuses what processes that don't talk to each other would each draw for themselves."""
    secret = federated.noise is not None and federated.randomness == "secure"
    if jax.process_count() > 1 and (secret or isinstance(federated.channel, config.Secure)):
        raise UserError(
            "federated",
            "plain sums, and noise by the seed, where several processes run together",
            "secure noise" if secret else "secure sums",
            "run it in one process",
        )


def set_up(run: Run, target_accuracy: float | None) -> tuple[Parts, ServerState]:
    """Makes the parts and the state before the first round; what can be refused early is."""
    federated = run.federated
    sampler = make_sampler(federated, run.seed)
    stages = [make_stage(stage, run.seed) for stage in federated.stages]
    promised = promise(federated, sampler, _clip_norm(federated))
    noise = None if promised is None else make_noise(federated, promised.terms, sampler)
    channel = _channel(run)
    # What can't be joined, or no policy allows, is refused before data are loaded.
    aggregator = aggregate(stages, host_sums() if _policies(federated) else channel, noise)

    splits = load(run.data)
    clients = partition(federated, splits.train, splits.info)
    borders = make_borders(federated, clients, channel)
    if borders is not None:
        aggregator = aggregator._replace(channel=borders.channel)
    model, loss = _model(run, splits), make_loss(run.loss)
    augment = augmenter(run.data.augment)
    optimizer = client_optimizer(federated)
    private = None
    if promised is not None and federated.example_privacy is not None:
        held, multiplier = (clients, splits.train), promised.terms.noise_multiplier
        private = example_privacy(federated, multiplier, model, loss, augment, held)
    client = local_update(
        model,
        optimizer,
        loss,
        augment=augment,
        proximal=federated.proximal,
        gradient=private.gradient if private else None,
    )
    over, drawn_from = make_over(federated.over), sources(run)
    algorithm = fed_avg(client, make_optimizer(federated.server), aggregator, over)

    def lay(ids: np.ndarray, round: int, steps: int | None) -> Cohort:
        slots = sampler.capacity(len(ids))
        if private is not None:
            return over.lay(private.lay(ids, drawn_from(round), slots))
        laid = cohort(
            clients, ids, splits.train, federated,
            seed=run.seed, round=round, slots=slots, steps=steps,
        )  # fmt: skip
        return over.lay(laid)

    purpose = keys(jax.random.key(run.seed), "init", "rounds")
    state = algorithm.init(model.init(purpose["init"]))
    parts = Parts(
        run, splits, clients, sampler, model, loss, algorithm, over,
        purpose["rounds"], promised, borders, drawn_from, lay, target_accuracy,
    )  # fmt: skip
    return parts, state


def _clip_norm(federated: config.Federated) -> float:
    """The norm that the config bounds a share to, for telling; noise goes by the chain's own bound."""
    norms = [each.max_norm for each in federated.stages if isinstance(each, config.Clip)]
    firsts = [each.initial for each in federated.stages if isinstance(each, config.AdaptiveClip)]
    return min([*norms, *firsts], default=0.0)


def make_borders(
    federated: config.Federated,
    clients: Sequence[Client],
    channel: Channel | HostChannel | None = None,
) -> Borders | None:
    """The regions' gates, where there are policies; refuses cohorts too small for secure sums.

    Args:
      federated: the run's settings.
      clients: with their regions, by number.
      channel: how each region sums its own clients; None: plainly.
    """
    policies = _policies(federated)
    if isinstance(channel, HostChannel):
        from federated.secure.channel import check_cohorts

        sums = {name for name, each in policies.items() if each.cross_border == "sum"}
        homes = [client.region for client in clients]
        groups = Counter(home for home in homes if home in sums) if policies else {"": len(homes)}
        if groups:
            check_cohorts(federated, list(groups.values()))
    if not policies:
        return None
    inner = channel if isinstance(channel, HostChannel) else host_sums()
    return open_borders(policies, federated, clients, inner)


def _channel(run: Run) -> Channel | HostChannel:
    channel = run.federated.channel
    if isinstance(channel, config.Plain):
        return plain()
    from federated.secure.channel import secure  # the extra `privacy`

    return secure(channel, run.seed)


def _policies(federated: config.Federated) -> dict[str, Policy]:
    if federated.policies is None:
        return {}
    if isinstance(federated.noise, config.Distributed):
        raise UserError(
            "federated.policies",
            "noise that hides each region's sum by itself, or is added to the sum of all",
            "distributed noise, of which a region's sum has a part",
            "set federated.noise.kind=gaussian or local",
        )
    return load_policies(Path(federated.policies), federated.regions)


def sources(run: Run) -> Callable[[int], Source]:
    """Where each round's noise comes from: one stream of the system's, or one by seed and round."""
    privacy = run.federated.example_privacy
    randomness = privacy.randomness if privacy else run.federated.randomness
    if randomness == "reproducible":
        return lambda number: seeded_source(run.seed, number, _NOISE)
    source: Source | None = None

    def words(n: int) -> Any:
        nonlocal source
        source = source or secure_source()  # at the first noise: without any, nothing is needed
        return source.words(n)

    return lambda number: Source(words)


def _model(run: Run, splits: Splits) -> Classifier:
    info = splits.info
    height, width, channels = splits.train.images.shape[1:]
    shape, classes = (height, width, channels), len(info.classes)
    return build(run.model, shape, classes, mean=info.mean, std=info.std, in_loop=True)
