"""Which clients share masks and secrets: everyone with everyone, or few on a random ring.

With n clients every pair costs n^2 masks. Bell et al. (2020) mask along the edges of a k-regular
Harary graph instead: the clients stand on a ring in random order, and each has the k/2 nearest on
either side as neighbours.

*Guarantee.* Let c of n clients collude with the server and d drop out, both chosen before the
graph was drawn. Up to the stated probability of failure, for every client

1. fewer than t of its neighbours collude: nobody's secret can be put together by colluders;
2. at least t of its neighbours stay: every mask that has to be removed can be;
3. the graph of honest clients that stay is connected: only the sum of all their vectors is learnt.

The bounds, each by a union over clients, where H(m; n-1, k) is how many of m marked clients are
among k drawn from n-1 (hypergeometric):

1. n P[H(c) >= t]
2. n P[H(d) >= k - t + 1]
3. C(n, 2) prod_{i<k} (c + d - i) / (n - i)

For 3: on the ring two successive honest clients that stay are neighbours unless k/2 in a row
between them are gone. One such gap leaves a path, so that two are needed to part the graph, at one
of C(n, 2) pairs of places, and each pair is k certain clients gone.

A secret is held by the neighbours and its dealer, k + 1 in all, and t is above half of that. Since
every holder reveals a share of only one of a client's two secrets, nobody's two secrets can both be
put together without colluders, whatever the server says of who dropped out.
"""

import hashlib
import math
from typing import NamedTuple

import numpy as np

from federated.secure.keys import label
from federated.secure.messages import Context
from lepton_jax.checks import UserError

_ALL_PAIRS = 32  # so few clients can afford every pair, which also holds beyond what was stated


class Shape(NamedTuple):
    """How many neighbours each client has, and how many shares give a secret back."""

    degree: int
    threshold: int


