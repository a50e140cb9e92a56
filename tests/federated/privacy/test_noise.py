"""The noise has the deviation that it should have, and hides nothing of its own."""

import math
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from federated.privacy.client_noise import distributed, local
from federated.privacy.ftrl import banded, tree
from federated.privacy.make import make_noise
from federated.privacy.noise import MOST_SUM, Noise, gaussian
from federated.privacy.promise import promise
from federated.sampling import make_sampler
from lepton_jax import config
from lepton_jax.checks import UserError
from lepton_jax.privacy.entropy import seeded_source
from lepton_jax.typing import PyTree

LIKE = {"bias": jnp.zeros(3000), "kernel": jnp.zeros((300, 400))}
SECURE = config.Secure()

KINDS: dict[str, Callable[..., Noise]] = {
    "gaussian": gaussian,
    "tree": lambda m, clients, most=4096: tree(m, clients, 4, most),
    "banded": lambda m, clients, most=4096: banded(m, clients, 4, 2, most),
    "local": local,
    "distributed": lambda m, clients, most=4096: distributed(m, clients, SECURE, most),
}


def zeros(like: PyTree) -> PyTree:
    return jax.tree.map(lambda x: jnp.zeros(x.shape, jnp.int32), like)


def noised(noise: Noise, bound: float, like: PyTree = LIKE, seed: int = 0) -> PyTree:
    """A sum of zeros with the first round's noise, in the units of the bound."""
    grid = noise.grid(bound)
    drawn = noise.draw(grid, like, seeded_source(seed), 1, 1)
    out, _ = noise.add(noise.init(like), zeros(like), drawn.server)
    assert {x.dtype for x in jax.tree.leaves(out)} == {np.dtype(np.int32)}
    return jax.tree.map(lambda x: np.asarray(x, np.float64) * grid.unit, out)


@pytest.mark.parametrize(("multiplier", "bound"), [(1.0, 1.0), (0.5, 3.0), (4.0, 0.01)])
def test_the_deviation_is_the_multiplier_times_the_bound(multiplier: float, bound: float) -> None:
    for leaf in jax.tree.leaves(noised(gaussian(multiplier, clients=10), bound)):
        deviation = multiplier * bound
        # The deviation of n samples is off by deviation / sqrt(2n), their mean by / sqrt(n).
        assert np.std(leaf) == pytest.approx(deviation, abs=4 * deviation / (2 * leaf.size) ** 0.5)
        assert np.mean(leaf) == pytest.approx(0, abs=4 * deviation / leaf.size**0.5)


def test_noise_is_normal() -> None:
    found = np.sort(np.ravel(noised(gaussian(1.0, clients=1), 1.0)["kernel"]))
    normal = np.array([0.5 * (1 + math.erf(x / 2**0.5)) for x in found[::100]])
    ranks = np.arange(0, found.size, 100) / found.size
    # Kolmogorov and Smirnov: larger than 1.95 / sqrt(n) in one of a thousand.
    assert np.abs(normal - ranks).max() < 1.95 / found.size**0.5


def test_leaves_and_sources_have_noise_of_their_own() -> None:
    twins = {"a": jnp.zeros(500), "b": jnp.zeros(500)}
    noise = gaussian(1.0, clients=1)
    first, again, other = (noised(noise, 1.0, twins, seed) for seed in (0, 0, 1))
    assert np.array_equal(first["a"], again["a"])
    for x, y in ((first["a"], first["b"]), (first["a"], other["a"])):
        assert abs(np.corrcoef(x, y)[0, 1]) < 0.2


def test_noise_is_added_to_the_sum_and_nothing_else_is() -> None:
    noise = gaussian(1.0, clients=1)
    total = jax.tree.map(lambda x: x + jnp.int32(12345), zeros(LIKE))
    drawn = noise.draw(noise.grid(1.0), LIKE, seeded_source(0), 1, 1)
    assert drawn.clients == ()
    out, state = noise.add(noise.init(LIKE), total, drawn.server)
    for name in LIKE:
        assert np.array_equal(np.asarray(out[name]) - 12345, drawn.server[name])
    assert state == noise.init(LIKE)


# --- what no kind of noise can be made of ---------------------------------------------------------


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("multiplier", [0.0, math.inf, -0.1, math.nan])
def test_a_multiplier_out_of_range_is_refused(kind: str, multiplier: float) -> None:
    with pytest.raises(UserError, match=rf"^{kind}: multiplier: expected a finite number above 0"):
        KINDS[kind](multiplier, clients=1)


