"""An audit of the noise itself: releases of nobody, whose deviation is known and whose parts are not
each other's copies.

*Guarantee.* Independent normal noise of at least the promised deviation fails with a probability of
at most `miss`: the upper bounds on deviations are exact (chi-square), each at its share of `miss`.
"""

import itertools
from typing import NamedTuple

import numpy as np
from scipy import special

from federated.privacy.audits.mechanisms import Mechanism
from federated.privacy.audits.probes import LEAVES

_MISS = 1e-6  # of so many numbers: it widens the bound on their deviation by less than a hundredth
_TRIALS = 512


class Deviation(NamedTuple):
    """How far noise reaches in some directions, over what is promised.

    Attributes:
      name: of the directions.
      measured: the root mean square.
      at_most: an upper bound on the deviation; below 1, the promise is broken.
    """

    name: str
    measured: float
    at_most: float

    @property
    def passed(self) -> bool:
        """Whether the noise may be what is promised."""
        return self.at_most >= 1


def noise_audit(
    mechanism: Mechanism, *, miss: float = _MISS, trials: int = _TRIALS, seed: int = 0
) -> list[Deviation]:
    """Measures the noise as a whole, in each leaf, and in sums and differences of leaves and rounds.

    Noise that is drawn twice cancels in a difference: leaves, or consecutive rounds, that share a
    key have no deviation there at all. Of noise that rounds share by design, the first round alone
    is measured.

    Args:
      mechanism: of a run.
      miss: probability with which correct noise may fail, at most.
      trials: of two rounds each.
      seed: of the trials.

    Returns:
      For each kind of direction, the one with the least deviation.
    """
    nobody = np.full((2, 2), [2 if mechanism.replaced else -1, -1])  # as in `step`
    released = mechanism.releases(np.zeros((3, mechanism.numbers)), nobody, trials, seed)
    noise = released.astype(np.float64) / mechanism.multiplier
    used = noise if mechanism.steady else noise[:, :1]
    by_leaf = used.reshape(trials, -1, LEAVES, mechanism.numbers // LEAVES)
    leaves = np.moveaxis(by_leaf, 2, 0).reshape(LEAVES, -1)
    pairs = [*itertools.combinations(range(LEAVES), 2)]
    kinds = {
        "all": [used.ravel()],
        "each leaf": list(leaves),
        "pairs of leaves": [_mix(leaves[i], leaves[j], s) for i, j in pairs for s in (1, -1)],
    }
    if mechanism.steady:
        rounds = np.moveaxis(used, 1, 0).reshape(2, -1)
        kinds["pairs of rounds"] = [_mix(rounds[0], rounds[1], s) for s in (1, -1)]
    share = miss / sum(len(each) for each in kinds.values())
    return [
        min((_deviation(name, x, share) for x in each), key=lambda d: d.at_most)
        for name, each in kinds.items()
    ]


def _mix(a: np.ndarray, b: np.ndarray, sign: int) -> np.ndarray:
    return (a + sign * b) / np.sqrt(2)


def _deviation(name: str, numbers: np.ndarray, miss: float) -> Deviation:
    squares = float(np.sum(np.square(numbers)))
    least = 2 * float(special.gammaincinv(len(numbers) / 2, miss))  # the chi-square's quantile
    return Deviation(name, (squares / len(numbers)) ** 0.5, (squares / least) ** 0.5)
