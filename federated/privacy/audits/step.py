"""The step-level audit: one release, many times, with and without a canary whose vector is known.

*Guarantee.* A mechanism that keeps its promise fails the gate with a probability of at most `miss`,
however many scenarios there are; that it passes proves nothing. Each scenario is a pair of
neighbouring cohorts and a direction in which a certain mistake shows:

| scenario  | neighbours                                        | shows                            |
|-----------|---------------------------------------------------|----------------------------------|
| `alone`   | nobody; a canary far above the bound, its leaves  | no noise or too little, no clip, |
|           | of equal norms and opposite signs                 | a clip per leaf, leaves that     |
|           |                                                   | share their noise                |
| `opposed` | one who pulls the other way; the canary beside it | a clip of the sum                |
| `again`   | two releases of nobody; the canary in both, with  | rounds that share their noise    |
|           | opposite signs                                    |                                  |

Where noise comes with the units, nobody is one with an update of zero. `again` is left out where
rounds share noise by design.
"""

import math
from collections.abc import Callable
from typing import NamedTuple

import numpy as np

from federated.privacy.audits.bounds import FromScores, from_scores, gaussian_epsilon
from federated.privacy.audits.mechanisms import Mechanism
from federated.privacy.audits.probes import LEAVES
from lepton_jax.checks import UserError

TRIALS = 2048
MISS = 0.01
_LOUD = 1e3  # times the bound

Release = Callable[[bool, int], np.ndarray]


class Scenario(NamedTuple):
    """Two neighbouring cohorts, and where to look.

    Attributes:
      name: as in the module's table.
      vectors: [M,D] in units of the bound.
      absent: [R,U] rows of the vectors that take part in each round; -1 is an empty slot.
      present: likewise, with the canary.
      direction: [R,D] what a release is projected on.
    """

    name: str
    vectors: np.ndarray
    absent: np.ndarray
    present: np.ndarray
    direction: np.ndarray


class Verdict(NamedTuple):
    """What one scenario proves.

    Attributes:
      name: of the scenario.
      mu: a lower bound on the releases' mu.
      promised_mu: that of what is promised.
      epsilon: a lower bound on epsilon at `delta`, which needs no Gaussian noise to be true.
      promised_epsilon: of one such pair of cohorts, at `delta`.
      delta: at which they are told.
      trials: of each kind.
    """

    name: str
    mu: float
    promised_mu: float
    epsilon: float
    promised_epsilon: float
    delta: float
    trials: int

    @property
    def passed(self) -> bool:
        """Whether no bound is above its promise."""
        return self.mu <= self.promised_mu and self.epsilon <= self.promised_epsilon


def audit_release(
    name: str,
    release: Release,
    *,
    promised_mu: float,
    delta: float,
    miss: float = MISS,
    trials: int = TRIALS,
) -> Verdict:
    """Holds one kind of release against its promise.

    Args:
      name: for the verdict.
      release: (with the canary?, N) -> [N] scores of independent releases.
      promised_mu: of Gaussian differential privacy: 1 / noise multiplier for one release.
      delta: at which epsilon is told.
      miss: probability with which a correct release may fail, at most.
      trials: of each kind, half of which choose the threshold.

    Raises:
      UserError: fewer than 8 trials, or another argument out of range.
    """
    if trials < 8:
        raise UserError("trials", "at least 8", trials)
    found: FromScores = from_scores(
        release(True, trials), release(False, trials), delta=delta, miss=miss
    )
    promised = gaussian_epsilon(promised_mu, delta)
    return Verdict(name, found.mu, promised_mu, found.epsilon, promised, delta, trials)


def step_audit(
    mechanism: Mechanism,
    *,
    delta: float,
    miss: float = MISS,
    trials: int = TRIALS,
    seed: int = 0,
) -> list[Verdict]:
    """Holds a mechanism's releases against its noise multiplier, in every scenario.

    Args:
      mechanism: of a run.
      delta: at which epsilon is told.
      miss: probability with which a correct mechanism may fail any scenario, at most.
      trials: as of `audit_release`.
      seed: of the trials.
    """
    chosen = scenarios(mechanism, seed)
    verdicts = []
    for number, scenario in enumerate(chosen):
        rounds = np.square(scenario.direction).sum()  # in which the canary shows
        verdict = audit_release(
            scenario.name,
            _release(mechanism, scenario, [seed, number]),
            promised_mu=math.sqrt(rounds) / mechanism.multiplier,
            delta=delta,
            miss=miss / len(chosen),
            trials=trials,
        )
        verdicts.append(verdict)
    return verdicts


def scenarios(mechanism: Mechanism, seed: int = 0) -> list[Scenario]:
    """Those of the module's table that fit a mechanism, all of one shape, which is compiled once."""
    leaf = np.random.default_rng(seed).normal(size=mechanism.numbers // LEAVES)
    signs = np.where(np.arange(LEAVES) % 2, -1.0, 1.0)
    unit = np.outer(signs, leaf).ravel()
    unit /= np.linalg.norm(unit)
    zero, loud = np.zeros_like(unit), _LOUD * unit
    none = 2 if mechanism.replaced else -1  # the row of zeros, or an empty slot
    nobody, canary, other, both = [none, -1], [0, -1], [1, none], [1, 0]
    found = [
        _scenario("alone", [loud, zero, zero], [nobody] * 2, [canary, nobody], [unit, zero]),
        _scenario("opposed", [loud, -unit, zero], [other, nobody], [both, nobody], [unit, zero]),
        _scenario("again", [loud, -loud, zero], [nobody] * 2, [canary, [1, -1]], [unit, -unit]),
    ]
    return found if mechanism.independent else found[:2]


def _scenario(name: str, *parts: list) -> Scenario:
    return Scenario(name, *(np.array(part) for part in parts))


def _release(mechanism: Mechanism, scenario: Scenario, seed: list[int]) -> Release:
    def scores(present: bool, trials: int) -> np.ndarray:
        members = scenario.present if present else scenario.absent
        own = int(np.random.default_rng([*seed, present]).integers(2**30))
        released = mechanism.releases(scenario.vectors, members, trials, own)
        return np.einsum("nrd,rd->n", released.astype(np.float64), scenario.direction)

    return scores
