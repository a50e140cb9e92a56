"""How much a run reveals about any one client: epsilon for some noise, noise for some epsilon.

*Guarantee.* One round selects every client independently with probability `sampling_rate`
(Poisson sampling), bounds each selected client's share of the sum to an L2 norm of S, and adds
normal noise with the deviation `noise_multiplier` * S to the sum. After `steps` such rounds all
that was released together is (epsilon, delta)-differentially private, where neighbours differ by
adding or removing one client with all its examples. It holds against whoever sees every round's
noised sum but neither who was selected nor the seed; it says nothing about real-valued noise
being drawn in floating point.

Both accountants give upper bounds, but for the rounding of float64. `pld` composes privacy loss
distributions, rounded pessimistically onto a grid (Koskela et al., 2020; Doroshenko et al., 2022),
and is the tighter; `rdp` composes Renyi divergences (Mironov, 2017; Mironov et al., 2019).

| edge                                    | epsilon                 | noise_multiplier  |
|-----------------------------------------|-------------------------|-------------------|
| sampling_rate 0, steps 0 or delta 1     | 0                       | 0                 |
| noise_multiplier inf; epsilon inf       | 0                       | 0                 |
| delta 0                                 | inf                     | inf               |
| noise_multiplier 0, or below 2^-10      | inf                     |                   |
| epsilon 0                               |                         | inf               |
| sampling_rate 1                         | that of unsampled noise | as any other rate |
| NaN, negative, rate or delta above 1,   | UserError               | UserError         |
| steps above 10^7                        |                         |                   |
| an epsilon that no noise up to 2^20 has |                         | UserError         |

What is out of range is refused first; of the other rows that apply, the upper one holds.
"""

import logging
import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, Literal, NamedTuple

import numpy as np

from lepton_jax.checks import UserError

Accountant = Literal["pld", "rdp"]

_LEAST_NOISE, _MOST_NOISE = 2.0**-10, 2.0**20
_PRECISION = 1e-4  # of a noise multiplier, relative
_MOST_STEPS = 10**7


class Poisson(NamedTuple):
    """The event that one round's selection is: each client independently with probability `rate`."""

    rate: float


def epsilon(
    *,
    sampling_rate: float,
    noise_multiplier: float,
    steps: int,
    delta: float,
    accountant: Accountant = "pld",
) -> float:
    """The epsilon of `steps` rounds; *Guarantee* and edge cases as in the module's docstring.

    Args:
      sampling_rate: probability in [0, 1] that a client takes part in a round.
      noise_multiplier: deviation of the noise over the L2 bound of one client's share.
      steps: number of rounds.
      delta: probability in [0, 1].
      accountant: `pld` or `rdp`.

    Returns:
      An upper bound on epsilon.

    Raises:
      UserError: an argument is out of range, or the extra `privacy` isn't installed.

    >>> figures = {"sampling_rate": 0.01, "noise_multiplier": 1.0, "delta": 1e-5}
    >>> round(epsilon(steps=1000, accountant="rdp", **figures), 3)
    2.101
    """
    event = Poisson(sampling_rate)
    return running_epsilon(
        event, noise_multiplier=noise_multiplier, delta=delta, accountant=accountant
    )(steps)


def running_epsilon(
    event: Poisson, *, noise_multiplier: float, delta: float, accountant: Accountant = "pld"
) -> Callable[[int], float]:
    """The epsilon after so many rounds, as a function; one round is analysed once, here.

    Args:
      event: how each round selects its clients.
      noise_multiplier: deviation of the noise over the L2 bound of one client's share.
      delta: probability in [0, 1].
      accountant: `pld` or `rdp`.

    Returns:
      rounds -> an upper bound on epsilon; it keeps no state, so that a resumed run tells the same.

    Raises:
      UserError: as `epsilon`.
    """
    _check("sampling_rate", event.rate, most=1)
    _check("noise_multiplier", noise_multiplier)
    _check("delta", delta, most=1)
    if accountant not in ("pld", "rdp"):
        raise UserError("accountant", "pld or rdp", repr(accountant))
    compose = _composition(event.rate, noise_multiplier, delta, accountant)

    def after(steps: int) -> float:
        _check("steps", steps, most=_MOST_STEPS)
        return compose(steps) if steps else 0.0

    return after


