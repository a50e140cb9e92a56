"""Every stage keeps its bound, and clip does what its table says, row by row."""

import math
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from federated.stages import Stage, chain, clip, make_stage
from lepton_jax import config
from lepton_jax.checks import UserError
from lepton_jax.typing import PyTree

floats = st.floats(width=32, allow_nan=True, allow_infinity=True)
updates = st.fixed_dictionaries(
    {
        "bias": st.lists(floats, min_size=3, max_size=3),
        "kernel": st.lists(floats, min_size=8, max_size=8),
    }
)


def norm(update: PyTree) -> float:
    """In float64, scaled against overflow."""
    flat = np.concatenate([np.ravel(x).astype(np.float64) for x in jax.tree.leaves(update)])
    return float(np.sqrt((flat**2).sum()))


def encoded(stage: Stage, update: PyTree) -> tuple[PyTree, Any]:
    return stage.encode(stage.init(update), update)


def tree(*values: float) -> PyTree:
    return {"a": jnp.array(values[:1], jnp.float32), "b": jnp.array(values[1:], jnp.float32)}


def check_bound(stage: Stage, update: PyTree) -> None:
    out, _ = encoded(stage, update)
    assert all(np.isfinite(x).all() for x in jax.tree.leaves(out))
    assert norm(out) <= stage.bound(norm(update) if math.isfinite(norm(update)) else math.inf)


@settings(deadline=None, max_examples=60)
@given(update=updates, max_norm=st.floats(1e-6, 1e6), other=st.floats(1e-6, 1e6))
def test_every_stage_keeps_its_bound(update: Any, max_norm: float, other: float) -> None:
    arrays = {name: jnp.array(x, jnp.float32) for name, x in update.items()}
    for stage in (clip(max_norm), chain(clip(max_norm), clip(other))):
        check_bound(stage, arrays)


@pytest.mark.parametrize("size", [100_000, 1_663_370])
def test_the_bound_holds_for_large_updates_too(size: int) -> None:
    rng = np.random.default_rng(0)
    for values in (np.full(size, 0.7), rng.standard_normal(size), np.sort(rng.random(size))[::-1]):
        out, counts = jax.jit(lambda x: encoded(clip(1.0), x))(jnp.array(values, jnp.float32))
        assert 0.99999 <= norm(out) <= 1.0
        assert counts["clipped"] == 1


def test_a_longer_update_keeps_its_direction_and_a_shorter_one_its_bits() -> None:
    long, counts = encoded(clip(2.5), tree(3.0, 4.0))
    np.testing.assert_allclose(np.concatenate([long["a"], long["b"]]), [1.5, 2.0], rtol=1e-5)
    assert (int(counts["clipped"]), int(counts["discarded"])) == (1, 0)
    short, counts = encoded(clip(5.1), tree(3.0, 4.0))
    assert (short["a"].tolist(), short["b"].tolist()) == ([3.0], [4.0])
    assert (int(counts["clipped"]), int(counts["discarded"])) == (0, 0)


# --- the table of edges ---------------------------------------------------------------------------


@pytest.mark.parametrize("max_norm", [0.0, -1.0, math.nan, 1e-40])
def test_a_bound_that_is_not_above_0_is_refused(max_norm: float) -> None:
    with pytest.raises(UserError, match=r"^clip: max_norm: expected a number above 0 that"):
        clip(max_norm)


def test_an_infinite_bound_lets_every_finite_update_pass() -> None:
    stage = clip(math.inf)
    huge = tree(3e38, -3e38, 1.0)
    out, counts = encoded(stage, huge)
    assert all((out[name] == huge[name]).all() for name in huge)
    assert not any(int(count) for count in counts.values())
    assert stage.bound(math.inf) == math.inf


@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
@pytest.mark.parametrize("max_norm", [1.0, math.inf])
def test_an_update_that_is_not_finite_becomes_zero_and_is_counted(
    bad: float, max_norm: float
) -> None:
    out, counts = encoded(clip(max_norm), tree(1.0, bad, 2.0))
    assert not any(np.asarray(x).any() for x in jax.tree.leaves(out))
    assert (int(counts["clipped"]), int(counts["discarded"])) == (0, 1)


def test_the_bound_holds_for_numbers_of_every_size() -> None:
    encode = jax.jit(lambda x: encoded(clip(0.5), x))
    for exponent in range(-149, 128):
        update = jnp.array([0.0, 1.3, -1.7], jnp.float32) * np.float32(2.0**exponent)
        for out, counts in (encode(update), encoded(clip(0.5), update)):
            if exponent < -2:
                assert np.array_equal(out, update)
            else:
                assert 0.49999 < norm(out) <= 0.5
            assert int(counts["clipped"]) == (exponent >= -2)


def test_an_update_whose_norm_overflows_is_scaled() -> None:
    out, counts = encoded(clip(5.0), tree(1.8e38, 2.4e38))
    np.testing.assert_allclose(np.concatenate([out["a"], out["b"]]), [3.0, 4.0], rtol=1e-5)
    assert int(counts["clipped"]) == 1


def test_a_zero_update_stays_zero() -> None:
    out, counts = encoded(clip(1.0), tree(0.0, 0.0))
    assert not any(np.asarray(x).any() for x in jax.tree.leaves(out))
    assert not any(int(count) for count in counts.values())


# --- chains ---------------------------------------------------------------------------------------


def test_an_empty_chain_changes_nothing_and_bounds_nothing() -> None:
    update = tree(3.0, math.nan)
    out, counts = encoded(chain(), update)
    assert out is update and counts == ()
    assert chain().bound(math.inf) == math.inf


def test_a_chain_applies_its_stages_in_order_and_each_keeps_its_own_state() -> None:
    def scaled(name: str, factor: float) -> Stage:
        return Stage(
            name,
            init=lambda params: jnp.float32(factor),
            encode=lambda state, update: (jax.tree.map(lambda x: x * state, update), {"n": 1}),
            decode=lambda state, mean, came: (jax.tree.map(lambda x: x / state, mean), state + 1),
            bound=lambda bound: bound * factor,
        )

    both = chain(scaled("twice", 2.0), clip(1.0), scaled("thrice", 3.0))
    state = both.init(tree(0.0))
    out, counts = both.encode(state, tree(1.0, 0.0))
    assert float(out["a"][0]) == pytest.approx(3.0, rel=1e-5)
    assert counts[0] == counts[2] == {"n": 1}
    back, advanced = both.decode(state, out, tree(1.0, 0.0))
    assert float(back["a"][0]) == pytest.approx(0.5, rel=1e-5)
    assert [float(x) for x in jax.tree.leaves(advanced)] == [3.0, 4.0]
    assert both.bound(math.inf) == 3.0
    assert both.name == "chain [twice, clip, thrice]"


def test_the_config_s_stages_are_made() -> None:
    assert make_stage(config.Clip(max_norm=0.5)).bound(math.inf) == 0.5
