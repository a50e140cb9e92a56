"""The noise has the deviation that it should have, and hides nothing of its own."""

import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from federated.privacy.noise import gaussian, make_noise
from lepton_jax import config
from lepton_jax.checks import UserError

ZEROS = {"bias": jnp.zeros(3000), "kernel": jnp.zeros((300, 400))}
KEY = jax.random.key(0)


@pytest.mark.parametrize(("multiplier", "bound"), [(1.0, 1.0), (0.5, 3.0), (4.0, 0.01)])
def test_the_deviation_is_the_multiplier_times_the_bound(multiplier: float, bound: float) -> None:
    noised = gaussian(multiplier, clients=10).add(ZEROS, bound, KEY)
    for leaf in jax.tree.leaves(noised):
        deviation = multiplier * bound
        # The deviation of n samples is off by deviation / sqrt(2n), their mean by / sqrt(n).
        assert np.std(leaf) == pytest.approx(deviation, abs=4 * deviation / (2 * leaf.size) ** 0.5)
        assert np.mean(leaf) == pytest.approx(0, abs=4 * deviation / leaf.size**0.5)


def test_noise_is_normal() -> None:
    noised = np.sort(np.ravel(gaussian(1.0, clients=1).add(ZEROS, 1.0, KEY)["kernel"]))
    normal = np.array([0.5 * (1 + math.erf(x / 2**0.5)) for x in noised[::100]])
    ranks = np.arange(0, noised.size, 100) / noised.size
    # Kolmogorov and Smirnov: larger than 1.95 / sqrt(n) in one of a thousand.
    assert np.abs(normal - ranks).max() < 1.95 / noised.size**0.5


def test_leaves_and_keys_have_noise_of_their_own() -> None:
    twins = {"a": jnp.zeros(500), "b": jnp.zeros(500)}
    add = gaussian(1.0, clients=1).add
    first, again, other = (add(twins, 1.0, jax.random.key(seed)) for seed in (0, 0, 1))
    assert np.array_equal(first["a"], again["a"])
    for x, y in ((first["a"], first["b"]), (first["a"], other["a"])):
        assert abs(np.corrcoef(x, y)[0, 1]) < 0.2


def test_a_multiplier_of_0_changes_nothing() -> None:
    total = {"a": jnp.arange(5.0)}
    assert np.array_equal(gaussian(0.0, clients=1).add(total, 7.0, KEY)["a"], total["a"])


@pytest.mark.parametrize("multiplier", [math.inf, -0.1, math.nan])
def test_a_multiplier_out_of_range_is_refused(multiplier: float) -> None:
    with pytest.raises(UserError, match=r"^gaussian: multiplier: expected a finite number of at"):
        gaussian(multiplier, clients=1)


def test_no_expected_clients_are_refused() -> None:
    with pytest.raises(UserError, match=r"^gaussian: clients: expected at least 1, got 0"):
        gaussian(1.0, clients=0)


def test_a_config_s_noise_divides_by_the_expected_clients() -> None:
    settings = config.Federated(
        clients_per_round=7,
        noise=config.Gaussian(multiplier=0.8),
        stages=(config.Clip(max_norm=1.0),),
        weights="uniform",
        sampling="poisson",
    )
    noise = make_noise(settings)
    assert noise is not None and (noise.multiplier, noise.clients) == (0.8, 7)
    assert make_noise(config.Federated()) is None
