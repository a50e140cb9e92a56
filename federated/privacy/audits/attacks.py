"""Which attacks fit a run, and what they are given: its model, its examples, its clients' images."""

from typing import Any

import jax
import msgspec
import numpy as np

from federated.privacy.audits.inversion import Attacker, Inversion, inversion
from federated.privacy.audits.membership import Membership, membership
from federated.shards import partition
from lepton_jax import config, trees
from lepton_jax.data.splits import Examples, Splits
from lepton_jax.models.presets import resolve
from lepton_jax.training.evaluate import classifier, predict
from lepton_jax.training.losses import make_loss
from lepton_jax.training.runs import SavedRun

VICTIMS = 4
_MOST_COHORT, _MOST_PIXELS, _MOST_NUMBERS = 16, 32 * 32 * 3, 500_000


def membership_of(saved: SavedRun, splits: Splits, seed: int) -> Membership:
    """Membership inference on a finished run, by what it trained on and its test split."""
    run, model = saved.config, classifier(saved.config, splits)
    trained = splits.train
    if saved.kind == "simulate":
        clients = partition(run.federated, splits.train, splits.info)
        rows = np.concatenate([client.train for client in clients])
        trained = Examples(splits.train.images[rows], splits.train.labels[rows], None)
    inside, outside = (
        (predict(model, saved.variables, each.images), np.asarray(each.labels))
        for each in (trained, splits.test)
    )
    return membership(inside, outside, seed=seed)


def inversion_of(
    run: config.Run, splits: Splits, noise: tuple[float, float] | None, seed: int
) -> Inversion | str:
    """Gradient inversion on the fresh model of a config.

    Args:
      run: the configuration.
      splits: of its data; a client holds one training image each.
      noise: the clip norm of a gradient and the noise multiplier; None: 1 and 1, for comparison.
      seed: of the images, the noise and the attack.

    Returns:
      What was seen, or why nothing was tried.
    """
    if resolve(run.model).norm == "batch":
        return "left out: BatchNorm mixes a batch's examples"
    if np.prod(splits.train.images.shape[1:]) > _MOST_PIXELS:
        return "left out: images larger than 32 x 32 x 3 take long"
    plain = msgspec.structs.replace(run.model, conv="lax")
    model = classifier(msgspec.structs.replace(run, model=plain), splits)
    variables = model.init(jax.random.key(seed))
    if trees.size(variables.params) > _MOST_NUMBERS:
        return f"left out: models of more than {_MOST_NUMBERS:,} parameters take long"
    cohort = min(_MOST_COHORT, run.federated.clients_per_round, len(splits.train.labels))
    rows = np.random.default_rng([seed, 33]).permutation(len(splits.train.labels))[:cohort]
    bound, multiplier = noise or (1.0, 1.0)
    attacker = Attacker(model, make_loss(run.loss), variables, bound, multiplier)
    images, labels = np.asarray(splits.train.images[rows]), np.asarray(splits.train.labels[rows])
    victims, key = min(VICTIMS, cohort), jax.random.key(seed)
    return inversion(attacker, images, labels, victims=victims, key=key)


def summary(found: Inversion | str) -> dict[str, Any] | str:
    """Decibels of the best and of the median victim, by what the attacker sees."""
    if isinstance(found, str):
        return found
    return {
        name: {"best": float(each.max()), "median": float(np.median(each))}
        for name, each in found.decibels.items()
    }
