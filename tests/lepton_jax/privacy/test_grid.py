"""The grid: no share is longer on it than the bound, and sums are exact in any order."""

import math
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lepton_jax.checks import UserError
from lepton_jax.privacy.entropy import seeded_source
from lepton_jax.privacy.grid import (
    EXACT,
    Grid,
    clip_limit,
    make_grid,
    noise_like,
    off_grid,
    on_grid,
    sure_limit,
)
from lepton_jax.privacy.lattice import rounded_normal

put = jax.jit(on_grid, static_argnums=1)


def length(tree: Any) -> float:
    """The norm without rounding errors: whole numbers, in Python's."""
    return math.sqrt(sum(int(x) ** 2 for leaf in jax.tree.leaves(tree) for x in np.ravel(leaf)))


def assert_whole(tree: Any) -> None:
    for leaf in jax.tree.leaves(tree):
        assert leaf.dtype == jnp.float32 and (np.asarray(leaf) == np.round(leaf)).all()


GRIDS = [make_grid(1.0, 1.0, 10), make_grid(0.3, 800.0, 10), make_grid(5.0, 0.01, 100)]
numbers = st.floats(width=32, allow_nan=True, allow_infinity=True)


@settings(max_examples=80, deadline=None)
@given(st.lists(numbers, min_size=6, max_size=6), st.sampled_from(GRIDS))
def test_whatever_comes_stays_within_the_bound(values: list[float], grid: Grid) -> None:
    found = put({"a": jnp.array(values[:2], jnp.float32), "b": jnp.array(values[2:])}, grid)
    assert_whole(found)
    assert length(found) <= grid.bound


@settings(max_examples=80, deadline=None)
@given(
    st.integers(0, 2**32 - 1),
    st.sampled_from(GRIDS),
    st.sampled_from([1, 10, 1000]),
    st.floats(0.5, 1.01),
    st.sampled_from(["normal", "same", "halves", "sparse"]),
)
def test_rounding_never_enlarges_past_the_bound(
    seed: int, grid: Grid, size: int, near: float, kind: str
) -> None:
    rng = np.random.default_rng(seed)
    vector = {
        "normal": rng.normal(size=size),
        "same": np.ones(size),
        "halves": (rng.integers(3, size=size) + 0.5 + 1e-4),
        "sparse": np.where(rng.random(size) < 0.9, 0.501 * size**0.5 / grid.bound, 1),
    }[kind]
    vector *= near * grid.bound * grid.unit / np.linalg.norm(vector)
    found = put(jnp.asarray(vector, jnp.float32), grid)
    assert_whole(found)
    assert length(found) <= grid.bound
    if near < 0.99:  # nothing was left out that was clipped
        assert np.abs(np.asarray(found) - vector / grid.unit).max() <= 1


def test_many_small_numbers_are_rounded_towards_zero_where_the_nearest_are_too_long() -> None:
    grid = Grid(unit=1.0, bound=16, deviation=16.0)
    many = jnp.full(600, 0.6)  # 14.7 long; 24.5 if each went to 1
    assert length(put(many, grid)) == 0.0
    few = jnp.full(100, 0.6)
    assert put(few, grid).tolist() == [1.0] * 100


@pytest.mark.parametrize("size", [1000, 30_000])
def test_a_share_clipped_to_the_limit_is_rounded_to_the_nearest(size: int) -> None:
    grid = make_grid(1.0, 1.0, 100)
    vectors = np.random.default_rng(size).normal(size=(5, size))
    for vector in vectors:
        vector *= clip_limit(grid, size) * grid.unit / np.linalg.norm(vector)
        found = np.asarray(put(jnp.asarray(vector, jnp.float32), grid))
        assert np.abs(found - vector / grid.unit).max() < 0.51
        assert length(found) > 0.99 * grid.bound


@pytest.mark.parametrize("size", [1, 100, 30_000])
def test_a_share_clipped_to_the_sure_limit_stays_within_the_bound(size: int) -> None:
    grid = make_grid(1.0, 3.0, 100)
    vector = np.full(size, 0.5 + 1e-4)
    vector[0] += math.sqrt(max(0.0, sure_limit(grid, size) ** 2 - size / 4))
    vector *= min(1.0, sure_limit(grid, size) / np.linalg.norm(vector))
    assert length(jnp.round(jnp.asarray(vector, jnp.float32))) <= grid.bound


@pytest.mark.parametrize("limit", [clip_limit, sure_limit])
def test_a_limit_for_more_numbers_than_the_grid_can_round_is_refused(
    limit: Callable[[Grid, int], float],
) -> None:
    with pytest.raises(UserError, match="noise_multiplier: expected one below about"):
        limit(make_grid(1.0, 500.0, 10), 11_000_000)


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf, 1e30, 3.0])
def test_what_is_not_finite_or_was_not_clipped_is_left_out(bad: float) -> None:
    grid = make_grid(1.0, 1.0, 10)
    found = put({"a": jnp.array([0.5, bad], jnp.float32), "b": jnp.full(3, 0.1)}, grid)
    assert length(found) == 0.0


