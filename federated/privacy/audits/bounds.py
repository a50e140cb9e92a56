"""Lower bounds on epsilon from an attack's hits: what a mechanism reveals at least.

*Guarantee.* Each bound is valid: where the mechanism keeps its promise, it exceeds the promise with
a probability of at most `miss`, whatever the attack. A weak attack gives a low bound, so that a low
bound says nothing; only one above the promise does.

| edge                                        | bound          |
|---------------------------------------------|----------------|
| an attack no better than chance; no guesses | 0              |
| every guess right                           | finite         |
| delta 1                                     | 0              |
| counts out of range, NaN, miss not in (0,1) | UserError      |
| mu 0; mu infinite (`gaussian_epsilon`)      | 0; infinite    |
| scores with NaN or infinity                 | UserError      |
"""

import math
from collections.abc import Callable
from functools import partial
from typing import NamedTuple

import numpy as np
from scipy import special

from lepton_jax.checks import UserError

_THRESHOLDS = 256  # tried for the best
_MOST = 200.0  # of an epsilon, where a search gives up


class Counts(NamedTuple):
    """A yes-or-no test's outcomes: said yes `with` times in `trials_with`, and likewise without."""

    true_positives: int
    positives: int
    false_positives: int
    negatives: int


class FromScores(NamedTuple):
    """What scores of releases with and without a canary prove, together but with probability `miss`.

    Attributes:
      mu: a lower bound on the mean shift of Gaussian differential privacy.
      epsilon: a lower bound on epsilon at the delta that was given.
      mu_counts: of the test behind mu, on the half that its threshold was not chosen on.
      epsilon_counts: likewise of epsilon.
    """

    mu: float
    epsilon: float
    mu_counts: Counts
    epsilon_counts: Counts


def clopper_pearson(successes: int, trials: int, miss: float) -> tuple[float, float]:
    """A lower and an upper bound on a probability (Clopper and Pearson, 1934).

    Args:
      successes: of `trials` independent ones.
      trials: how many; 0 tells nothing.
      miss: in (0, 1): the probability with which each of the two bounds may be wrong.

    Raises:
      UserError: an argument is out of range.

    >>> clopper_pearson(0, 100, 0.05)
    (0.0, 0.0295...)
    """
    if not 0 <= successes <= trials:
        raise UserError("successes", f"a number in [0, {trials}]", successes)
    _check_miss(miss)
    low, high = _limits(np.array(successes), trials, miss)
    return float(low), float(high)


def epsilon_bound(counts: Counts, delta: float, miss: float) -> float:
    """A lower bound on epsilon (Jagielski et al., 2020; Nasr et al., 2021).

    Both directions are used: what the test says of neighbours, and its opposite.

    Args:
      counts: of a test that was fixed before these trials, each independent of the others.
      delta: of the promise.
      miss: probability of a bound that is too high, in (0, 1).

    Raises:
      UserError: an argument is out of range.

    >>> round(epsilon_bound(Counts(900, 1000, 100, 1000), delta=0.0, miss=0.05), 2)
    1.99
    """
    if not 0 <= delta <= 1:
        raise UserError("delta", "a number in [0, 1]", delta)
    return max(0.0, float(_log_ratio(*_rates(counts, miss), delta=delta)))


def mu_bound(counts: Counts, miss: float) -> float:
    """A lower bound on mu of Gaussian differential privacy (Nasr et al., 2023; Dong et al., 2022).

    A Gaussian mechanism with noise multiplier s has mu = 1/s; its tests obey no weaker law than
    hit rate <= Phi(Phi^-1(false alarms) + mu), which this inverts. It tells a broken Gaussian
    mechanism by far fewer trials than epsilon does.

    Args:
      counts: as of `epsilon_bound`.
      miss: likewise.

    Raises:
      UserError: an argument is out of range.
    """
    return max(0.0, float(_shift(*_rates(counts, miss))))


