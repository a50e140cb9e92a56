"""How much a run reveals about any one unit: epsilon for some noise, noise for some epsilon.

*Guarantee.* A unit is a client with all its examples, or one example. Each release bounds every
participating unit's share of the sum to an L2 norm of S and adds normal noise with the deviation
`noise_multiplier` * S, to the sum or to a tree's nodes; the event says which units take part. After
so many releases all that was released together is (epsilon, delta)-differentially private, where
neighbours differ by one unit: it is there or not (`add-remove`), or has other data (`replace-one`).
Where the order is fixed beforehand, the others keep their places. It holds against whoever sees
every release but neither who was selected nor the seed; it says nothing about real-valued noise
being drawn in floating point.

Both accountants give upper bounds, but for the rounding of float64. `pld` composes privacy loss
distributions, rounded pessimistically onto a grid (Koskela et al., 2020; Doroshenko et al., 2022),
and is the tighter; `rdp` composes Renyi divergences (Mironov, 2017; Mironov et al., 2019).

`discrete`: shares are vectors of integers, and noise is discrete normal (Canonne et al., 2020). For
an integer order l and an integer vector x, E[(Q/P)^l] over P, of two such distributions that are x
apart, is exp(l (l-1) |x|^2 / (2 sigma^2)) exactly, as of normal ones, since l x is an integer vector
too. So the series of the Poisson-sampled Gaussian holds at integer orders, and `rdp` uses those
alone. The reflection k -> x - k swaps P and Q, so that the other direction is no larger (Mironov et
al., 2019, theorem 5). A sum of n discrete normal numbers, each with a deviation of at least 3, has
a discrete normal number's probabilities up to factors within exp(n 10^-37) (Kairouz, Liu and
Steinke, 2021), far below the rounding of float64.

| edge                                     | epsilon                 | noise multiplier  |
|------------------------------------------|-------------------------|-------------------|
| sampling_rate 0, no release or delta 1   | 0                       | 0                 |
| noise_multiplier inf; epsilon inf        | 0                       | 0                 |
| delta 0                                  | inf                     | inf               |
| noise_multiplier 0, or below 2^-10       | inf                     |                   |
| (2^-9 for `replace-one` unsampled)       |                         |                   |
| epsilon 0                                |                         | inf               |
| releases so few or rare, or noise so     | 0                       | as any other      |
| much, that they tell no more than delta  |                         |                   |
| sampling_rate 1                          | that of `Passes(1)`     | as any other rate |
| noise_multiplier above 2^20              | at most that of 2^20    |                   |
| sampling_rate below 2^-40                | at most that of 2^-40   | as any other rate |
| `replace-one` unsampled                  | that of half the noise  | twice the noise   |
| NaN, negative, rate or delta above 1;    | UserError               | UserError         |
| steps or releases above 10^7; a          |                         |                   |
| pass_length not whole or below 1         |                         |                   |
| `rdp` and `replace-one` with a           | UserError               | UserError         |
| sampling_rate above 0 and below 1        |                         |                   |
| `pld` and `discrete`                     | UserError               | UserError         |
| an epsilon that no noise up to 2^20 has  |                         | UserError         |

What is refused is refused first; of the other rows that apply, the upper one holds.
"""

import math
from collections.abc import Callable

import msgspec

from lepton_jax.checks import UserError
from lepton_jax.config import Accountant, Adjacency
from lepton_jax.privacy.composition import accountant_version
from lepton_jax.privacy.events import Event, Passes, Poisson, TreePasses
from lepton_jax.privacy.running import (
    affordable,
    check_number,
    check_whole,
    event_of,
    running_epsilon,
    spending,
)
from lepton_jax.privacy.terms import Terms

__all__ = [
    "Accountant",
    "Adjacency",
    "Event",
    "Passes",
    "Poisson",
    "TreePasses",
    "accountant_version",
    "affordable",
    "calibrate",
    "calibrated",
    "epsilon",
    "noise_multiplier",
    "running_epsilon",
    "spending",
]

_MOST_NOISE = 2.0**20
_PRECISION = 1e-4  # of a noise multiplier, relative


def epsilon(
    *,
    sampling_rate: float,
    noise_multiplier: float,
    steps: int,
    delta: float,
    accountant: Accountant = "pld",
    adjacency: Adjacency = "add-remove",
) -> float:
    """The epsilon of `steps` Poisson-sampled releases; *Guarantee* and edges as in the module's docstring.

    Args:
      sampling_rate: probability in [0, 1] that a unit takes part in a release.
      noise_multiplier: deviation of the noise over the L2 bound of one unit's share.
      steps: number of releases.
      delta: probability in [0, 1].
      accountant: `pld` or `rdp`.
      adjacency: what neighbours differ by.

    Returns:
      An upper bound on epsilon.

    Raises:
      UserError: as the module's table says, or the extra `privacy` isn't installed.

    >>> figures = {"sampling_rate": 0.01, "noise_multiplier": 1.0, "delta": 1e-5}
    >>> round(epsilon(steps=1000, accountant="rdp", **figures), 3)
    2.101
    """
    check_whole("steps", steps)
    spent = running_epsilon(
        Poisson(sampling_rate),
        noise_multiplier=noise_multiplier,
        delta=delta,
        accountant=accountant,
        adjacency=adjacency,
    )
    return spent(steps)