@pytest.mark.parametrize("kind", KINDS)
def test_no_expected_clients_are_refused(kind: str) -> None:
    with pytest.raises(UserError, match=rf"^{kind}: clients: expected at least 1, got 0"):
        KINDS[kind](1.0, clients=0)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("bound", [0.0, -1.0, math.inf, math.nan])
def test_a_bound_out_of_range_has_no_grid(kind: str, bound: float) -> None:
    with pytest.raises(UserError, match=r"^clip_norm: expected a finite number above 0"):
        KINDS[kind](1.0, clients=1).grid(bound)


# --- no sum wraps ---------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("multiplier", [0.3, 1.0, 20.0])
@pytest.mark.parametrize("most", [1, 100, 4000])
def test_no_sum_wraps_even_if_all_is_at_its_greatest(
    kind: str, multiplier: float, most: int
) -> None:
    noise = KINDS[kind](multiplier, clients=1, most=most)
    try:
        grid = noise.grid(1.0)
    except UserError as error:
        assert (kind, most) == ("distributed", 4000), error
        return
    assert noise.most == most
    reach = math.ceil(13.5 * grid.deviation)
    by_clients = kind in ("local", "distributed")
    total = most * (grid.bound + (reach if by_clients else 0))
    assert total <= MOST_SUM
    if kind == "banded":
        reach = math.ceil(13.5 * multiplier * (2**0.5 * grid.bound + 1.25 * 2**0.5) + 1)
    like = {"a": jnp.zeros(1)}
    state = noise.init(like)
    for sign in (-1, -1, -1, 1):  # the last completes all nodes of the tree
        server = () if by_clients else {"a": jnp.full(1, sign * reach, jnp.int32)}
        out, state = noise.add(state, {"a": jnp.full(1, total, jnp.int32)}, server)
        low = total - (0 if by_clients else 3 * reach)
        high = total + (0 if by_clients else 4 * reach)
        assert high <= MOST_SUM
        assert low <= int(out["a"][0]) <= high
    if kind == "tree":
        assert int(out["a"][0]) == total + 3 * reach


# --- from a config --------------------------------------------------------------------------------


def made(**changes: Any) -> Noise | None:
    settings = config.Federated(
        **{
            "clients": 30,
            "clients_per_round": 7,
            "rounds": 10,
            "noise": config.Gaussian(multiplier=0.8),
            "stages": (config.Clip(max_norm=1.0),),
            "weights": "uniform",
            "sampling": "poisson",
            **changes,
        }
    )
    sampler = make_sampler(settings, 0)
    promised = promise(settings, sampler, 1.0)
    return None if promised is None else make_noise(settings, promised.terms, sampler)


@pytest.mark.parametrize(
    ("changes", "name"),
    [
        ({}, "gaussian noise"),
        ({"noise": config.Tree(multiplier=0.8), "sampling": "cyclic"}, "tree noise"),
        ({"noise": config.Banded(multiplier=0.8, bands=3), "sampling": "cyclic"}, "banded noise"),
        ({"noise": config.Local(multiplier=0.8), "sampling": "fixed"}, "local noise"),
        (
            {
                "noise": config.Distributed(multiplier=0.8),
                "channel": config.Secure(),
                "accountant": "rdp",
            },
            "distributed noise",
        ),
    ],
)
def test_a_config_s_noise_is_made_for_its_cohorts(changes: dict[str, Any], name: str) -> None:
    noise = made(**changes)
    assert noise is not None
    # No more clients than there are can be in a sum; the mean is that of the expected number.
    assert (noise.name, noise.multiplier, noise.clients, noise.most) == (name, 0.8, 7, 30)


def test_a_config_s_passes_and_bands_reach_the_noise() -> None:
    like = {"a": jnp.zeros(2)}
    grown = made(noise=config.Tree(multiplier=0.8), sampling="cyclic")
    assert grown is not None and grown.init(like)["nodes"]["a"].shape == (3, 2)  # a pass of 5
    wide = made(noise=config.Banded(multiplier=0.8, bands=4), sampling="cyclic")
    assert wide is not None and wide.init(like)["a"].shape == (3, 2)


def test_noise_meant_for_more_clients_is_as_much_smaller_as_the_cohort_is() -> None:
    noise = made(hypothetical=config.Hypothetical(clients=3000, clients_per_round=700))
    assert noise is not None
    assert (noise.multiplier, noise.clients) == (pytest.approx(0.008), 7)


def test_a_config_without_noise_has_none() -> None:
    nothing = config.Federated(rounds=2)
    assert promise(nothing, make_sampler(nothing, 0), 0.0) is None
