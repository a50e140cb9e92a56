"""Noise that clients add before anything leaves them: each enough for itself, or all together."""

import math
from collections.abc import Callable

from federated.privacy.noise import MOST_SUM, Drawn, Noise, check_noise, side_by_side
from lepton_jax import config
from lepton_jax.checks import UserError
from lepton_jax.privacy.entropy import Source
from lepton_jax.privacy.grid import Grid, make_grid, noise_like
from lepton_jax.privacy.lattice import discrete_normal, rounded_normal
from lepton_jax.typing import PyTree

_TAIL = 14  # deviations, above where `lattice` cuts
_LEAST_PART = 16


def local(multiplier: float, clients: int, most: int = 4096) -> Noise:
    """Normal noise on each client's own update: local differential privacy.

    *Guarantee.* Whatever else is seen, one client's message is the rounding of a Gaussian
    mechanism's output with this multiplier. Two updates are at most twice the bound apart, so that
    `accounting` takes one message for one Gaussian event under replace-one.

    | edge                       | result                                                        |
    |----------------------------|---------------------------------------------------------------|
    | an empty slot              | adds exactly 0, no noise either                               |
    | multiplier, clients, most  | as of `gaussian`                                              |

    Args:
      multiplier: deviation of each client's noise over the bound.
      clients: expected number of clients in a round.
      most: the greatest number of clients that a round can have.

    Raises:
      UserError: an argument is out of range.
    """
    check_noise("local", multiplier, clients)

    def draw(grid: Grid, like: PyTree, source: Source, present: int, slots: int) -> Drawn:
        return Drawn(
            clients=noise_like(side_by_side(like, slots), rounded_normal(grid.deviation), source)
        )

    return _by_clients(
        "local noise", multiplier, clients, most, lambda bound: _grid(bound, multiplier, most), draw
    )


def distributed(multiplier: float, clients: int, secure: config.Secure, most: int = 4096) -> Noise:
    """Discrete normal noise, a part by each client, for a sum that only all of them can open.

    *Guarantee.* Of n clients that begin a round, at least m = n - ceil(n dropouts) - ceil(n colluders)
    stay and tell nobody their noise. Each draws a discrete normal of variance (multiplier * bound)^2 / m, so that
    the sum of any m has at least the variance asked for. It is a discrete normal itself, but for a
    factor of exp(+-10 n exp(-pi^2 s^2)) with s the deviation of one (Kairouz et al., 2021, Theorem
    1), which is 1 for float64 from s = 9 on; what the others add, and what colluders know, only
    shifts it. `accounting` takes it for one discrete Gaussian event with this multiplier.

    | edge                                        | result                                       |
    |---------------------------------------------|----------------------------------------------|
    | Poisson cohorts where some may be missing   | the config refuses: the noise that makes up  |
    |                                             | for them would tell how many were chosen     |
    | more drop out than may                      | secure aggregation aborts; nothing is opened |
    | nobody drops out                            | more noise than was asked for                |
    | so many clients that a part's deviation     | UserError                                    |
    | would be below 16 units                     |                                              |
    | multiplier, clients, most                   | as of `gaussian`                             |

    Args:
      multiplier: deviation of the sum's noise over the bound.
      clients: expected number of clients in a round.
      secure: the fractions of a round's clients that may drop out or collude with the server.
      most: the greatest number of clients that a round can have.

    Raises:
      UserError: as in the table, or an argument is out of range.
    """
    check_noise("distributed", multiplier, clients)

    def grid(bound: float) -> Grid:
        found = _grid(bound, multiplier, most)
        if found.deviation < _LEAST_PART * math.sqrt(most):
            raise UserError(
                "distributed noise",
                f"parts of a deviation of at least {_LEAST_PART} units from each of {most} clients",
                f"{found.deviation / math.sqrt(most):.3g}",
                "raise the multiplier, or take fewer clients a round",
            )
        return found

    def draw(grid: Grid, like: PyTree, source: Source, present: int, slots: int) -> Drawn:
        part = grid.deviation / math.sqrt(staying(present, secure))
        return Drawn(clients=noise_like(side_by_side(like, slots), discrete_normal(part), source))

    return _by_clients("distributed noise", multiplier, clients, most, grid, draw)


def staying(present: int, secure: config.Secure) -> int:
    """How many of a round's clients stay and keep their noise to themselves, at least 1.

    >>> staying(10, config.Secure(dropouts=0.25, colluders=0.1))
    6
    """
    gone = math.ceil(present * secure.dropouts) + math.ceil(present * secure.colluders)
    return max(1, present - gone)


def _grid(bound: float, multiplier: float, most: int) -> Grid:
    # Not even if all clients' noise is at its greatest does the sum of `most` of them wrap.
    return make_grid(bound, multiplier, most, int(MOST_SUM / (1 + _TAIL * multiplier)))


def _by_clients(
    name: str,
    multiplier: float,
    clients: int,
    most: int,
    grid: Callable[[float], Grid],
    draw: Callable[[Grid, PyTree, Source, int, int], Drawn],
) -> Noise:
    return Noise(
        name,
        multiplier,
        clients,
        most,
        grid,
        init=lambda like: (),
        draw=draw,
        add=lambda state, total, drawn: (total, state),
    )
