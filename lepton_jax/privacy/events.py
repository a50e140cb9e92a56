"""The events that an accountant composes: which units take part in a release, and how noise is shared.

A unit is what a guarantee protects: a client with all its examples, or one example.
"""

from typing import NamedTuple


class Poisson(NamedTuple):
    """Each unit takes part in a release independently with probability `rate`; noise is fresh."""

    rate: float


class Passes(NamedTuple):
    """A unit takes part at most once in any `length` successive releases, by an order fixed before.

    Nothing is gained from chance. Noise is fresh in each release, or correlated by a banded matrix
    whose columns have an L2 norm of 1 and no more than `length` bands: columns that are `length`
    apart then have no row in common, so that k participations move the whole by sqrt(k), as they
    do with fresh noise (Choquette-Choo et al., 2023).
    """

    length: int


class TreePasses(NamedTuple):
    """As `Passes`, with noise on the nodes of a binary tree over each pass of `length` releases.

    What is released are sums over the pass so far, put together from the tree's finished nodes;
    every node has noise of its own, and the next pass a new tree (Kairouz et al., 2021).
    """

    length: int


Event = Poisson | Passes | TreePasses


def gaussians(event: Event, releases: int) -> int:
    """The most noised sums that one unit is in, after so many releases.

    Of a tree's nodes those count that are finished and have the unit below them: log2 of the
    releases in its pass, rounded down, plus 1, where it took part in the first.

    Args:
      event: which units take part; with `Poisson` the sums are those that it may be in.
      releases: their number.

    Returns:
      How many Gaussian mechanisms, of a sensitivity of one share, are to be composed.

    >>> gaussians(Poisson(0.1), 9), gaussians(Passes(4), 9), gaussians(TreePasses(4), 9)
    (9, 3, 7)
    """
    if isinstance(event, Poisson):
        return releases
    whole, rest = divmod(releases, event.length)
    if isinstance(event, Passes):
        return whole + (rest > 0)
    return whole * event.length.bit_length() + rest.bit_length()
