"""A clip that follows the clients' norms: bounded whatever comes, and Andrew et al.'s update."""

import math
from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from federated.aggregate import aggregate
from federated.channel import plain
from federated.client import Update
from federated.privacy.noise import Drawn, gaussian, side_by_side
from federated.stages import adaptive_clip, chain, clip, make_stage, rotate
from lepton_jax import config, metrics
from lepton_jax.privacy.entropy import seeded_source
from lepton_jax.typing import PyTree, Variables

SETTINGS = config.AdaptiveClip(initial=0.5, quantile=0.7, learning_rate=0.3, share=0.1)
STAGE = adaptive_clip(SETTINGS)
ENCODE = jax.jit(STAGE.encode)

floats = st.floats(width=32, allow_nan=True, allow_infinity=True)
BOTH = chain(adaptive_clip(SETTINGS), rotate(0))
ENCODE_BOTH = jax.jit(BOTH.encode)


def tree(*values: float) -> PyTree:
    return {"a": jnp.array(values[:1], jnp.float32), "b": jnp.array(values[1:], jnp.float32)}


def at(norm: float) -> PyTree:
    return {"norm": jnp.float32(norm)}


def length(message: PyTree) -> float:
    flat = np.concatenate([np.ravel(x).astype(np.float64) for x in jax.tree.leaves(message)])
    return float(np.sqrt((flat**2).sum()))


def told_below(message: PyTree) -> bool:
    assert abs(float(message["below"])) == pytest.approx(SETTINGS.share)
    return float(message["below"]) > 0


# --- the bound ------------------------------------------------------------------------------------


@settings(deadline=None, max_examples=100)
@given(values=st.lists(floats, min_size=5, max_size=5), norm=st.floats(2.0**-100, 2.0**100))
def test_whatever_comes_the_norm_of_what_leaves_is_at_most_1(values: Any, norm: float) -> None:
    message, _ = ENCODE(at(norm), tree(*values))
    assert length(message) <= STAGE.bound(math.inf) == 1.0
    rotated, _ = ENCODE_BOTH((at(norm), ()), tree(*values))
    assert length(rotated) <= BOTH.bound(math.inf) == 1 + 2**-12


@pytest.mark.parametrize("size", [1000, 1_000_000])
@pytest.mark.parametrize("share", [0.01, 0.5, 0.99])
def test_the_bound_holds_for_large_updates_and_is_not_wasted(size: int, share: float) -> None:
    stage = adaptive_clip(config.AdaptiveClip(share=share))
    values = np.random.default_rng(0).standard_normal(size)
    for below in (False, True):
        norm = float(np.linalg.norm(values)) * (1.0001 if below else 0.5)
        message, _ = jax.jit(stage.encode)(at(norm), {"w": jnp.array(values, jnp.float32)})
        assert 0.999 <= length(message) <= 1.0


def test_a_chain_takes_the_bound_of_its_last_stages() -> None:
    assert chain(clip(3.0), adaptive_clip(SETTINGS)).bound(math.inf) == 1.0
    assert chain(adaptive_clip(SETTINGS), clip(0.5)).bound(math.inf) == 0.5
    assert make_stage(config.AdaptiveClip()).bound(math.inf) == 1.0


# --- the table of edges ---------------------------------------------------------------------------


@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
def test_an_update_that_is_not_finite_is_zero_and_told_as_above(bad: float) -> None:
    message, counts = ENCODE(at(0.5), tree(0.1, bad, 0.1))
    assert length(message["update"]) == 0 and not told_below(message)
    assert jax.tree.map(int, counts) == {"clipped": 0, "discarded": 1}


def test_an_update_whose_norm_overflows_is_scaled_and_told_as_above() -> None:
    message, counts = ENCODE(at(0.5), tree(1.8e38, 2.4e38))
    kept = math.sqrt(1 - 0.1**2)
    np.testing.assert_allclose(message["update"]["a"], [0.6 * kept], rtol=1e-5)
    np.testing.assert_allclose(message["update"]["b"], [0.8 * kept], rtol=1e-5)
    assert not told_below(message)
    assert jax.tree.map(int, counts) == {"clipped": 1, "discarded": 0}


def test_a_zero_update_is_zero_and_told_as_below() -> None:
    message, counts = ENCODE(at(0.5), tree(0.0, 0.0))
    assert length(message["update"]) == 0 and told_below(message)
    assert jax.tree.map(int, counts) == {"clipped": 0, "discarded": 0}


def test_no_update_at_all_moves_the_norm_as_if_half_were_below() -> None:
    shapes = tree(0.0, 0.0)
    mean = {"below": jnp.float32(0), "update": shapes}
    _, state = STAGE.decode(at(0.5), mean, shapes)
    assert float(state["norm"]) == pytest.approx(0.5 * math.exp(-0.3 * (0.5 - 0.7)))
    median = adaptive_clip(config.AdaptiveClip(quantile=0.5))
    assert float(median.decode(at(0.5), mean, shapes)[1]["norm"]) == 0.5


