"""DP-SGD on the grid: sums are exact, bounds hold to the last step, noise is added once."""

from functools import cache

import jax
import jax.numpy as jnp
import msgspec
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lepton_jax import config, trees
from lepton_jax.models import build
from lepton_jax.privacy.grid import Grid, sure_limit
from lepton_jax.training.losses import cross_entropy
from lepton_jax.training.private import (
    PrivateBatch,
    clipped_steps,
    private_gradient,
    private_grid,
    private_terms,
)
from lepton_jax.training.private_run import private_way
from lepton_jax.training.step import Gradient
from lepton_jax.typing import Batch, PyTree
from tests.lepton_jax.training.tiny_private import (
    CLASSES,
    KEY,
    MODEL,
    NETWORK,
    SECURE,
    SHAPE,
    VARIABLES,
    as_floats,
    batch,
    gradient_of,
    numbered,
    private_run,
)


@cache
def whole_gradient(clip: float, size: int, batch_size: int) -> tuple[Gradient, Grid]:
    asked = config.Privacy(noise_multiplier=1.0, clip_norm=clip, microbatch=size)
    grid = private_grid(asked, capacity=20, size=trees.size(VARIABLES.params))
    gradient = private_gradient(
        MODEL, cross_entropy(), asked, augment=as_floats, batch_size=batch_size, grid=grid
    )
    return jax.jit(gradient), grid


def whole_gradient_of(
    examples: Batch, noise: int = 0, clip: float = 0.01, size: int = 4, batch_size: int = 1
) -> tuple[PyTree, Grid]:
    gradient, grid = whole_gradient(clip, size, batch_size)
    noises = jax.tree.map(lambda x: jnp.full(x.shape, noise, jnp.int32), VARIABLES.params)
    found, (tally, _) = gradient(VARIABLES, PrivateBatch(examples, noises), KEY)
    assert int(tally.count) == int(examples.mask.sum())
    return found, grid


def in_whole_steps(tree: PyTree, grid: Grid) -> np.ndarray:
    steps = np.concatenate([np.ravel(x) for x in jax.tree.leaves(tree)]).astype(float) / grid.unit
    assert np.abs(steps - np.round(steps)).max() < 0.01
    return np.round(steps).astype(int)


def test_on_the_grid_it_is_the_same_gradient_but_for_the_rounding() -> None:
    examples = batch(7, padding=5)
    expected, _ = gradient_of(examples, clip=0.3)
    found, grid = whole_gradient_of(examples, clip=0.3, batch_size=10)
    assert float(trees.norm(trees.sub(found, expected))) < 0.01 * float(trees.norm(expected))
    assert float(trees.norm(expected)) > 50 * grid.unit


def test_on_the_grid_an_example_moves_the_sum_by_no_more_than_the_bound() -> None:
    examples = batch(9)
    without = examples._replace(mask=examples.mask.at[8].set(False))
    sums = []
    for each in (examples, without):
        found, grid = whole_gradient_of(each)
        sums.append(in_whole_steps(found, grid))
    assert 0.9 * grid.bound < np.linalg.norm(sums[0] - sums[1]) <= grid.bound


def test_on_the_grid_the_sum_is_the_same_in_any_order_and_microbatch() -> None:
    examples = batch(9)
    reverse = jax.tree.map(lambda x: x[::-1], examples)
    first, *others = (
        whole_gradient_of(each, size=size)[0]
        for each, size in ((examples, 4), (examples, 5), (reverse, 4))
    )
    for other in others:
        jax.tree.map(np.testing.assert_array_equal, first, other)


def test_on_the_grid_an_empty_batch_is_its_noise_alone() -> None:
    found, grid = whole_gradient_of(batch(0, padding=9), noise=-7)
    assert (in_whole_steps(found, grid) == -7).all()


def test_noise_is_added_to_the_sum_once() -> None:
    examples = batch(9)
    plain, grid = whole_gradient_of(examples)
    noised, _ = whole_gradient_of(examples, noise=1000)
    assert (in_whole_steps(noised, grid) - in_whole_steps(plain, grid) == 1000).all()


GRID = Grid(unit=2.0**-12, bound=2**12, deviation=2.0**12)


