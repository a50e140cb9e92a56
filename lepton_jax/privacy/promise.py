"""A guarantee and its price: what a run's releases cost, and the noise that a budget needs."""

from collections.abc import Callable
from functools import cache
from typing import NamedTuple

from lepton_jax.privacy.accounting import calibrated, spending
from lepton_jax.privacy.terms import Terms


class Promise(NamedTuple):
    """What a run promises, and what keeping it costs.

    Attributes:
      terms: what is promised.
      spent: releases -> epsilon.
      releases: (number of a round or epoch, whether it is done again) -> the releases to charge it
        as: so many that no unit takes part oftener than is accounted for.
    """

    terms: Terms
    spent: Callable[[int], float]
    releases: Callable[[int, bool], int]


def make_promise(
    terms: Terms, multiplier: float | None, releases: Callable[[int, bool], int], last: int
) -> Promise:
    """A promise, with the noise that its budget needs where none is given.

    Args:
      terms: what is promised; their noise multiplier is `multiplier`, and of no matter where that is
        None.
      multiplier: of the noise; None: the least that keeps the budget to the end.
      releases: as of `Promise`.
      last: the number of the last round or epoch.

    Raises:
      UserError: the terms can't be accounted for, or no noise keeps the budget.
    """
    if multiplier is None:
        terms = calibrated(terms, sum(releases(number, False) for number in range(1, last + 1)))
    return Promise(terms, cache(spending(terms)), releases)
