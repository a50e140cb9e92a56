"""From real vectors to whole numbers and back, with a bound on the norm that rounding can't pass.

Noise in whole numbers is exact only on what is whole too. So each share of a sum (an example's
gradient, a client's update) is put on a grid before it is summed: the sum is then exact, the same in
whatever order, and the noise on it is `lattice`'s.

*Guarantee.* Whatever the share is, its L2 norm on the grid is at most `Grid.bound` steps: rounding to
the nearest lengthens a vector of many small numbers, so one that would pass the bound is rounded
towards zero instead, and one that passes it even so is left out. Norms are taken in float32, with
`trees.NORM_ROOM` for their rounding. The sum of `shares` of them and of the noise stays below `most`.

| edge of `on_grid`                          | result                                            |
|--------------------------------------------|---------------------------------------------------|
| a vector of zeros, or of subnormals        | zeros                                             |
| NaN or infinity anywhere                   | zeros                                             |
| a norm above the bound, 1e30 say           | zeros: it has to be clipped before                |
| bfloat16, float16                          | taken to float32 first, which is exact            |
| no leaves                                  | no leaves                                         |

| edge of `make_grid`                        | result                                            |
|--------------------------------------------|---------------------------------------------------|
| a bound or multiplier of 0, inf, NaN       | UserError                                         |
| fewer than 16 steps to the bound, or       | UserError                                         |
| fewer than 1/4 to the noise's deviation    |                                                   |
"""

import math
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from lepton_jax import trees
from lepton_jax.checks import UserError
from lepton_jax.privacy.entropy import Source
from lepton_jax.privacy.lattice import LEAST_DEVIATION, REACH, Sampler
from lepton_jax.typing import PyTree

EXACT = 2**24  # up to here float32 holds every whole number

FINE = 2.0**14  # steps to a deviation: with more, the noise's table takes longer to make
_LEAST_BOUND = 16  # steps; with fewer the grid is as coarse as the shares are long


class Grid(NamedTuple):
    """Whole numbers for real ones.

    Attributes:
      unit: the length of a step.
      bound: the greatest L2 norm of one share, in steps.
      deviation: of the noise on the sum, in steps.
    """

    unit: float
    bound: int
    deviation: float


def make_grid(
    bound: float,
    multiplier: float,
    shares: int,
    most: int = 2**31 - 1,
    *,
    fine: float = FINE,
) -> Grid:
    """The finest grid on which a sum of shares and its noise can't overflow.

    Args:
      bound: the L2 norm that a share is clipped to.
      multiplier: deviation of the noise over that bound.
      shares: the most that are summed, at least 1.
      most: what no number of the sum may reach in size; `EXACT` where it is taken in float32.
      fine: the most steps to the noise's deviation, at most 2^17.

    Returns:
      A grid with at most 2^24 steps to the bound.

    Raises:
      UserError: an argument is out of range, or the grid would be too coarse.

    >>> make_grid(1.0, 2.0, shares=100)
    Grid(unit=0.0001220703125, bound=8192, deviation=16384.0)
    """
    for where, value in (("clip_norm", bound), ("noise_multiplier", multiplier)):
        if not 0 < value < math.inf:  # NaN compares false
            raise UserError(where, "a finite number above 0", value)
    room = most / (shares + (REACH + 1) * multiplier)
    steps = int(min(fine / multiplier, room, EXACT))
    if steps < _LEAST_BOUND or steps * multiplier < LEAST_DEVIATION:
        raise UserError(
            "noise_multiplier",
            f"a grid of at least {_LEAST_BOUND} steps to the clip norm and 1/4 to the noise",
            f"one of {steps} and {steps * multiplier:.2g}, for {shares} shares and {multiplier}",
            "sum fewer shares at a time, or choose another noise multiplier",
        )
    return Grid(bound / steps, steps, multiplier * steps)


def clip_limit(grid: Grid, size: int) -> float:
    """The norm, in steps, to clip a share to so that rounding it to the nearest rarely passes the bound.

    Rounding adds about 1/12 for each number to the squared norm, give or take bound / sqrt(3).

    Args:
      grid: the shares'.
      size: how many numbers a share has.

    Raises:
      UserError: rounding would take more than half of the bound.
    """
    squared = grid.bound**2 - size / 12 - 3 * grid.bound
    if squared < grid.bound**2 / 4:
        raise _too_coarse(grid, size, grid.deviation / math.sqrt(size / 9))
    return math.sqrt(squared)


def sure_limit(grid: Grid, size: int) -> float:
    """The norm, in steps, to clip a share to so that rounding it to the nearest never passes the bound.

    Rounding moves each number by at most 1/2, and so the whole by at most sqrt(size) / 2. It is less
    than `clip_limit`, and saves looking at each share once more.

    Args:
      grid: the shares'.
      size: how many numbers a share has.

    Raises:
      UserError: rounding would take more than half of the bound.
    """
    limit = grid.bound * trees.NORM_ROOM - math.sqrt(size) / 2
    if limit < grid.bound / 2:
        raise _too_coarse(grid, size, grid.deviation / math.sqrt(size))
    return limit


def _too_coarse(grid: Grid, size: int, multiplier: float) -> UserError:
    return UserError(
        "noise_multiplier",
        f"one below about {multiplier:.3g} for {size} numbers",
        f"a grid of {grid.bound} steps to the clip norm",
        "lower the noise multiplier, sum fewer shares at a time, or choose a smaller model",
    )


def on_grid(tree: PyTree, grid: Grid) -> PyTree:
    """One share, rounded to the grid; *Guarantee* and edge cases as in the module's docstring.

    Args:
      tree: real, clipped to `clip_limit(...) * grid.unit`. Use `jax.vmap` for several shares.
      grid: from `make_grid`.

    Returns:
      Whole numbers of steps, as float32, which holds them exactly.

    >>> on_grid(jnp.array([0.26, -1.0]), Grid(unit=0.5, bound=16, deviation=1.0)).tolist()
    [1.0, -2.0]
    """
    limit = grid.bound * trees.NORM_ROOM
    scaled = jax.tree.map(lambda x: x.astype(jnp.float32) * (1 / grid.unit), tree)
    nearest, shorter = (jax.tree.map(each, scaled) for each in (jnp.round, jnp.trunc))
    fits, falls = trees.norm(nearest) <= limit, trees.norm(shorter) <= limit  # NaN compares false
    zeros = trees.zeros_like(scaled)
    return trees.select(fits, nearest, trees.select(falls, shorter, zeros))


def off_grid(total: PyTree, grid: Grid) -> PyTree:
    """A noised sum of shares in real numbers, float32.

    Args:
      total: whole numbers of steps.
      grid: the shares'.
    """
    return jax.tree.map(lambda x: x.astype(jnp.float32) * grid.unit, total)


def noise_like(tree: PyTree, sampler: Sampler, source: Source) -> PyTree:
    """Independent noise for every number of a tree.

    Args:
      tree: whose structure and shapes the noise has.
      sampler: from `lattice`, of the grid's deviation.
      source: of the bits.

    Returns:
      int32 numpy arrays.
    """
    leaves, structure = jax.tree.flatten(tree)
    ends = np.cumsum([math.prod(leaf.shape) for leaf in leaves], dtype=int)
    parts = np.split(sampler(source, trees.size(tree)), ends)  # what comes after the last is empty
    shaped = [part.reshape(leaf.shape) for part, leaf in zip(parts, leaves, strict=False)]
    return jax.tree.unflatten(structure, shaped)
