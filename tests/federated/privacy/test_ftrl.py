"""Correlated noise against slow twins: a tree of nodes, and matrices in float64."""

import math
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from federated.privacy.ftrl import banded, coefficients, tree
from federated.privacy.noise import Noise
from lepton_jax.checks import UserError
from lepton_jax.privacy.entropy import seeded_source


def released(noise: Noise, rounds: int, size: int = 5) -> tuple[np.ndarray, np.ndarray]:
    """What was drawn in each round and what was added to its sum, int64 [T,D] both."""
    like = {"a": jnp.zeros(size)}
    grid, source, add = noise.grid(1.0), seeded_source(3), jax.jit(noise.add)
    state = noise.init(like)
    total = {"a": jnp.arange(size, dtype=jnp.int32)}
    drawn, added = [], []
    for _ in range(rounds):
        given = noise.draw(grid, like, source, 1, 1)
        out, state = add(state, total, given.server)
        drawn.append(given.server["a"])
        added.append(np.asarray(out["a"]) - np.arange(size))
    return np.array(drawn, np.int64), np.array(added, np.int64)


# --- tree -----------------------------------------------------------------------------------------


def cumulative_by_the_tree(drawn: np.ndarray, length: int) -> np.ndarray:
    """The noise of the model after each round, from the nodes of explicit binary trees."""
    out, before = [], np.zeros_like(drawn[0])
    for start in range(0, len(drawn), length):
        own = drawn[start : start + length]
        nodes = {}  # (first leaf, last leaf), from 1 -> noise; a node's comes with its last leaf
        for last in range(1, len(own) + 1):
            width = 1
            while last % (2 * width) == 0:
                width *= 2
            nodes[last - width + 1, last] = own[last - 1]
        for leaves in range(1, len(own) + 1):
            covered, total = 0, before.copy()
            for bit in reversed(range(leaves.bit_length())):
                if leaves >> bit & 1:
                    total += nodes[covered + 1, covered + 2**bit]
                    covered += 2**bit
            assert covered == leaves
            out.append(total)
        before = out[-1]
    return np.array(out)


