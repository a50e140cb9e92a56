"""Membership inference on a finished model: whether training examples can be told from others.

*Estimates*, no bounds: a better attack may exist. Two attacks that need no other models: the loss
(Yeom et al., 2018), and the likelihood of the model's confidence among examples of the same class
that were not trained on (the offline test of Carlini et al., 2022, with one model in place of many).
"""

from typing import NamedTuple

import numpy as np

from lepton_jax.checks import UserError

_ALARMS = 0.01
_MOST = 5000  # examples of a kind


class Attack(NamedTuple):
    """How well one attack tells members from others.

    Attributes:
      auc: the probability that a member's score is above another's; 0.5 is chance.
      hits: the share of members found where 1 % of the others are taken for members.
      advantage: the greatest difference of hits and false alarms over all thresholds.
    """

    auc: float
    hits: float
    advantage: float


class Membership(NamedTuple):
    """Both attacks, and on how many examples they were tried.

    Attributes:
      loss: a low loss says that an example is a member.
      likelihood: so does a confidence that is unusual for its class.
      members: how many.
      others: how many, of which the second attack learns from one half and is tried on the other.
    """

    loss: Attack
    likelihood: Attack
    members: int
    others: int


def membership(
    members: tuple[np.ndarray, np.ndarray],
    others: tuple[np.ndarray, np.ndarray],
    *,
    seed: int = 0,
) -> Membership:
    """Attacks a model by its logits.

    Args:
      members: logits [N,K] and labels [N] of examples that it was trained on.
      others: likewise of examples that it was not, from the same source.
      seed: of the choice of at most 5,000 of each, in random order.

    Raises:
      UserError: fewer than 4 examples of a kind.
    """
    rng = np.random.default_rng([seed, 55])
    sides = [_take(rng, *side) for side in (members, others)]
    if min(len(labels) for _, labels in sides) < 4:
        raise UserError("membership", "at least 4 examples of each kind", len(sides[1][1]))
    (inside, inside_labels), (outside, outside_labels) = (
        (confidence(logits, labels), labels) for logits, labels in sides
    )
    known, known_labels = outside[::2], outside_labels[::2]
    likelihoods = [
        _unusual(scores, labels, known, known_labels)
        for scores, labels in ((inside, inside_labels), (outside[1::2], outside_labels[1::2]))
    ]
    return Membership(attack(inside, outside), attack(*likelihoods), len(inside), len(outside))


def confidence(logits: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """log(p / (1 - p)) [N] of the probability p of each true class; it falls as the loss rises."""
    scores = logits.astype(np.float64)
    rows = np.arange(len(labels))
    own = scores[rows, labels]
    rest = scores.copy()
    rest[rows, labels] = -np.inf
    top = rest.max(axis=1)
    return np.asarray(own - top - np.log(np.exp(rest - top[:, None]).sum(axis=1)))


def attack(members: np.ndarray, others: np.ndarray) -> Attack:
    """The figures of scores, which are greater for those who are taken for members.

    >>> attack(np.array([3.0, 2.0]), np.array([1.0, 2.0]))
    Attack(auc=0.875, hits=0.5, advantage=0.5)
    """
    thresholds = np.unique(np.concatenate([members, others, [np.inf]]))
    hits = 1 - np.searchsorted(np.sort(members), thresholds) / len(members)
    alarms = 1 - np.searchsorted(np.sort(others), thresholds) / len(others)
    ascending = np.sort(others)
    below = np.searchsorted(ascending, members)
    ties = np.searchsorted(ascending, members, side="right") - below
    return Attack(
        auc=float(np.mean(below + ties / 2) / len(others)),
        hits=float(np.max(hits[alarms <= _ALARMS])),
        advantage=float(np.max(hits - alarms)),
    )


def _take(
    rng: np.random.Generator, logits: np.ndarray, labels: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    order = rng.permutation(len(labels))[:_MOST]
    return logits[order], labels[order]


def _unusual(
    scores: np.ndarray, labels: np.ndarray, known: np.ndarray, known_labels: np.ndarray
) -> np.ndarray:
    """How many deviations each score is above those known of its class; of all where there are few."""
    mean, deviation = np.full(labels.shape, known.mean()), np.full(labels.shape, known.std())
    for label in np.unique(labels):
        own = known[known_labels == label]
        if len(own) >= 4:
            mean[labels == label], deviation[labels == label] = own.mean(), own.std()
    return np.asarray((scores - mean) / np.maximum(deviation, 1e-12))
