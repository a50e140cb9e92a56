"""Lower bounds: of a mechanism that keeps its promise, they pass it as rarely as they say."""

import math
from functools import cache, partial

import numpy as np
import pytest
from scipy import stats

from federated.privacy.audits import bounds
from federated.privacy.audits.bounds import (
    Counts,
    clopper_pearson,
    epsilon_bound,
    from_scores,
    gaussian_epsilon,
    mu_bound,
    one_run_bound,
)
from lepton_jax.checks import UserError

NAN = math.nan


def at_most(rate: float, trials: int) -> int:
    """So many failures of probability `rate` are passed by chance once in 10,000 tests."""
    return int(stats.binom.ppf(1 - 1e-4, trials, rate))


def response(rng: np.random.Generator, truth: np.ndarray, epsilon: float) -> np.ndarray:
    """Randomized response, which is exactly epsilon-private: the truth, or its opposite."""
    honest = rng.random(len(truth)) < 1 / (1 + math.exp(-epsilon))
    return np.where(honest, truth, ~truth)


@pytest.mark.parametrize("rate", [0.001, 0.2, 0.97])
def test_each_limit_is_wrong_as_rarely_as_it_says(rate: float) -> None:
    counts = np.random.default_rng(0).binomial(200, rate, size=3000)
    limits = [clopper_pearson(int(count), 200, 0.05) for count in counts]
    assert sum(low > rate for low, _ in limits) <= at_most(0.05, 3000)
    assert sum(high < rate for _, high in limits) <= at_most(0.05, 3000)


def test_the_limits_are_those_of_the_binomial_distribution() -> None:
    low, high = clopper_pearson(7, 40, 0.025)
    assert stats.binom.sf(6, 40, low) == pytest.approx(0.025)
    assert stats.binom.cdf(7, 40, high) == pytest.approx(0.025)


@pytest.mark.parametrize("epsilon", [0.0, 0.7, 3.0])
def test_randomized_response_passes_its_epsilon_as_rarely_as_the_bound_says(epsilon: float) -> None:
    rng, yes, no = np.random.default_rng(1), np.ones(300, bool), np.zeros(300, bool)

    def bound() -> float:
        hits, alarms = response(rng, yes, epsilon).sum(), response(rng, no, epsilon).sum()
        return epsilon_bound(Counts(int(hits), 300, int(alarms), 300), 0.0, 0.05)

    found = [bound() for _ in range(2000)]
    assert sum(each > epsilon for each in found) <= at_most(0.05, 2000)
    assert np.median(found) >= 0.5 * epsilon


@pytest.mark.parametrize(("epsilon", "delta"), [(0.5, 0.0), (2.0, 0.0), (1.0, 1e-3)])
def test_one_run_of_randomized_response_passes_its_epsilon_as_rarely(
    epsilon: float, delta: float
) -> None:
    rng = np.random.default_rng(2)
    proved = cache(partial(one_run_bound, 400, 400, delta=delta, miss=0.05))

    def bound() -> float:
        truth = rng.random(400) < 0.5
        leaked = rng.random(400) < delta
        said = np.where(leaked, truth, response(rng, truth, epsilon))
        return proved(int((said == truth).sum()))

    found = [bound() for _ in range(1000)]
    assert sum(each > epsilon for each in found) <= at_most(0.05, 1000)
    assert np.median(found) > 0.4 * epsilon


def test_one_run_s_p_value_is_that_of_the_paper_s_program() -> None:
    def slow(m: int, r: int, v: int, epsilon: float, delta: float) -> float:
        q, worst, below = 1 / (1 + math.exp(-epsilon)), 0.0, 0.0
        for i in range(1, v + 1):
            below += stats.binom.pmf(v - i, r, q)
            worst = max(worst, below / i)
        return min(1.0, stats.binom.sf(v - 1, r, q) + worst * delta * 2 * m)

    for case in [(1000, 200, 150, 0.5, 1e-5), (100, 100, 99, 3.0, 1e-3), (10, 10, 10, 2.0, 1e-3)]:
        assert bounds._p_value(*case) == pytest.approx(slow(*case), rel=1e-9)


