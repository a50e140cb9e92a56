"""Epsilon as a function of how many releases were made, for an event or for a run's terms.

*Guarantee* and edge cases are those of `lepton_jax.privacy.accounting`.
"""

import math
from collections.abc import Callable
from typing import get_args

from lepton_jax.checks import UserError
from lepton_jax.config import Accountant, Adjacency
from lepton_jax.privacy.composition import by_divergence, by_loss
from lepton_jax.privacy.events import Event, Passes, Poisson, TreePasses, gaussians
from lepton_jax.privacy.terms import Terms

_LEAST_NOISE, _MOST_NOISE = 2.0**-10, 2.0**20
_LEAST_RATE = 2.0**-40
_MOST_RELEASES = 10**7


def running_epsilon(
    event: Event,
    *,
    noise_multiplier: float,
    delta: float,
    accountant: Accountant = "pld",
    adjacency: Adjacency = "add-remove",
    discrete: bool = False,
) -> Callable[[int], float]:
    """The epsilon after so many releases, as a function; one release is analysed once, here.

    Args:
      event: which units take part in each release, and how noise is shared between releases.
      noise_multiplier: deviation of the noise over the L2 bound of one unit's share.
      delta: probability in [0, 1].
      accountant: `pld` or `rdp`.
      adjacency: what neighbours differ by.
      discrete: shares and noise are integers.

    Returns:
      releases -> an upper bound on epsilon; it keeps no state, so that a resumed run tells the same.

    Raises:
      UserError: as the table in `accounting` says, or the extra `privacy` isn't installed.

    >>> spent = running_epsilon(Passes(10), noise_multiplier=4.0, delta=1e-5, accountant="rdp")
    >>> [round(spent(releases), 3) for releases in (0, 1, 10, 11)]
    [0.0, 1.013, 1.013, 1.478]
    """
    check_number("noise_multiplier", noise_multiplier)
    check_number("delta", delta, most=1.0)
    rate = _checked_rate(event)
    _check_method(rate, accountant, adjacency, discrete)
    if adjacency == "replace-one" and rate == 1:
        # In the sums that it is certainly in, a unit's two shares are at most two bounds apart.
        noise_multiplier, adjacency = noise_multiplier / 2, "add-remove"
    compose = _composition(rate, noise_multiplier, delta, accountant, adjacency, discrete)

    def after(releases: int) -> float:
        check_whole("releases", releases)
        return compose(gaussians(event, releases)) if releases else 0.0

    return after


def _composition(
    rate: float,
    noise: float,
    delta: float,
    accountant: Accountant,
    adjacency: Adjacency,
    discrete: bool,
) -> Callable[[int], float]:
    """At least one sum's epsilon by their number; the table's rows that need no accountant first."""
    if rate == 0 or delta == 1 or noise == math.inf:
        return lambda times: 0.0
    if delta == 0 or noise < _LEAST_NOISE:
        return lambda times: math.inf
    # The total variation of one sum whose unit's two shares are two bounds apart (Pinsker).
    told = rate * min(1.0, 1 / noise)
    # Less noise and a higher rate cost more, and float64 can tell these from none.
    rate, noise = max(rate, _LEAST_RATE), min(noise, _MOST_NOISE)
    compose = (
        by_loss(rate, noise, delta, adjacency)
        if accountant == "pld"
        else by_divergence(rate, noise, delta, discrete)
    )
    return lambda times: 0.0 if times * told <= delta else compose(times)


def _checked_rate(event: Event) -> float:
    """How likely a unit is to be in one of its event's `gaussians`."""
    if isinstance(event, Poisson):
        check_number("sampling_rate", event.rate, most=1.0)
        return event.rate
    check_whole("pass_length", event.length, least=1)
    return 1.0


def _check_method(
    rate: float, accountant: Accountant, adjacency: Adjacency, discrete: bool
) -> None:
    """Refuses what isn't known, or not proven, to hold."""
    if accountant not in get_args(Accountant):
        raise UserError("accountant", "pld or rdp", repr(accountant))
    if adjacency not in get_args(Adjacency):
        raise UserError("adjacency", "add-remove or replace-one", repr(adjacency))
    if discrete and accountant == "pld":
        raise UserError(
            "accountant",
            "rdp for discrete noise, whose privacy loss in many dimensions isn't a normal one's",
            accountant,
            "set accountant = rdp",
        )
    if adjacency == "replace-one" and accountant == "rdp" and 0 < rate < 1:
        raise UserError(
            "adjacency",
            "add-remove for Poisson sampling with rdp, which is proven for that alone",
            adjacency,
            "set adjacency = add-remove" + ("" if discrete else " or accountant = pld"),
        )


