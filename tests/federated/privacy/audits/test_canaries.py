"""Audits of a whole run: the bound is valid, the estimate is near, and no noise at all is seen."""

import math

import msgspec
import numpy as np
import pytest

from federated.privacy.audits.bounds import gaussian_epsilon
from federated.privacy.audits.canaries import CanaryRun, client_canaries, estimate, two_normals
from federated.privacy.audits.one_run import canary_scores, one_run_audit
from lepton_jax import config
from lepton_jax.checks import UserError

DELTA = 1e-5
RUN = config.Run(
    federated=config.Federated(
        rounds=20,
        clients=12,
        clients_per_round=4,
        weights="uniform",
        sampling="poisson",
        randomness="reproducible",
        stages=(config.Clip(max_norm=0.2),),
        noise=config.Gaussian(multiplier=0.8),
    )
)


def unsampled(mu: float, rng: np.random.Generator) -> CanaryRun:
    """One release with noise of a deviation of 1/mu, of which every canary that is in is a part."""
    vectors = rng.normal(size=(400, 2000))
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    included = rng.random(400) < 0.5
    released = vectors[included].sum(0) + rng.normal(size=2000) / mu
    promised = gaussian_epsilon(mu, DELTA)
    return CanaryRun(vectors, included, released[None], promised, DELTA)


@pytest.mark.parametrize("mu", [0.5, 2.0])
def test_a_run_that_keeps_its_epsilon_rarely_fails(mu: float) -> None:
    rng = np.random.default_rng(0)
    verdicts = []
    for _ in range(20):
        found = unsampled(mu, rng)
        scores, promised = canary_scores(found), found.promised_epsilon
        verdicts.append(
            one_run_audit(scores, found.included, promised_epsilon=promised, delta=DELTA, miss=0.05)
        )
    assert sum(not each.passed for each in verdicts) <= 5
    assert mu < 1 or np.median([each.epsilon for each in verdicts]) > 0.8


def test_a_run_without_noise_fails_a_small_epsilon() -> None:
    found = unsampled(100.0, np.random.default_rng(1))
    verdict = one_run_audit(canary_scores(found), found.included, promised_epsilon=1.0, delta=DELTA)
    assert not verdict.passed
    assert verdict.epsilon > 2
    assert verdict.correct <= verdict.guesses <= verdict.canaries == 400


def test_scores_that_are_not_finite_are_refused() -> None:
    with pytest.raises(UserError, match=r"^scores"):
        one_run_audit(np.full(8, np.nan), np.ones(8, bool), promised_epsilon=1.0, delta=DELTA)


@pytest.mark.parametrize("mu", [0.5, 1.5])
def test_the_estimate_is_within_a_factor_of_2_of_the_truth(mu: float) -> None:
    rng = np.random.default_rng(2)
    told = np.median([estimate(unsampled(mu, rng)).final for _ in range(5)])
    assert 0.5 < told / gaussian_epsilon(mu, DELTA) < 2


@pytest.mark.parametrize("mu", [0.5, 3.0])
def test_two_normals_of_one_deviation_are_a_gaussian_mechanism(mu: float) -> None:
    assert two_normals((mu, 1.0), (0.0, 1.0), DELTA) == pytest.approx(
        gaussian_epsilon(mu, DELTA), rel=1e-3
    )


def test_two_normals_edges() -> None:
    assert two_normals((0.0, 1.0), (0.0, 1.0), DELTA) == 0
    assert two_normals((1.0, 0.0), (0.0, 1.0), DELTA) == math.inf
    assert two_normals((50.0, 1.0), (0.0, 1.0), DELTA) == math.inf


def test_a_canary_run_takes_the_run_s_sampler_and_promise() -> None:
    found = client_canaries(RUN, canaries=120)
    assert found.vectors.shape == (120, 1024)
    assert found.releases.shape == (20, 1024)
    assert 30 < found.included.sum() < 90
    again = client_canaries(
        msgspec.structs.replace(RUN, federated=msgspec.structs.replace(RUN.federated, rounds=10)),
        canaries=120,
    )
    assert 0 < again.promised_epsilon < found.promised_epsilon
    scores = canary_scores(found)
    gap = scores[found.included].mean() - scores[~found.included].mean()
    assert gap == pytest.approx(20 / 3, rel=0.3)  # each canary is in a third of the rounds
    verdict = one_run_audit(
        scores, found.included, promised_epsilon=found.promised_epsilon, delta=DELTA
    )
    assert verdict.passed