def test_the_first_norm_is_the_config_s() -> None:
    assert float(STAGE.init(tree(0.0))["norm"]) == 0.5


# --- against the paper ----------------------------------------------------------------------------


def andrew_et_al(updates: Sequence[np.ndarray], rounds: int) -> tuple[list[np.ndarray], float]:
    """Algorithm 1 of Andrew et al. (2021) without noise, in float64: the mean updates and C."""
    norm, means = SETTINGS.initial, []
    for _ in range(rounds):
        clipped = [u * min(1.0, norm / np.linalg.norm(u)) for u in updates]
        means.append(np.mean(clipped, axis=0))
        below = np.mean([np.linalg.norm(u) <= norm for u in updates])
        norm *= math.exp(-SETTINGS.learning_rate * (below - SETTINGS.quantile))
    return means, norm


@pytest.mark.parametrize("rotated", [False, True])
def test_without_noise_it_is_the_paper_s_update(rotated: bool) -> None:
    rng = np.random.default_rng(1)
    updates = [rng.standard_normal(7) * size for size in (0.1, 0.2, 0.4, 0.9, 1.3)]
    stages = [adaptive_clip(SETTINGS), *([rotate(3)] if rotated else [])]
    aggregator = aggregate(stages, plain(), None)
    variables = Variables({"w": jnp.zeros(7)}, {})
    encode, decode = jax.jit(aggregator.encode), jax.jit(aggregator.decode)
    state, means = aggregator.init(variables), []
    for _ in range(6):
        sent = [
            encode(state, Update({"w": jnp.array(u, jnp.float32)}, {}, metrics.zero_tally()),
                   jnp.float32(1), ())
            for u in updates
        ]  # fmt: skip
        total = jax.tree.map(lambda *x: sum(x[1:], start=x[0]), *sent)
        mean, state, _ = decode(state, total, Drawn(), variables)
        means.append(np.asarray(mean.params["w"]))
    expected, norm = andrew_et_al(updates, 6)
    np.testing.assert_allclose(means, expected, rtol=1e-4, atol=1e-6)
    assert float(state.stages[0]["norm"]) == pytest.approx(norm, rel=1e-5)


def test_the_norm_settles_where_the_quantile_of_the_norms_is() -> None:
    norms = np.linspace(0.2, 4.0, 40)

    @jax.jit
    def follow(state: PyTree, _: None) -> tuple[PyTree, jax.Array]:
        sent = jax.vmap(lambda x: STAGE.encode(state, {"w": x[None]})[0])(
            jnp.array(norms, jnp.float32)
        )
        mean = jax.tree.map(lambda x: jnp.mean(x, axis=0), sent)
        return STAGE.decode(state, mean, {"w": jnp.zeros(1)})[1], state["norm"]

    for first in (0.01, 50.0):
        last, _ = jax.lax.scan(follow, at(first), None, length=200)
        assert float(last["norm"]) == pytest.approx(np.quantile(norms, 0.7), rel=0.06)


def test_with_noise_the_count_is_as_noisy_as_said() -> None:
    multiplier, clients, rounds = 1.5, 20, 600
    noise = gaussian(multiplier, clients, most=20)
    aggregator = aggregate([STAGE], plain(), noise)
    variables = Variables({"w": jnp.zeros(3)}, {})
    state = aggregator.init(variables)
    update = Update({"w": jnp.array([0.3, 0.0, 0.0])}, {}, metrics.zero_tally())
    message = jax.jit(aggregator.encode)(state, update, jnp.float32(1), ())
    total = jax.tree.map(lambda x: x * clients, message)  # all of them below
    drawn = noise.draw(noise.grid(1.0), side_by_side(message.delta, rounds), seeded_source(0), 1, 1)
    drawn = drawn._replace(expected=np.full(rounds, clients, np.float32))
    decode = jax.jit(jax.vmap(aggregator.decode, in_axes=(None, None, 0, None)))
    mean, after, _ = decode(state, total, drawn, variables)
    factors = np.asarray(after.stages[0]["norm"], np.float64) / SETTINGS.initial
    fractions = SETTINGS.quantile - np.log(factors) / SETTINGS.learning_rate
    means = np.asarray(mean.params["w"])
    off = 4 / math.sqrt(2 * rounds)
    count = multiplier / (2 * SETTINGS.share)  # sigma_b of the paper
    assert np.std(fractions) == pytest.approx(count / clients, rel=off)
    assert np.mean(fractions) == pytest.approx(1, abs=4 * count / clients / math.sqrt(rounds))
    updates = multiplier / math.sqrt(1 - SETTINGS.share**2)  # z_delta
    spread = np.std(means, axis=0)
    assert spread == pytest.approx(np.full(3, updates * 0.5 / clients), rel=off)
    np.testing.assert_allclose(means.mean(axis=0)[0], 0.3, atol=0.02)