def check_number(where: str, value: int | float, most: float = math.inf) -> None:
    """Refuses what isn't in [0, most]."""
    if not 0 <= value <= most:  # NaN compares false
        expected = "a number of at least 0" if most == math.inf else f"a number in [0, {most:g}]"
        raise UserError(where, expected, value)


def check_whole(where: str, value: int | float, least: int = 0) -> None:
    """Refuses what isn't a whole number from `least` to 10^7."""
    if not (least <= value <= _MOST_RELEASES and value == int(value)):
        raise UserError(where, f"a whole number in [{least}, {_MOST_RELEASES}]", value)


def affordable(spent: Callable[[int], float], budget: float, most: int) -> int:
    """The largest number of releases, of at most `most`, that stays within a budget.

    | edge                              | result                                     |
    |-----------------------------------|--------------------------------------------|
    | most 0                            | 0                                          |
    | budget inf                        | most                                       |
    | budget 0                          | the releases that cost nothing             |
    | even the first costs more         | 0                                          |
    | a cost that is NaN                | it is above every budget                   |
    | budget NaN or negative; most      | UserError                                  |
    | negative or above 10^7            |                                            |

    Args:
      spent: releases -> epsilon, which never falls; it is called about log2(most) times.
      budget: the epsilon that may not be passed.
      most: the releases that are wanted.

    Returns:
      Their number.

    Raises:
      UserError: as the table says.

    >>> affordable(lambda releases: 0.3 * releases, 1.0, 10)
    3
    """
    check_number("epsilon", budget)
    check_whole("releases", most)
    if most == 0 or spent(most) <= budget:
        return most
    within, beyond = 0, most
    while beyond - within > 1:
        middle = (within + beyond) // 2
        within, beyond = (middle, beyond) if spent(middle) <= budget else (within, middle)
    return within


def spending(terms: Terms) -> Callable[[int], float]:
    """The epsilon after so many releases of a run that keeps these terms.

    | terms                                  | accounted as                                    |
    |----------------------------------------|-------------------------------------------------|
    | `poisson`                              | `Poisson(sampling_rate)`                        |
    | `cyclic`                               | `Passes(pass_length)`                           |
    | `cyclic`, mechanism `tree`             | `TreePasses(pass_length)`                       |
    | mechanism `local`, whatever sampler    | `Passes(1)`: releases are the unit's own        |
    | mechanism `distributed`                | discrete noise                                  |
    | `poisson` with `tree` or `banded`;     | UserError                                       |
    | `fixed` unless `local`; no rate or     |                                                 |
    | pass_length; no bands, or more than    |                                                 |
    | the pass_length; `local` with another  |                                                 |
    | adjacency than `replace-one`           |                                                 |

    Args:
      terms: what was promised.

    Returns:
      releases -> an upper bound on epsilon.

    Raises:
      UserError: as the table says, and as `running_epsilon`.
    """
    return running_epsilon(
        event_of(terms),
        noise_multiplier=terms.noise_multiplier,
        delta=terms.delta,
        accountant=terms.accountant,
        adjacency=terms.adjacency,
        discrete=terms.mechanism == "distributed",
    )


def event_of(terms: Terms) -> Event:
    """What one release of a run that keeps these terms is; refusals as of `spending`."""
    if terms.mechanism == "local":
        if terms.adjacency != "replace-one":
            raise UserError(
                "adjacency",
                "replace-one with local noise, which hides what a unit sends, not whether it does",
                terms.adjacency,
                "set adjacency = replace-one",
            )
        return Passes(1)
    if terms.sampler == "fixed":
        raise UserError(
            "sampling",
            "poisson or cyclic, which epsilon is accounted for",
            terms.sampler,
            "set sampling = poisson or cyclic",
        )
    if terms.sampler == "poisson":
        return _sampled(terms)
    length = _given("pass_length", terms.pass_length)
    if terms.mechanism == "banded" and _given("bands", terms.bands) > length:
        raise UserError(
            "bands",
            f"at most the {length} releases between two of a unit's",
            terms.bands,
            "set fewer bands, or fewer units a release",
        )
    return TreePasses(length) if terms.mechanism == "tree" else Passes(length)


def _sampled(terms: Terms) -> Event:
    if terms.mechanism in ("tree", "banded"):
        raise UserError(
            "sampling",
            f"cyclic with {terms.mechanism} noise, where each unit's releases are known beforehand",
            terms.sampler,
            "set sampling = cyclic, or gaussian noise",
        )
    if terms.sampling_rate is None:
        raise UserError("sampling_rate", "a number with poisson sampling", None)
    return Poisson(terms.sampling_rate)


def _given(where: str, value: int | None) -> int:
    if value is None:
        raise UserError(where, "a whole number with cyclic sampling", None)
    return value