def noise_multiplier(
    *,
    epsilon: float,
    sampling_rate: float,
    steps: int,
    delta: float,
    accountant: Accountant = "pld",
) -> float:
    """The least noise, up to 1 in 10,000, with which `steps` rounds keep an epsilon.

    *Guarantee* and edge cases as in the module's docstring: the epsilon of what is returned, by
    the same accountant, is at most the one asked for.

    Args:
      epsilon: the target.
      sampling_rate: probability in [0, 1] that a client takes part in a round.
      steps: number of rounds.
      delta: probability in [0, 1].
      accountant: `pld` or `rdp`.

    Returns:
      Deviation of the noise over the L2 bound of one client's share.

    Raises:
      UserError: an argument is out of range, no noise reaches the epsilon, or the extra `privacy`
        isn't installed.

    >>> figures = {"sampling_rate": 0.01, "steps": 1000, "delta": 1e-5}
    >>> round(noise_multiplier(epsilon=2.1014, accountant="rdp", **figures), 3)
    1.0
    """
    _check("epsilon", epsilon)

    def spent(noise: float) -> float:
        event = Poisson(sampling_rate)
        run = running_epsilon(event, noise_multiplier=noise, delta=delta, accountant=accountant)
        return run(steps)

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


def _bisect(spent: Callable[[float], float], epsilon: float, enough: float) -> float:
    """Narrows down to where `spent` passes `epsilon`, on the side of more noise."""
    little = enough / 2
    while spent(little) <= epsilon:
        enough, little = little, little / 2
    while enough / little > 1 + _PRECISION:
        middle = math.sqrt(enough * little)
        enough, little = (middle, little) if spent(middle) <= epsilon else (enough, middle)
    return enough


def _check(where: str, value: int | float, most: int | float = math.inf) -> None:
    if not 0 <= value <= most:  # NaN compares false
        expected = "a number of at least 0" if most == math.inf else f"a number in [0, {most}]"
        raise UserError(where, expected, value)


def _composition(
    rate: float, noise: float, delta: float, accountant: Accountant
) -> Callable[[int], float]:
    """At least one round's epsilon by their number; the table's rows that need no accountant first."""
    if rate == 0 or delta == 1 or noise == math.inf:
        return lambda steps: 0.0
    if delta == 0 or noise < _LEAST_NOISE:
        return lambda steps: math.inf
    return (_pld if accountant == "pld" else _rdp)(rate, noise, delta)


def _pld(rate: float, noise: float, delta: float) -> Callable[[int], float]:
    accounting = _dp_accounting()
    loss = accounting.pld.privacy_loss_distribution.from_gaussian_mechanism(
        noise, sampling_prob=rate, value_discretization_interval=_grid(rate, noise)
    )
    return lambda steps: float(loss.self_compose(steps).get_epsilon_for_delta(delta))


def _grid(rate: float, noise: float) -> float:
    """The grid's interval: a fiftieth of one round's deviation of the privacy loss.

    So rounding costs about 0.02 % of epsilon (0.2 % with little noise), whatever the number of
    rounds, where a fixed interval is slow for large losses and loose for small ones. Against very
    small rates it is bounded from below, by what the loss ranges over within 10 deviations.
    """
    deviation = min(rate * math.sqrt(math.expm1(min(noise**-2, 700))), 1 / noise)
    largest = math.log1p(rate * math.expm1(min(10 / noise + 0.5 / noise**2, 700)))
    return max(deviation / 50, largest / 2**17)


def _rdp(rate: float, noise: float, delta: float) -> Callable[[int], float]:
    accounting = _dp_accounting()
    one = accounting.rdp.RdpAccountant()
    with _without_notes_on_left_out_orders():
        one.compose(accounting.PoissonSampledDpEvent(rate, accounting.GaussianDpEvent(noise)))
    # What cancels to less than rounding errors may even come out negative, and isn't known to be 0.
    divergences = np.maximum(one.rdp, 2.0**-50)
    return lambda steps: float(
        accounting.rdp.compute_epsilon(one.orders, steps * divergences, delta)[0]
    )


@contextmanager
def _without_notes_on_left_out_orders() -> Iterator[None]:
    """An order whose series doesn't converge is left out, which only loosens the bound."""
    logger = logging.getLogger("absl")

    def keep(record: logging.LogRecord) -> bool:
        return "_compute_log_a_frac failed to converge" not in record.msg

    logger.addFilter(keep)
    try:
        yield
    finally:
        logger.removeFilter(keep)


def _dp_accounting() -> Any:
    try:
        import dp_accounting
        import dp_accounting.pld
        import dp_accounting.rdp
    except ImportError:
        raise UserError(
            "privacy accounting",
            "the extra `privacy`",
            "no dp_accounting here",
            "pip install 'lepton-jax[privacy]'",
        ) from None
    return dp_accounting
