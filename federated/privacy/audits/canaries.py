"""Canaries in a whole run: vectors that nobody else has, each of them in or out by a fair coin.

One run of the rounds serves two audits: a valid bound (`one_run`), and here an *estimate* of epsilon
from how far the canaries' cosines with what was released lie from those of canaries that were left
out (Andrew et al., 2023). It takes cosines for normal and errs by the chance of a few hundred of them,
so that it may lie above the promise of a correct run as well as below.
"""

import math
from typing import NamedTuple

import msgspec
import numpy as np

from federated.privacy.audits.bounds import least
from federated.privacy.audits.mechanisms import Mechanism, as_simulated, of_clients, of_examples
from federated.privacy.promise import promise
from federated.sampling import make_sampler
from lepton_jax import config
from lepton_jax.data.batches import seeded_choice, steps_per_epoch
from lepton_jax.privacy.accounting import epsilon
from lepton_jax.privacy.entropy import secure_source
from lepton_jax.training.private_run import secure_choice

_LOUD = 1e3  # times the bound
_MOST = 100.0  # of an epsilon: more can't be told from the tails of a few hundred cosines
_ROUNDS, _NUMBERS = 100, 1024


class CanaryRun(NamedTuple):
    """The releases of a run whose only units were canaries.

    Attributes:
      vectors: [M,D] unit vectors.
      included: [M] which took part.
      releases: [R,D].
      promised_epsilon: of R rounds with this sampler, by accounting.
      delta: at which it is told.
    """

    vectors: np.ndarray
    included: np.ndarray
    releases: np.ndarray
    promised_epsilon: float
    delta: float


class Estimate(NamedTuple):
    """Epsilon as two normal distributions of cosines have it; no bound.

    Attributes:
      final: from the sum of all releases, which the final model shows.
      iterates: from each canary's greatest cosine with any release.
      delta: at which they are told.
    """

    final: float
    iterates: float
    delta: float


