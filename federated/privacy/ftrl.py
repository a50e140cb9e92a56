"""DP-FTRL: noise that is correlated over the rounds, for cohorts that are not chosen at random.

Both mechanisms protect a client that takes part at most once in any `pass` successive rounds, and
add less noise to the model, which is a sum over the rounds, than independent noise would.
"""

import math

import jax
import jax.numpy as jnp
import numpy as np

from federated.privacy.noise import MOST_SUM, Drawn, Noise, check_noise
from lepton_jax import trees
from lepton_jax.checks import UserError
from lepton_jax.privacy.entropy import Source
from lepton_jax.privacy.grid import Grid, make_grid, noise_like
from lepton_jax.privacy.lattice import rounded_normal
from lepton_jax.typing import PyTree

_ROUNDED = 1.25  # by which a coordinate's rounding may differ between neighbours


def tree(multiplier: float, clients: int, pass_length: int, most: int = 4096) -> Noise:
    """Noise by binary-tree aggregation (Dwork et al., 2010; Kairouz et al., 2021).

    The rounds of a pass are the leaves of a binary tree, each node of which has the sum of its
    leaves and noise of its own. After t rounds the model holds the noise of those nodes that
    together cover t leaves, one for each 1 among the bits of t. What a round adds is the difference:
    the noise of the node that it completes, less that of the nodes inside it. Every pass begins a
    tree of its own.

    *Guarantee.* A client is in one leaf a pass, and so in as many nodes as the tree has levels: one
    pass is what `accounting` takes for one tree of `pass_length` leaves with this multiplier.

    | edge                                   | result                                            |
    |----------------------------------------|---------------------------------------------------|
    | a pass of one round                    | independent noise                                 |
    | a run that ends within a pass          | accounted as that many leaves                     |
    | multiplier, clients, most              | as of `gaussian`                                  |

    Args:
      multiplier: deviation of a node's noise over the bound.
      clients: expected number of clients in a round.
      pass_length: rounds in a pass.
      most: the greatest number of clients that a round can have.

    Raises:
      UserError: an argument is out of range.
    """
    check_noise("tree", multiplier, clients)
    levels = pass_length.bit_length()

    def init(like: PyTree) -> PyTree:
        nodes = jax.tree.map(lambda x: jnp.zeros((levels, *x.shape), jnp.int32), like)
        return {"leaf": jnp.int32(0), "nodes": nodes}

    def draw(grid: Grid, like: PyTree, source: Source, present: int, slots: int) -> Drawn:
        return Drawn(server=noise_like(like, rounded_normal(grid.deviation), source))

    def add(state: PyTree, total: PyTree, drawn: PyTree) -> tuple[PyTree, PyTree]:
        leaf = state["leaf"]
        ones = (leaf >> jnp.arange(levels, dtype=jnp.int32)) & 1
        inside = jnp.cumprod(ones).astype(jnp.int32)  # levels of the nodes that end inside this one
        level = jnp.sum(inside)

        def difference(fresh: jax.Array, nodes: jax.Array) -> jax.Array:
            return fresh - jnp.tensordot(inside, nodes, 1)

        def keep(fresh: jax.Array, nodes: jax.Array) -> jax.Array:
            column = (levels,) + (1,) * fresh.ndim
            kept = jnp.where(inside.reshape(column) == 1, 0, nodes)
            here = (jnp.arange(levels, dtype=jnp.int32) == level).reshape(column)
            return jnp.where(here, fresh[None], kept)

        noise = jax.tree.map(difference, drawn, state["nodes"])
        after = (leaf + 1) % pass_length
        nodes = jax.tree.map(keep, drawn, state["nodes"])
        nodes = trees.select(after == 0, trees.zeros_like(nodes), nodes)
        return jax.tree.map(jnp.add, total, noise), {"leaf": after, "nodes": nodes}

    def grid(bound: float) -> Grid:
        # A round's noise is that of at most `levels` nodes.
        return make_grid(bound, multiplier, most, MOST_SUM // (levels + 1))

    return Noise("tree noise", multiplier, clients, most, grid, init, draw, add)


def banded(
    multiplier: float, clients: int, pass_length: int, bands: int, most: int = 4096
) -> Noise:
    """Noise by a banded square root of the prefix sums (Kalinin and Lampert, 2024).

    The matrix A of prefix sums is factorized as B C, where C is the square root of A cut to a band:
    Toeplitz, with the coefficients c(0) = 1, c(i) = c(i-1) (2i-1) / 2i for i < `bands` (Fichtenberger
    et al., 2023). The rounds' sums x then come out as x + C^-1 z with independent z: what a round
    adds is n(t) = z(t) - sum of c(i) n(t-i).

    *Guarantee.* C x + z is a Gaussian mechanism. A client's rounds are `pass_length` >= `bands`
    apart, so that its columns of C are orthogonal, each with the norm of c: k rounds are what
    `accounting` takes for k Gaussian events with this multiplier. The sum of c(i) n(t-i) is rounded
    to whole numbers; in each of the `bands` rounds that a client's round touches, that may move each
    of the D coordinates by one more, which the deviation of z has in it:
    multiplier * (|c| bound + 1.25 sqrt(bands D)) in the grid's units.

    | edge                             | result                                                  |
    |----------------------------------|---------------------------------------------------------|
    | bands below 2 or above the pass  | UserError                                               |
    | multiplier, clients, most        | as of `gaussian`                                        |

    Args:
      multiplier: deviation of z over what it has to cover.
      clients: expected number of clients in a round.
      pass_length: rounds between two of a client.
      bands: of C.
      most: the greatest number of clients that a round can have.

    Raises:
      UserError: an argument is out of range.
    """
    check_noise("banded", multiplier, clients)
    if not 2 <= bands <= pass_length:
        raise UserError("banded: bands", f"2 to {pass_length}, the rounds of a pass", bands)
    root = coefficients(bands)

    def init(like: PyTree) -> PyTree:
        return jax.tree.map(lambda x: jnp.zeros((bands - 1, *x.shape), jnp.int32), like)

    def draw(grid: Grid, like: PyTree, source: Source, present: int, slots: int) -> Drawn:
        moved = _ROUNDED * math.sqrt(bands * trees.size(like))
        deviation = multiplier * (float(np.linalg.norm(root)) * grid.bound + moved)
        return Drawn(server=noise_like(like, rounded_normal(deviation), source))

    def add(state: PyTree, total: PyTree, drawn: PyTree) -> tuple[PyTree, PyTree]:
        def noise(fresh: jax.Array, recent: jax.Array) -> jax.Array:
            weights = jnp.asarray(root[1:], jnp.float32)
            mixed = jnp.tensordot(
                weights, recent.astype(jnp.float32), 1, precision=jax.lax.Precision.HIGHEST
            )
            return fresh - jnp.rint(mixed).astype(jnp.int32)

        now = jax.tree.map(noise, drawn, state)
        recent = jax.tree.map(lambda n, old: jnp.concatenate([n[None], old[:-1]]), now, state)
        return jax.tree.map(jnp.add, total, now), recent

    def grid(bound: float) -> Grid:
        # |c| < 3 for any number of bands that memory holds, and C^-1 z is no longer than z.
        return make_grid(bound, multiplier, most, MOST_SUM // 8)

    return Noise("banded noise", multiplier, clients, most, grid, init, draw, add)


def coefficients(bands: int) -> np.ndarray:
    """The first coefficients of 1 / sqrt(1 - x), float64 [bands].

    >>> coefficients(4).tolist()
    [1.0, 0.5, 0.375, 0.3125]
    """
    steps = np.arange(1, bands)
    return np.cumprod(np.concatenate([[1.0], (2 * steps - 1) / (2 * steps)]))