def test_zeros_and_subnormals_are_zero() -> None:
    found = put(jnp.array([0.0, -0.0, 1e-40, -1e-45]), GRIDS[0])
    assert found.tolist() == [0.0] * 4


@pytest.mark.parametrize("dtype", [jnp.bfloat16, jnp.float16])
def test_short_floats_are_rounded_as_what_they_are(dtype: Any) -> None:
    vector = jnp.array([0.1, -0.2, 0.3]).astype(dtype)
    found = put(vector, GRIDS[0])
    assert (found == put(vector.astype(jnp.float32), GRIDS[0])).all()
    assert length(found) > 0


def test_no_leaves_stay_none() -> None:
    assert on_grid({}, GRIDS[0]) == {}


def test_sums_are_exact_in_any_order() -> None:
    grid = make_grid(1.0, 1.0, 300, most=EXACT)
    rng = np.random.default_rng(0)
    vectors = rng.normal(size=(300, 8))
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True) * 1.01
    shares = jax.vmap(lambda x: on_grid(x, grid))(jnp.asarray(vectors, jnp.float32))
    exact = np.asarray(shares).astype(np.int64).sum(0)

    def one_by_one(order: Any) -> Any:
        return jax.lax.scan(lambda total, share: (total + share, None), jnp.zeros(8), order)[0]

    for order in (shares, shares[::-1], shares[rng.permutation(300)]):
        assert (np.asarray(one_by_one(order)) == exact).all()
    product = jnp.matmul(jnp.ones(300), shares, precision="highest")
    assert (np.asarray(product) == exact).all()
    np.testing.assert_allclose(off_grid(product, grid), vectors.sum(0), atol=300 * grid.unit)


@settings(max_examples=200, deadline=None)
@given(
    st.floats(1e-6, 1e6),
    st.floats(1e-3, 500),
    st.integers(1, 10_000),
    st.sampled_from([2**31 - 1, EXACT]),
)
def test_no_sum_and_its_noise_reach_the_most(
    bound: float, multiplier: float, shares: int, most: int
) -> None:
    try:
        grid = make_grid(bound, multiplier, shares, most)
    except UserError:
        return
    assert shares * grid.bound + 13.5 * grid.deviation + 1 <= most
    assert grid.unit * grid.bound == pytest.approx(bound)
    assert grid.deviation == pytest.approx(multiplier * grid.bound)
    assert grid.bound <= EXACT and grid.deviation <= 2**14


def test_the_grid_is_as_fine_as_it_may_be() -> None:
    assert make_grid(1.0, 1.0, 100) == Grid(2.0**-14, 2**14, 2.0**14)
    coarser = make_grid(1.0, 1.0, 10_000, most=EXACT)
    assert 10_000 * (coarser.bound + 1) + 14.5 * coarser.deviation > EXACT


@pytest.mark.parametrize("value", [0.0, -1.0, math.inf, math.nan])
@pytest.mark.parametrize("where", ["clip_norm", "noise_multiplier"])
def test_a_bound_or_multiplier_out_of_range_is_refused(where: str, value: float) -> None:
    arguments = {"clip_norm": 1.0, "noise_multiplier": 1.0, where: value}
    with pytest.raises(UserError, match=f"{where}: expected a finite number above 0"):
        make_grid(arguments["clip_norm"], arguments["noise_multiplier"], 10)


@pytest.mark.parametrize(
    ("multiplier", "shares", "most"),
    [(2000.0, 1, 2**31 - 1), (1e-3, 10**5, EXACT), (1.0, 10**7, EXACT)],
)
def test_a_grid_too_coarse_is_refused(multiplier: float, shares: int, most: int) -> None:
    with pytest.raises(UserError, match="expected a grid of at least 16 steps"):
        make_grid(1.0, multiplier, shares, most)


def test_noise_has_the_shapes_of_a_tree_and_is_another_for_each_number() -> None:
    tree = {"a": jnp.zeros((3, 40)), "b": jnp.zeros(()), "c": jnp.zeros(200)}
    found = noise_like(tree, rounded_normal(2.0**14), seeded_source(1))
    assert jax.tree.map(lambda x: x.shape, found) == jax.tree.map(lambda x: x.shape, tree)
    drawn = np.concatenate([np.ravel(x) for x in jax.tree.leaves(found)])
    assert drawn.dtype == np.int32 and len(np.unique(drawn)) > 310
    assert noise_like({}, rounded_normal(2.0**14), seeded_source(1)) == {}
