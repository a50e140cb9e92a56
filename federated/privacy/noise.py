"""Noise on the sum of clipped updates: the Gaussian mechanism, for whole clients."""

import math
from collections.abc import Callable
from typing import NamedTuple

from lepton_jax import config
from lepton_jax.checks import UserError
from lepton_jax.privacy.noise import add_normal
from lepton_jax.typing import PRNGKey, PyTree


class Noise(NamedTuple):
    """What is added to a round's sum.

    Attributes:
      name: for messages.
      multiplier: deviation of the noise over the L2 bound of one client's share.
      clients: what the noised sum is divided by: the expected number of clients. The number that
        came is private.
      add: (sum, bound of one client's share, key) -> noised sum.
    """

    name: str
    multiplier: float
    clients: int
    add: Callable[[PyTree, float, PRNGKey], PyTree]


def make_noise(settings: config.Federated) -> Noise | None:
    """A config's noise, if it has any."""
    if settings.noise is None:
        return None
    return gaussian(settings.noise.multiplier, settings.clients_per_round)


def gaussian(multiplier: float, clients: int) -> Noise:
    """Normal noise of deviation `multiplier` times the bound (McMahan et al., 2018).

    *Guarantee.* Of a sum to which each client adds a share with an L2 norm of at most the bound,
    one noised sum is what `accounting` takes for one Gaussian event with this multiplier. Each
    leaf has a key of its own, and a round's key is used for nothing else. Samples are float32 of
    Threefry: at most 5.5 deviations out, and known to whoever knows the run's seed.

    | edge                            | result                                                   |
    |---------------------------------|----------------------------------------------------------|
    | multiplier 0                    | the sum unchanged; accounting says epsilon is infinite   |
    | multiplier inf, negative or NaN | UserError                                                |
    | a bound that is infinite        | `aggregate` refuses                                      |
    | an empty cohort                 | the noise alone is released                              |

    Args:
      multiplier: at least 0.
      clients: expected number of clients in a round, at least 1.

    Raises:
      UserError: an argument is out of range.

    >>> gaussian(1.1, clients=10).multiplier
    1.1
    """
    if not 0 <= multiplier < math.inf:  # NaN compares false
        raise UserError("gaussian: multiplier", "a finite number of at least 0", multiplier)
    if clients < 1:
        raise UserError("gaussian: clients", "at least 1", clients)

    def add(total: PyTree, bound: float, key: PRNGKey) -> PyTree:
        return add_normal(total, multiplier * bound, key)

    return Noise("gaussian noise", multiplier, clients, add)