@settings(max_examples=60, deadline=None)
@given(
    st.integers(0, 2**32 - 1),
    st.sampled_from([1e-40, 1e-20, 1e-3, 1.0, 1.5, 1e10, 1e18, 1e25, np.nan, np.inf]),
    st.sampled_from(["one", "some", "same", "halves"]),
)
def test_no_gradient_is_longer_on_the_grid_than_the_bound(
    seed: int, scale: float, kind: str
) -> None:
    rng = np.random.default_rng(seed)
    some = rng.normal(size=40)
    vector = {
        "one": np.eye(40)[seed % 40],
        "some": some / np.linalg.norm(some),
        "same": np.full(40, 40**-0.5),
        "halves": (rng.integers(-900, 900, 40) + 0.5) * GRID.unit,
    }[kind]
    with np.errstate(invalid="ignore", over="ignore"):
        rows = jnp.asarray(vector[None] * scale, jnp.float32)
    found = STEPS({"a": rows[:, :30], "b": rows[:, 30:]}, jnp.ones(1, bool))
    whole = [int(x) for leaf in jax.tree.leaves(found) for x in leaf]
    assert sum(x * x for x in whole) <= GRID.bound**2
    if 1 <= scale <= 1e18 and kind != "halves":  # nothing is left out that can be clipped
        assert sum(x * x for x in whole) > (0.98 * GRID.bound) ** 2


STEPS = jax.jit(lambda rows, mask: clipped_steps(rows, mask, GRID))


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf, 1e30])
def test_on_the_grid_a_gradient_that_is_not_finite_adds_nothing(bad: float) -> None:
    gradients = {"a": jnp.full((3, 2), 0.25).at[1, 0].set(bad), "b": jnp.zeros((3, 4))}
    found = STEPS(gradients, jnp.ones(3, bool))
    assert found["a"].tolist() == [2 * 2**10] * 2 and found["b"].tolist() == [0] * 4
    assert found["a"].dtype == jnp.int32


def test_on_the_grid_masked_gradients_and_those_of_zero_add_nothing() -> None:
    gradients = {"a": jnp.array([[jnp.nan, 1.0], [0.0, 0.0], [0.5, -0.25]])}
    found = STEPS(gradients, jnp.array([False, True, True]))
    assert found["a"].tolist() == [2**11, -(2**10)]


def test_a_computation_in_bfloat16_is_bounded_likewise() -> None:
    model = build(
        msgspec.structs.replace(NETWORK, dtype="bfloat16"),
        SHAPE, CLASSES, mean=(0.0,), std=(1.0,), in_loop=True,
    )  # fmt: skip
    asked = config.Privacy(noise_multiplier=1.0, clip_norm=0.01, microbatch=4)
    grid = private_grid(asked, capacity=20, size=trees.size(VARIABLES.params))
    gradient = jax.jit(
        private_gradient(model, cross_entropy(), asked, augment=as_floats, batch_size=1, grid=grid)
    )
    nothing = jax.tree.map(lambda x: jnp.zeros(x.shape, jnp.int32), VARIABLES.params)
    found = gradient(VARIABLES, PrivateBatch(batch(1), nothing), KEY)[0]
    assert 0.9 * grid.bound < np.linalg.norm(in_whole_steps(found, grid)) <= grid.bound


@pytest.mark.parametrize(
    ("noise", "size"), [(0.5, 10**4), (1.1, 10**5), (5.0, 10**5), (1.0, 10**7)]
)
def test_a_grid_leaves_nearly_all_of_the_bound_to_the_gradient(noise: float, size: int) -> None:
    asked = config.Privacy(noise_multiplier=noise, clip_norm=0.5, microbatch=64)
    grid = private_grid(asked, capacity=4000, size=size)
    assert sure_limit(grid, size) > 0.98 * grid.bound
    assert 64 * grid.bound <= 2**24 and 4000 * grid.bound + 14 * grid.deviation < 2**31
    assert grid.deviation == pytest.approx(noise * grid.bound)
    assert grid.bound * grid.unit == pytest.approx(0.5)


def test_secure_noise_has_the_deviation_that_was_said_and_is_fresh_at_each_step() -> None:
    run = private_run(privacy=SECURE)
    examples = numbered(1000)
    terms = private_terms(run, 1000)
    _, batches = private_way(run, terms, examples, MODEL, cross_entropy(), as_floats)
    noises = [each.noise for each in batches(1) if isinstance(each, PrivateBatch)]
    drawn = [np.concatenate([np.ravel(x) for x in jax.tree.leaves(noise)]) for noise in noises]
    grid = private_grid(SECURE, capacity=1, size=len(drawn[0]))
    together = np.concatenate(drawn)
    assert together.std() == pytest.approx(grid.deviation, rel=5 / (2 * len(together)) ** 0.5)
    assert len(np.unique(together)) > 0.95 * len(together)
    assert abs(np.corrcoef(drawn[0], drawn[1])[0, 1]) < 6 / len(drawn[0]) ** 0.5