def gaussian_epsilon(mu: float, delta: float) -> float:
    """The epsilon at delta of mu-Gaussian differential privacy (Balle and Wang, 2018), exact.

    Args:
      mu: at least 0: sensitivity over deviation, sqrt(T) / multiplier after T rounds.
      delta: in [0, 1].

    Raises:
      UserError: an argument is out of range.

    >>> round(gaussian_epsilon(1.0, 1e-5), 3)
    4.377
    """
    if not mu >= 0:  # NaN compares false
        raise UserError("mu", "a number of at least 0", mu)
    if not 0 <= delta <= 1:
        raise UserError("delta", "a number in [0, 1]", delta)
    if mu == 0 or delta == 1:
        return 0.0
    if delta == 0 or mu == math.inf:
        return math.inf
    return least(lambda epsilon: _gaussian_delta(mu, epsilon) <= delta, math.inf)


def from_scores(
    present: np.ndarray, absent: np.ndarray, *, delta: float, miss: float
) -> FromScores:
    """What is proved by scores of independent releases with and without a canary.

    The threshold is chosen on one half and counted on the other, so that choosing costs nothing.

    Args:
      present: [N] scores of releases with the canary; greater means more like it.
      absent: [M] without it.
      delta: at which epsilon is told.
      miss: as of `epsilon_bound`.

    Raises:
      UserError: fewer than 4 scores of a kind, one that is not finite, or an argument out of range.
    """
    for where, scores in (("present", present), ("absent", absent)):
        if len(scores) < 4 or not np.isfinite(scores).all():
            raise UserError(f"scores: {where}", "at least 4 finite numbers", scores)
    _check_miss(miss)
    chosen_on, counted_on = (present[::2], absent[::2]), (present[1::2], absent[1::2])
    for_mu = _counts(*counted_on, _best_threshold(*chosen_on, miss / 2, _shift))
    for_epsilon = _counts(
        *counted_on, _best_threshold(*chosen_on, miss / 2, partial(_log_ratio, delta=delta))
    )
    return FromScores(
        mu_bound(for_mu, miss / 2), epsilon_bound(for_epsilon, delta, miss / 2), for_mu, for_epsilon
    )


def one_run_bound(canaries: int, guesses: int, correct: int, *, delta: float, miss: float) -> float:
    """A lower bound on epsilon from one run (Steinke, Nasr and Jagielski, 2023, Theorem 5.2).

    Args:
      canaries: how many, each of them in the run by a fair coin of its own.
      guesses: for how many it was guessed, from what the run released, whether they are in. Their
        number is fixed beforehand.
      correct: how many guesses were right.
      delta: of the promise.
      miss: probability of a bound that is too high, in (0, 1).

    Raises:
      UserError: an argument is out of range.

    >>> round(one_run_bound(100, 100, 100, delta=0.0, miss=0.05), 2)
    3.49
    """
    if not 0 <= correct <= guesses <= canaries:
        got = f"{correct}, {guesses} and {canaries}"
        raise UserError("one_run_bound", "correct <= guesses <= canaries", got)
    if not 0 <= delta <= 1:
        raise UserError("delta", "a number in [0, 1]", delta)
    _check_miss(miss)
    if _p_value(canaries, guesses, correct, 0.0, delta) >= miss:
        return 0.0
    refuted_below = least(
        lambda epsilon: _p_value(canaries, guesses, correct, epsilon, delta) >= miss, _MOST
    )
    return refuted_below * (1 - 1e-9)


# --- what they share ------------------------------------------------------------------------------


def _check_miss(miss: float) -> None:
    if not 0 < miss < 1:
        raise UserError("miss", "a number between 0 and 1", miss)


def _limits(successes: np.ndarray, trials: int, miss: float) -> tuple[np.ndarray, np.ndarray]:
    failures = trials - successes
    low = special.betaincinv(np.maximum(successes, 1), failures + 1, miss)
    high = special.betaincinv(successes + 1, np.maximum(failures, 1), 1 - miss)
    return np.where(successes > 0, low, 0.0), np.where(failures > 0, high, 1.0)