def choose_shape(clients: int, *, dropouts: float, colluders: float, failure: float) -> Shape:
    """The least degree with which all three bounds together stay below a probability of failure.

    *Guarantee* as in the module's docstring. Up to 32 clients, and where no sparse graph will do,
    the graph is complete, the threshold is above both n / 2 and c, and nothing is left to chance.

    | edge                                              | result           |
    |---------------------------------------------------|------------------|
    | fewer than 3 clients                              | UserError        |
    | a fraction negative, NaN or at least 1            | UserError        |
    | failure 0, negative, NaN or at least 1            | UserError        |
    | so many dropouts and colluders that no t is right | UserError        |
    | up to 32 clients                                  | a complete graph |
    | a failure so small that no sparse graph has it    | a complete graph |
    | more than 32, neither dropouts nor colluders      | a plain ring     |

    Args:
      clients: n.
      dropouts: fraction of the clients that may drop out, rounded up to whole clients.
      colluders: fraction that may collude with the server, likewise.
      failure: probability that a round's graph doesn't keep the guarantee; 2^-40, say.

    Raises:
      UserError: as in the table.

    >>> choose_shape(10, dropouts=0.2, colluders=0.2, failure=2**-40)
    Shape(degree=9, threshold=6)
    >>> choose_shape(1000, dropouts=0.1, colluders=0.1, failure=2**-40)
    Shape(degree=58, threshold=30)
    """
    _check(clients, dropouts, colluders, failure)
    gone, bad = (math.ceil(round(part * clients, 9)) for part in (dropouts, colluders))
    complete = Shape(clients - 1, max(clients // 2, bad) + 1)
    if clients - gone < complete.threshold:
        raise UserError(
            "secure aggregation: dropouts",
            f"at most {clients - complete.threshold} of {clients} clients",
            gone,
            "lower dropouts or colluders",
        )
    logs = np.concatenate([[0.0], np.cumsum(np.log(np.arange(1, clients + 1)))])  # of factorials
    for degree in range(2, clients - 1, 2) if clients > _ALL_PAIRS else ():
        threshold, chance = _best_threshold(logs, gone, bad, degree)
        if chance <= failure:
            return Shape(degree, threshold)
    return complete


def neighbours(clients: int, degree: int, context: Context) -> tuple[tuple[int, ...], ...]:
    """Each client's neighbours in one round, in order.

    The ring's order follows from the session and the round, so that whoever knows them can check
    it. It is as random as the session's name is to those who choose whom to corrupt.

    Args:
      clients: at least 3.
      degree: even, or one less than `clients` for a complete graph.
      context: the session and round.

    Raises:
      UserError: there is no such graph.

    >>> neighbours(6, 2, Context(b"sixteen bytes or more", 0))
    ((1, 3), (0, 5), (3, 4), (0, 2), (2, 5), (1, 4))
    """
    if clients < 3:
        raise UserError("secure aggregation: clients", "at least 3", clients)
    if not 2 <= degree < clients or (degree % 2 and degree != clients - 1):
        expected = f"an even number of at least 2, or {clients - 1}, all others"
        raise UserError("secure aggregation: degree", expected, degree)
    if degree == clients - 1:
        return tuple(tuple(j for j in range(clients) if j != i) for i in range(clients))
    ring = sorted(range(clients), key=lambda i: hashlib.sha256(label(context, "graph", i)).digest())
    steps = [step for step in range(-(degree // 2), degree // 2 + 1) if step]
    near = {i: sorted(ring[(at + s) % clients] for s in steps) for at, i in enumerate(ring)}
    return tuple(tuple(near[i]) for i in range(clients))


def is_connected(members: set[int], edges: tuple[tuple[int, ...], ...]) -> bool:
    """Whether a graph's members, at least one, reach each other through members only.

    >>> is_connected({0, 1}, ((1, 2), (0, 2), (0, 1))), is_connected({0, 2}, ((1,), (0, 2), (1,)))
    (True, False)
    """
    reached: set[int] = set()
    todo = [min(members)]
    while todo:
        i = todo.pop()
        if i not in reached:
            reached.add(i)
            todo.extend(j for j in edges[i] if j in members)
    return reached == members


def _check(clients: int, dropouts: float, colluders: float, failure: float) -> None:
    if clients < 3:
        raise UserError("secure aggregation: clients", "at least 3", clients)
    for name, part in (("dropouts", dropouts), ("colluders", colluders)):
        if not 0 <= part < 1:
            raise UserError(f"secure aggregation: {name}", "a fraction in [0, 1)", part)
    if not 0 < failure < 1:
        raise UserError("secure aggregation: failure", "a probability in (0, 1)", failure)


def _best_threshold(logs: np.ndarray, gone: int, bad: int, degree: int) -> tuple[int, float]:
    """The threshold above half with the least sum of the three bounds, and that sum."""
    clients = len(logs) - 1
    corrupt, dropped = (_tails(logs, marked, degree) for marked in (bad, gone))
    thresholds = np.arange(degree // 2 + 1, degree + 1)
    chances = clients * (corrupt[thresholds] + dropped[degree - thresholds + 1])
    best = int(np.argmin(chances))
    return int(thresholds[best]), float(chances[best]) + _parted(logs, gone + bad, degree)


def _tails(logs: np.ndarray, marked: int, draws: int) -> np.ndarray:
    """P[H >= x] for x = 0 .. draws + 1, where H of those drawn from all but one are marked."""
    population = len(logs) - 2

    def log_choose(n: np.ndarray | int, k: np.ndarray | int) -> np.ndarray | float:
        return logs[n] - logs[k] - logs[n - k]

    x = np.arange(max(0, draws - population + marked), min(draws, marked) + 1)
    ways = log_choose(marked, x) + log_choose(population - marked, draws - x)
    chances = np.zeros(draws + 2)
    chances[x] = np.exp(ways - log_choose(population, draws))
    return np.cumsum(chances[::-1])[::-1]


def _parted(logs: np.ndarray, gone: int, degree: int) -> float:
    """The third bound: two gaps of degree / 2 clients each among those gone."""
    clients = len(logs) - 1
    if gone < degree:
        return 0.0
    places = math.log(clients * (clients - 1) / 2)
    ways = logs[gone] - logs[gone - degree] - logs[clients] + logs[clients - degree]
    return math.exp(min(0.0, places + ways))