@pytest.mark.parametrize("mu", [0.3, 1.0, 3.0])
def test_gaussian_scores_pass_neither_their_mu_nor_their_epsilon(mu: float) -> None:
    rng, epsilon = np.random.default_rng(3), gaussian_epsilon(mu, 1e-2)

    def bound() -> bounds.FromScores:
        present, absent = rng.normal(mu, 1, 400), rng.normal(0, 1, 400)
        return from_scores(present, absent, delta=1e-2, miss=0.05)

    found = [bound() for _ in range(500)]
    wrong = sum(each.mu > mu or each.epsilon > epsilon for each in found)
    assert wrong <= at_most(0.05, 500)
    assert np.median([each.mu for each in found]) >= 0.7 * mu - 0.25


def test_scores_without_noise_prove_more_than_their_number_allows_noise() -> None:
    found = from_scores(np.ones(2000), np.zeros(2000), delta=1e-5, miss=0.01)
    assert found.mu > 4.5
    assert found.epsilon > 4.5


@pytest.mark.parametrize(
    ("mu", "delta", "epsilon"),
    [(1.0, 1e-5, 4.3772), (0.5, 1e-6, 2.2541), (0.0, 1e-5, 0.0), (2.0, 1.0, 0.0)],
)
def test_gaussian_epsilon_is_exact(mu: float, delta: float, epsilon: float) -> None:
    found = gaussian_epsilon(mu, delta)
    assert found == pytest.approx(epsilon, abs=1e-4)
    if found > 0:
        law = stats.norm.cdf(mu / 2 - found / mu) - math.exp(found) * stats.norm.cdf(
            -mu / 2 - found / mu
        )
        assert law == pytest.approx(delta, rel=1e-6)


def test_without_delta_or_noise_gaussian_epsilon_is_infinite() -> None:
    assert gaussian_epsilon(1.0, 0.0) == math.inf == gaussian_epsilon(math.inf, 1e-5)


# --- edges ----------------------------------------------------------------------------------------


def test_chance_proves_nothing() -> None:
    even = Counts(50, 100, 50, 100)
    assert epsilon_bound(even, 1e-5, 0.05) == 0 == mu_bound(even, 0.05)
    assert one_run_bound(100, 0, 0, delta=0.0, miss=0.05) == 0
    assert one_run_bound(100, 100, 50, delta=0.0, miss=0.05) == 0
    same = np.zeros(100)
    assert from_scores(same, same, delta=1e-5, miss=0.05)[:2] == (0.0, 0.0)
    assert epsilon_bound(Counts(0, 0, 0, 0), 1e-5, 0.05) == 0


def test_every_guess_right_proves_something_finite() -> None:
    assert 2 < epsilon_bound(Counts(100, 100, 0, 100), 0.0, 0.05) < 10
    assert 2 < mu_bound(Counts(100, 100, 0, 100), 0.05) < 10
    assert 2 < one_run_bound(100, 100, 100, delta=1e-9, miss=0.05) < 10


def test_delta_1_promises_nothing() -> None:
    assert epsilon_bound(Counts(100, 100, 0, 100), 1.0, 0.05) == 0
    assert one_run_bound(100, 100, 100, delta=1.0, miss=0.05) == 0


@pytest.mark.parametrize(
    ("call", "where"),
    [
        (lambda: clopper_pearson(3, 2, 0.05), "successes"),
        (lambda: clopper_pearson(1, 2, NAN), "miss"),
        (lambda: epsilon_bound(Counts(1, 2, 1, 2), NAN, 0.05), "delta"),
        (lambda: epsilon_bound(Counts(1, 2, 1, 2), 1e-5, 0.0), "miss"),
        (lambda: mu_bound(Counts(1, 2, 3, 2), 0.05), "successes"),
        (lambda: one_run_bound(10, 11, 5, delta=0.0, miss=0.05), "one_run_bound"),
        (lambda: one_run_bound(10, 5, 5, delta=-1.0, miss=0.05), "delta"),
        (lambda: one_run_bound(10, 5, 5, delta=0.0, miss=1.0), "miss"),
        (lambda: gaussian_epsilon(NAN, 1e-5), "mu"),
        (lambda: gaussian_epsilon(1.0, 2.0), "delta"),
        (lambda: from_scores(np.full(9, NAN), np.zeros(9), delta=0.0, miss=0.1), "scores: present"),
        (lambda: from_scores(np.zeros(9), np.zeros(3), delta=0.0, miss=0.1), "scores: absent"),
    ],
)
def test_what_is_out_of_range_is_refused(call, where: str) -> None:  # type: ignore[no-untyped-def]
    with pytest.raises(UserError, match=f"^{where}"):
        call()