def _rates(counts: Counts, miss: float) -> tuple[np.ndarray, np.ndarray]:
    """At least so many hits and at most so many false alarms; both hold but with probability `miss`."""
    _check_miss(miss)
    hit, _ = clopper_pearson(counts.true_positives, counts.positives, miss / 2)
    _, alarm = clopper_pearson(counts.false_positives, counts.negatives, miss / 2)
    return np.array(hit), np.array(alarm)


def _shift(hit: np.ndarray, alarm: np.ndarray) -> np.ndarray:
    """The mu that such rates prove; -inf where they prove nothing."""
    known = (hit > 0) & (alarm < 1)
    shift = special.ndtri(np.where(known, hit, 0.5)) - special.ndtri(np.where(known, alarm, 0.5))
    return np.where(known, shift, -math.inf)


def _log_ratio(hit: np.ndarray, alarm: np.ndarray, *, delta: float) -> np.ndarray:
    """The epsilon that such rates prove; -inf where they prove nothing."""
    ways = ((hit - delta, alarm), (1 - alarm - delta, 1 - hit))
    logs = [
        np.where(above > 0, np.log(np.maximum(above, 1e-300) / below), -math.inf)
        for above, below in ways
    ]
    return np.asarray(np.maximum(*logs))


def _counts(present: np.ndarray, absent: np.ndarray, threshold: float) -> Counts:
    hits, alarms = int((present > threshold).sum()), int((absent > threshold).sum())
    return Counts(hits, len(present), alarms, len(absent))


def _best_threshold(
    present: np.ndarray,
    absent: np.ndarray,
    miss: float,
    proved: Callable[[np.ndarray, np.ndarray], np.ndarray],
) -> float:
    """The threshold at which these scores prove most."""
    candidates = np.quantile(np.concatenate([present, absent]), np.linspace(0, 1, _THRESHOLDS))
    hit, _ = _limits((present[:, None] > candidates).sum(0), len(present), miss / 2)
    _, alarm = _limits((absent[:, None] > candidates).sum(0), len(absent), miss / 2)
    return float(candidates[np.argmax(proved(hit, alarm))])


def _gaussian_delta(mu: float, epsilon: float) -> float:
    ahead = special.log_ndtr(mu / 2 - epsilon / mu)
    behind = epsilon + special.log_ndtr(-mu / 2 - epsilon / mu)
    return math.exp(ahead) - math.exp(min(behind, 0.0))


def _p_value(canaries: int, guesses: int, correct: int, epsilon: float, delta: float) -> float:
    """The probability of so many correct guesses or more, at most, were it (epsilon, delta)-private."""
    q = special.expit(epsilon)
    chance = _binomial_tail(correct, guesses, q)
    if delta == 0 or correct == 0:
        return min(1.0, chance)
    below = np.cumsum(_binomial(np.arange(correct - 1, -1, -1), guesses, q))
    worst = float(np.max(below / np.arange(1, correct + 1)))
    return min(1.0, chance + 2 * canaries * delta * worst)


def _binomial(successes: np.ndarray, trials: int, q: float) -> np.ndarray:
    """P[Binomial(trials, q) = successes]."""
    failures = trials - successes
    ways = -special.betaln(successes + 1, failures + 1) - math.log(trials + 1)
    return np.exp(ways + special.xlogy(successes, q) + special.xlog1py(failures, -q))


def _binomial_tail(least: int, trials: int, q: float) -> float:
    """P[Binomial(trials, q) >= least]."""
    return 1.0 if least == 0 else float(special.betainc(least, trials - least + 1, q))


def least(holds: Callable[[float], bool], most: float) -> float:
    """The least number in [0, most] from which on it `holds`; `most` where it never does."""
    high = 1.0
    while not holds(high):
        high *= 2
        if high > most:
            return most
    low = 0.0 if high == 1.0 else high / 2
    for _ in range(60):
        middle = (low + high) / 2
        low, high = (low, middle) if holds(middle) else (middle, high)
    return high
