"""Noise for whole clients, as whole numbers on a grid: who adds it, and how rounds hang together."""

import math
from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from lepton_jax.checks import UserError
from lepton_jax.privacy.entropy import Source
from lepton_jax.privacy.grid import Grid, make_grid, noise_like
from lepton_jax.privacy.lattice import rounded_normal
from lepton_jax.typing import PyTree

MOST_SUM = 2**31 - 1  # of int32


class Drawn(NamedTuple):
    """What a round is given besides its cohort; drawn on the host.

    Attributes:
      server: whole numbers that the server's noise is made of: as one message, or () for none.
      clients: whole numbers that the clients' noise is: leaves [C,...], or () for none.
      expected: what the noised sum is divided by: the expected number of clients. The number that
        came is private.
    """

    server: PyTree = ()
    clients: PyTree = ()
    expected: PyTree = np.float32(1)


class Noise(NamedTuple):
    """Noise on a round's sum of clipped updates.

    Attributes:
      name: for messages.
      multiplier: deviation of the noise over the L2 bound of one client's share.
      clients: the expected number of clients in a round, at least 1.
      most: the greatest number of clients for which no sum wraps.
      grid: bound of one client's share -> the grid that shares and noise lie on.
      init: a message's shapes -> what the server keeps of its noise from round to round. It is as
        secret as the sum itself: with it, noise could be taken off again.
      draw: (grid, a message's shapes, source, clients, slots) -> what a round is given.
      add: (state, sum, what the server was given) -> (noised sum, next round's state).
    """

    name: str
    multiplier: float
    clients: int
    most: int
    grid: Callable[[float], Grid]
    init: Callable[[PyTree], PyTree]
    draw: Callable[[Grid, PyTree, Source, int, int], Drawn]
    add: Callable[[PyTree, PyTree, PyTree], tuple[PyTree, PyTree]]


def gaussian(multiplier: float, clients: int, most: int = 4096) -> Noise:
    """Normal noise of deviation `multiplier` times the bound (McMahan et al., 2018).

    *Guarantee.* Each client adds a vector of whole numbers with an L2 norm of at most the grid's
    bound, and the noise is a normal one of `multiplier` times that bound, rounded to whole numbers.
    Since the sum is whole, the noised sum is the rounding of a Gaussian mechanism's output, and what
    `accounting` says of one Gaussian event with this multiplier holds exactly, but for what
    `lattice` says of its samples.

    | edge                            | result                                                   |
    |---------------------------------|----------------------------------------------------------|
    | multiplier 0, inf, negative,    | UserError; without noise there is no guarantee           |
    | NaN                             |                                                          |
    | a bound that is infinite        | `aggregate` refuses                                      |
    | an empty cohort                 | the noise alone is released                              |
    | more clients than `most`        | the round refuses: a sum could wrap                      |

    Args:
      multiplier: above 0.
      clients: expected number of clients in a round, at least 1.
      most: the greatest number of clients that a round can have.

    Raises:
      UserError: an argument is out of range.

    >>> gaussian(1.1, clients=10).multiplier
    1.1
    """
    check_noise("gaussian", multiplier, clients)

    def draw(grid: Grid, like: PyTree, source: Source, present: int, slots: int) -> Drawn:
        return Drawn(server=noise_like(like, rounded_normal(grid.deviation), source))

    return Noise(
        "gaussian noise",
        multiplier,
        clients,
        most,
        grid=lambda bound: make_grid(bound, multiplier, most, MOST_SUM),
        init=lambda like: (),
        draw=draw,
        add=lambda state, total, drawn: (jax.tree.map(jnp.add, total, drawn), state),
    )


def side_by_side(like: PyTree, slots: int) -> PyTree:
    """The shapes of so many messages."""
    return jax.tree.map(lambda x: jax.ShapeDtypeStruct((slots, *x.shape), x.dtype), like)


def check_noise(name: str, multiplier: float, clients: int) -> None:
    """Refuses what no noise can be made of.

    Raises:
      UserError: names the noise.
    """
    if not 0 < multiplier < math.inf:  # NaN compares false
        raise UserError(f"{name}: multiplier", "a finite number above 0", multiplier)
    if clients < 1:
        raise UserError(f"{name}: clients", "at least 1", clients)