@pytest.mark.parametrize("length", [1, 2, 3, 4, 6, 7, 8])
def test_the_model_holds_the_noise_of_the_nodes_that_cover_its_rounds(length: int) -> None:
    drawn, added = released(tree(1.0, 1, length), rounds=2 * length + length // 2 + 1)
    assert np.array_equal(added.cumsum(0), cumulative_by_the_tree(drawn, length))


def test_a_pass_of_one_round_has_independent_noise() -> None:
    drawn, added = released(tree(1.0, 1, 1), rounds=4)
    assert np.array_equal(added, drawn)


def test_after_t_rounds_the_variance_is_that_of_the_bits_of_t() -> None:
    noise = tree(2.0, 1, 8)
    _, added = released(noise, rounds=8, size=20_000)
    deviation = 2.0 * noise.grid(1.0).bound
    for rounds, total in enumerate(added.cumsum(0), start=1):
        expected = deviation * math.sqrt(rounds.bit_count())
        assert np.std(total) == pytest.approx(expected, rel=4 / math.sqrt(2 * 20_000))


def test_every_pass_begins_a_tree_of_its_own() -> None:
    noise, like = tree(1.0, 1, 3), {"a": jnp.zeros(4)}
    state = noise.init(like)
    for rounds in range(1, 7):
        given = noise.draw(noise.grid(1.0), like, seeded_source(rounds), 1, 1)
        _, state = jax.jit(noise.add)(state, {"a": jnp.zeros(4, jnp.int32)}, given.server)
        assert int(state["leaf"]) == rounds % 3
        assert bool(np.asarray(state["nodes"]["a"]).any()) == (rounds % 3 != 0)


# --- bands ----------------------------------------------------------------------------------------


def band_matrix(rounds: int, bands: int) -> np.ndarray:
    """C as the paper writes it: the square root of the prefix sums, cut to a band."""
    out = np.zeros((rounds, rounds))
    for row in range(rounds):
        for column in range(max(0, row - bands + 1), row + 1):
            k = row - column
            out[row, column] = math.comb(2 * k, k) / 4**k
    return out


@pytest.mark.parametrize("bands", [2, 5, 12])
def test_the_coefficients_are_those_of_the_square_root_of_the_prefix_sums(bands: int) -> None:
    np.testing.assert_allclose(coefficients(bands), band_matrix(bands, bands)[:, 0], rtol=1e-14)
    root = band_matrix(bands, bands)
    np.testing.assert_allclose(root @ root, np.tril(np.ones((bands, bands))), rtol=1e-12)


@pytest.mark.parametrize(("bands", "length"), [(2, 2), (3, 5), (8, 8)])
def test_the_noise_is_what_the_inverse_of_the_matrix_makes_of_independent_noise(
    bands: int, length: int
) -> None:
    rounds = 3 * length + 1
    drawn, added = released(banded(1.0, 1, length, bands), rounds)
    matrix = band_matrix(rounds, bands)
    # Each round rounds a sum once, to at most half a unit; float32 is off by less than 0.01 there.
    assert np.abs(matrix @ added - drawn).max() <= 0.51
    inverse = np.linalg.inv(matrix)
    room = 0.51 * np.abs(inverse).sum(1, keepdims=True)
    assert (np.abs(added - inverse @ drawn) <= room).all()
    assert np.abs(added - drawn).max() > 1000  # it is not simply what was drawn


@pytest.mark.parametrize(("bands", "length"), [(2, 2), (3, 5), (8, 8)])
def test_a_client_s_columns_are_orthogonal_and_have_the_norm_of_the_coefficients(
    bands: int, length: int
) -> None:
    matrix = band_matrix(4 * length, bands)
    gram = matrix.T @ matrix
    for first in range(length):
        own = range(first, 3 * length, length)  # whole columns
        expected = np.linalg.norm(coefficients(bands)) ** 2 * np.eye(len(own))
        np.testing.assert_allclose(gram[np.ix_(own, own)], expected, atol=1e-12)


def test_what_is_drawn_covers_the_columns_norm_and_the_rounding() -> None:
    size, bands, multiplier = 30_000, 3, 2.0
    noise = banded(multiplier, 1, 4, bands)
    drawn, _ = released(noise, rounds=1, size=size)
    covered = np.linalg.norm(coefficients(bands)) * noise.grid(1.0).bound
    covered += 1.25 * math.sqrt(bands * size)
    assert np.std(drawn) == pytest.approx(multiplier * covered, rel=4 / math.sqrt(2 * size))


def test_no_client_moves_what_the_noise_covers_by_more_than_it_was_drawn_for() -> None:
    """Of neighbours that release the same, the drawn noise differs by less than is covered."""
    size, bands, length = 400, 3, 4
    noise = banded(1.0, 1, length, bands)
    drawn, added = released(noise, rounds=2 * length, size=size)
    rng = np.random.default_rng(0)
    share = rng.standard_normal(size)
    share = np.trunc(share / np.linalg.norm(share) * noise.grid(1.0).bound).astype(np.int64)
    other = added.copy()
    other[1] -= share  # the client's two rounds, a pass apart
    other[1 + length] -= share
    needed, state = [], noise.init({"a": jnp.zeros(size)})
    nothing = {"a": jnp.zeros(size, jnp.int32)}
    for now in other:  # z = n + round(sum of c n), as `add` has it the other way round
        minus_mixed, _ = noise.add(state, nothing, nothing)
        z = now - np.asarray(minus_mixed["a"])
        again, state = noise.add(state, nothing, {"a": jnp.array(z, jnp.int32)})
        assert np.array_equal(again["a"], now)
        needed.append(z)
    moved = np.linalg.norm(np.array(needed) - drawn)
    covered = np.linalg.norm(coefficients(bands)) * np.linalg.norm(share)
    assert 0.9 * math.sqrt(2) * covered < moved
    assert moved <= math.sqrt(2) * (covered + 1.25 * math.sqrt(bands * size))


@pytest.mark.parametrize(("bands", "length"), [(1, 5), (0, 5), (6, 5), (2, 1)])
def test_bands_that_do_not_fit_a_pass_are_refused(bands: int, length: int) -> None:
    expected = rf"^banded: bands: expected 2 to {length}, the rounds of a pass, got {bands}"
    with pytest.raises(UserError, match=expected):
        banded(1.0, 1, length, bands)


def test_as_many_bands_as_a_pass_has_rounds_are_accepted() -> None:
    noise: Any = banded(1.0, 1, 5, 5)
    assert noise.name == "banded noise"
