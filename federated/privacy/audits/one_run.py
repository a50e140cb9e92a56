"""The one-run audit: a valid lower bound on the epsilon of a whole run (Steinke et al., 2023).

*Guarantee.* A run that keeps its epsilon fails with a probability of at most `miss`, whatever is
guessed. It is the weakest of gates where epsilon is large, and the only one that sees the sampler,
all rounds and their composition together.
"""

from typing import NamedTuple

import numpy as np

from federated.privacy.audits.bounds import one_run_bound
from federated.privacy.audits.canaries import CanaryRun
from federated.privacy.audits.step import MISS
from lepton_jax.checks import UserError

_SHARES = (1 / 16, 1 / 8, 1 / 4, 1 / 2, 1)  # of the canaries, for which it is guessed


class OneRun(NamedTuple):
    """What a run's canaries prove.

    Attributes:
      epsilon: a lower bound.
      promised_epsilon: by accounting.
      delta: at which both are told.
      canaries: how many there were.
      guesses: of the test that proves most.
      correct: how many of them were right.
    """

    epsilon: float
    promised_epsilon: float
    delta: float
    canaries: int
    guesses: int
    correct: int

    @property
    def passed(self) -> bool:
        """Whether the bound is not above the promise."""
        return self.epsilon <= self.promised_epsilon


def one_run_audit(
    scores: np.ndarray,
    included: np.ndarray,
    *,
    promised_epsilon: float,
    delta: float,
    miss: float = MISS,
) -> OneRun:
    """Guesses that the highest scores are in and the lowest are out, and counts how often that is so.

    How many are guessed is tried for several shares of the canaries, each at its part of `miss`.

    Args:
      scores: [M] how much what was released is like each canary.
      included: [M] whether it was in, each by a fair coin that nothing else depended on.
      promised_epsilon: what accounting says.
      delta: at which it says so.
      miss: probability with which a correct run may fail, at most.

    Raises:
      UserError: a score that is not finite, or an argument out of range.
    """
    if not np.isfinite(scores).all():
        raise UserError("scores", "finite numbers", scores)
    order, count = np.argsort(scores, kind="stable"), len(scores)
    best = (0.0, 0, 0)
    for share in _SHARES:
        half = int(count * share) // 2
        correct = int((~included[order[:half]]).sum() + included[order[count - half :]].sum())
        bound = one_run_bound(count, 2 * half, correct, delta=delta, miss=miss / len(_SHARES))
        best = max(best, (bound, 2 * half, correct))
    return OneRun(best[0], promised_epsilon, delta, count, *best[1:])


def canary_scores(found: CanaryRun) -> np.ndarray:
    """[M] each canary's projection of all that a run released."""
    return np.asarray(found.vectors @ found.releases.sum(0))
