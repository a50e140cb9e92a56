"""A rotation keeps lengths, can be taken back, and spreads what is in one place over all."""

import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from federated.stages import chain, clip, make_stage, rotate
from lepton_jax import config
from lepton_jax.typing import PyTree

SIZES = [1, 2, 3, 7, 64, 127, 128, 129, 1000, 40_000]


def vector(size: int) -> PyTree:
    values = np.random.default_rng(size).standard_normal(size).astype(np.float32)
    return {"w": jnp.array(values)}


def rotated(update: PyTree, seed: int = 0) -> np.ndarray:
    message, counts = jax.jit(rotate(seed).encode)((), update)
    assert counts == {}
    return np.asarray(message["rotated"], np.float64)


@pytest.mark.parametrize("size", SIZES)
def test_a_rotation_keeps_the_norm_within_its_bound_and_can_be_taken_back(size: int) -> None:
    stage, update = rotate(5), vector(size)
    norm = float(np.linalg.norm(np.asarray(update["w"], np.float64)))
    out = rotated(update, seed=5)
    assert len(out) == 2 ** math.ceil(math.log2(size))
    assert np.linalg.norm(out) == pytest.approx(norm, rel=1e-5)
    assert np.linalg.norm(out) <= stage.bound(norm) == norm * (1 + 2**-12)
    back, state = stage.decode((), {"rotated": jnp.array(out, jnp.float32)}, update)
    assert state == ()
    np.testing.assert_allclose(back["w"], update["w"], atol=1e-5 * norm)


def test_it_is_the_walsh_hadamard_transform_of_the_signed_numbers() -> None:
    matrix: np.ndarray = np.ones((1, 1))
    for _ in range(9):
        matrix = np.kron(np.array([[1, 1], [1, -1]]) / math.sqrt(2), matrix)
    basis = jax.jit(jax.vmap(lambda row: rotate(0).encode((), {"w": row})[0]["rotated"]))
    found = np.asarray(basis(jnp.eye(512)))
    signs = np.sign(found[:, 0])  # the transform's first row is all ones
    np.testing.assert_allclose(found, signs[:, None] * matrix, atol=1e-6)
    assert abs(signs.sum()) < 5 * math.sqrt(512)


@pytest.mark.parametrize("at", [0, 17, 999])
def test_one_large_number_is_spread_evenly(at: int) -> None:
    one = {"w": jnp.zeros(1000).at[at].set(3.0)}
    np.testing.assert_allclose(np.abs(rotated(one)), 3 / math.sqrt(1024), rtol=1e-5)


def test_a_constant_vector_has_no_large_coordinate_either() -> None:
    out = rotated({"w": jnp.ones(4096)})
    assert np.abs(out).max() < 6  # of norm 64; without the signs one coordinate had it all


def test_all_leaves_are_one_vector_and_come_back_with_their_shapes() -> None:
    update = {"a": jnp.arange(6.0).reshape(2, 3), "b": {"c": jnp.float32(4.0), "d": jnp.ones(5)}}
    message, _ = rotate(1).encode((), update)
    assert message["rotated"].shape == (16,)
    back, _ = rotate(1).decode((), message, jax.eval_shape(lambda: update))
    jax.tree.map(lambda x, y: np.testing.assert_allclose(x, y, atol=1e-5), back, update)


def test_the_seed_fixes_the_rotation() -> None:
    update = vector(100)
    assert np.array_equal(rotated(update, 1), rotated(update, 1))
    assert not np.allclose(rotated(update, 1), rotated(update, 2))
    made = make_stage(config.Rotate(), seed=2)
    np.testing.assert_allclose(made.encode((), update)[0]["rotated"], rotated(update, 2), atol=1e-6)


def test_a_mean_of_rotated_updates_is_the_rotated_mean() -> None:
    updates = [vector(50), {"w": vector(51)["w"][:50]}, {"w": -3 * vector(52)["w"][:50]}]
    stage = chain(clip(2.0), rotate(0))
    state = stage.init(updates[0])
    sent = [stage.encode(state, each)[0] for each in updates]
    mean = jax.tree.map(lambda *x: sum(x[1:], start=x[0]) / 3, *sent)
    back, _ = stage.decode(state, mean, updates[0])
    clipped = [clip(2.0).encode((), each)[0]["w"] for each in updates]
    np.testing.assert_allclose(back["w"], np.mean(clipped, axis=0), atol=1e-5)
    assert stage.bound(math.inf) == 2 * (1 + 2**-12)