def client_canaries(run: config.Run, *, canaries: int = 512, seed: int = 0) -> CanaryRun:
    """The first 100 rounds of a federated config with noise, on clients that are canaries.

    They are chosen by the run's own sampler, at nearly the run's rate: at that at which so many are
    chosen in a round, or are expected to be, as make a whole number.

    Args:
      run: with `federated.noise`.
      canaries: M; no more than the run has clients where noise comes in parts from all of them.
      seed: of vectors, coins, selection and noise.
    """
    federated = as_simulated(run.federated)
    if isinstance(federated.noise, config.Distributed):
        canaries = min(canaries, federated.clients)
    expected = max(1, canaries * federated.clients_per_round // federated.clients)
    changed = msgspec.structs.replace(
        federated,
        clients=canaries,
        clients_per_round=expected,
        rounds=min(_ROUNDS, federated.rounds),
        regions=("all",),
    )
    sampler = make_sampler(changed, seed)
    promised = promise(changed, sampler, 0.0)
    if promised is None:
        raise ValueError("there is no noise to audit")
    numbers = range(1, changed.rounds + 1)
    spent = promised.spent(sum(promised.releases(number, False) for number in numbers))
    mechanism = of_clients(msgspec.structs.replace(run, federated=changed), _NUMBERS)
    chosen = [sampler.sample(number) for number in numbers]
    return _run(mechanism, chosen, (canaries, seed), (spent, changed.delta))


def example_canaries(
    run: config.Run, multiplier: float, *, rate: float, canaries: int = 512, seed: int = 0
) -> CanaryRun:
    """The first 100 steps of a central config with noise, on examples that are canaries.

    Args:
      run: with `train.privacy`.
      multiplier: of its noise.
      rate: the probability of an example in a batch; nearly that is taken, as of `client_canaries`.
      canaries: M.
      seed: of vectors, coins, selection and noise.
    """
    settings = run.train.privacy
    if settings is None:
        raise ValueError("there is no noise to audit")
    expected = max(1, round(rate * canaries))
    mechanism = of_examples(settings, multiplier, batch_size=expected, numbers=_NUMBERS)
    chosen = _batches(settings, canaries, expected, seed)
    spent = epsilon(
        sampling_rate=expected / canaries,
        noise_multiplier=multiplier,
        steps=len(chosen),
        delta=settings.delta,
        accountant=settings.accountant,
        adjacency=settings.adjacency,
    )
    return _run(mechanism, chosen, (canaries, seed), (spent, settings.delta))


def estimate(found: CanaryRun) -> Estimate:
    """Epsilon by the cosines of the canaries that took part and of those that did not.

    Args:
      found: a run with canaries of both kinds.
    """
    each = _cosines(found.releases, found.vectors)
    final = _cosines(found.releases.sum(0, keepdims=True), found.vectors)[0]

    def told(scores: np.ndarray) -> float:
        present, absent = scores[found.included], scores[~found.included]
        one, other = ((float(x.mean()), float(x.std(ddof=1))) for x in (present, absent))
        return two_normals(one, other, found.delta)

    return Estimate(told(final), told(each.max(axis=0)), found.delta)


def two_normals(one: tuple[float, float], other: tuple[float, float], delta: float) -> float:
    """The epsilon at delta of telling two normal distributions apart, by numerical integration.

    Args:
      one: mean and deviation.
      other: likewise.
      delta: in (0, 1).

    Returns:
      Infinite where it is above 100 or a deviation is 0.

    >>> round(two_normals((1.0, 1.0), (0.0, 1.0), 1e-5), 2)
    4.38
    """
    (m, s), (n, t) = one, other
    if min(s, t) <= 0:
        return math.inf
    low, high = min(m - 9 * s, n - 9 * t), max(m + 9 * s, n + 9 * t)
    x = np.linspace(low, high, 20_001)
    log_p = -0.5 * ((x - m) / s) ** 2 - math.log(s * math.sqrt(2 * math.pi))
    log_q = -0.5 * ((x - n) / t) ** 2 - math.log(t * math.sqrt(2 * math.pi))
    p, q, loss, width = np.exp(log_p), np.exp(log_q), log_p - log_q, x[1] - x[0]

    def holds(epsilon: float) -> bool:
        ahead = -np.expm1(np.minimum(epsilon - loss, 0.0)) @ p
        behind = -np.expm1(np.minimum(epsilon + loss, 0.0)) @ q
        return bool(max(ahead, behind) * width <= delta)

    if holds(0.0):
        return 0.0
    found = least(holds, _MOST)
    return math.inf if found >= _MOST else found


def _cosines(releases: np.ndarray, vectors: np.ndarray) -> np.ndarray:
    lengths = np.linalg.norm(releases, axis=1, keepdims=True)
    return (releases / np.where(lengths > 0, lengths, 1.0)) @ vectors.T


def _run(
    mechanism: Mechanism,
    chosen: list[np.ndarray],
    canaries_and_seed: tuple[int, int],
    promised: tuple[float, float],
) -> CanaryRun:
    canaries, seed = canaries_and_seed
    rng = np.random.default_rng([seed, 77])
    vectors = rng.normal(size=(canaries + 1, mechanism.numbers))
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    vectors[-1] = 0  # who is there in place of a canary that is not
    included = rng.random(canaries) < 0.5
    if mechanism.replaced:
        rows = [np.where(included[each], each, canaries) for each in chosen]
    else:
        rows = [each[included[each]] for each in chosen]
    width = max(1, *(len(each) for each in rows))
    members = np.stack([np.pad(each, (0, width - len(each)), constant_values=-1) for each in rows])
    (released,) = mechanism.releases(_LOUD * vectors, members, 1, seed)
    return CanaryRun(vectors[:-1], included, released.astype(np.float64), *promised)


def _batches(settings: config.Privacy, canaries: int, expected: int, seed: int) -> list[np.ndarray]:
    """The rows of successive batches."""
    if settings.randomness == "secure":
        choose = secure_choice(secure_source(), canaries, expected / canaries)
    else:
        choose = seeded_choice(canaries, expected, seed=seed)
    steps = steps_per_epoch(canaries, expected)
    return [choose(1 + number // steps, number % steps) for number in range(_ROUNDS)]