def noise_multiplier(
    *,
    epsilon: float,
    sampling_rate: float,
    steps: int,
    delta: float,
    accountant: Accountant = "pld",
    adjacency: Adjacency = "add-remove",
) -> float:
    """The least noise, up to 1 in 10,000, with which `steps` Poisson-sampled releases keep an epsilon.

    *Guarantee* and edges as in the module's docstring: the epsilon of what is returned, by the same
    accountant, is at most the one asked for.

    Args:
      epsilon: the target.
      sampling_rate: probability in [0, 1] that a unit takes part in a release.
      steps: number of releases.
      delta: probability in [0, 1].
      accountant: `pld` or `rdp`.
      adjacency: what neighbours differ by.

    Returns:
      Deviation of the noise over the L2 bound of one unit's share.

    Raises:
      UserError: as the module's table says, or the extra `privacy` isn't installed.

    >>> figures = {"sampling_rate": 0.01, "steps": 1000, "delta": 1e-5}
    >>> round(noise_multiplier(epsilon=2.1014, accountant="rdp", **figures), 3)
    1.0
    """
    check_whole("steps", steps)
    return calibrate(
        Poisson(sampling_rate),
        epsilon=epsilon,
        releases=steps,
        delta=delta,
        accountant=accountant,
        adjacency=adjacency,
    )


def calibrate(
    event: Event,
    *,
    epsilon: float,
    releases: int,
    delta: float,
    accountant: Accountant = "pld",
    adjacency: Adjacency = "add-remove",
    discrete: bool = False,
) -> float:
    """The least noise, up to 1 in 10,000, with which so many releases keep an epsilon.

    *Guarantee* and edges as in the module's docstring: the epsilon of what is returned, by the same
    accountant, is at most the one asked for.

    Args:
      event: which units take part in each release, and how noise is shared between releases.
      epsilon: the target.
      releases: their number.
      delta: probability in [0, 1].
      accountant: `pld` or `rdp`.
      adjacency: what neighbours differ by.
      discrete: shares and noise are integers.

    Returns:
      Deviation of the noise over the L2 bound of one unit's share.

    Raises:
      UserError: as the module's table says, or the extra `privacy` isn't installed.

    >>> round(calibrate(Passes(100), epsilon=2.0, releases=400, delta=1e-5, accountant="rdp"), 2)
    4.3
    """
    check_number("epsilon", epsilon)

    def spent(noise: float) -> float:
        return running_epsilon(
            event,
            noise_multiplier=noise,
            delta=delta,
            accountant=accountant,
            adjacency=adjacency,
            discrete=discrete,
        )(releases)

    if spent(0.0) <= epsilon:
        return 0.0
    if epsilon == 0 or delta == 0:
        return math.inf
    enough = 1.0
    while spent(enough) > epsilon:
        enough *= 2
        if enough > _MOST_NOISE:
            raise UserError(
                "epsilon",
                f"one that the accountant {accountant} reaches with some noise",
                epsilon,
                "raise epsilon or delta",
            )
    return _bisect(spent, epsilon, enough)


def calibrated(terms: Terms, releases: int) -> Terms:
    """The terms with the least noise that keeps their budget for so many releases.

    Raises:
      UserError: as `calibrate` and `spending`.
    """
    if terms.budget is None:
        raise UserError("epsilon", "a budget to find the noise for", "none", "set epsilon")
    found = calibrate(
        event_of(terms),
        epsilon=terms.budget,
        releases=releases,
        delta=terms.delta,
        accountant=terms.accountant,
        adjacency=terms.adjacency,
        discrete=terms.mechanism == "distributed",
    )
    return msgspec.structs.replace(terms, noise_multiplier=found)


def _bisect(spent: Callable[[float], float], epsilon: float, enough: float) -> float:
    """Narrows down to where `spent` passes `epsilon`, on the side of more noise."""
    little = enough / 2
    while spent(little) <= epsilon:
        enough, little = little, little / 2
    while enough / little > 1 + _PRECISION:
        middle = math.sqrt(enough * little)
        enough, little = (middle, little) if spent(middle) <= epsilon else (enough, middle)
    return enough
