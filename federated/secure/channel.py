"""Secure aggregation as a round's channel: clients drop out, and the server is left with the sum."""

import logging
import math
import os
from collections.abc import Sequence
from typing import Any

import jax
import numpy as np
from scipy.special import bdtr

from federated.channel import HostChannel, RoundMark
from federated.secure.graph import choose_shape
from federated.secure.messages import STAGES, AbortError, Context
from federated.secure.plan import make_plan
from federated.secure.session import simulate_round
from lepton_jax import config
from lepton_jax.checks import UserError
from lepton_jax.typing import PyTree

_LOG = logging.getLogger(__name__)
_FEWEST = 3
_FAILURE = 2.0**-40  # of a round's graph: see `graph`


def secure(settings: config.Secure, seed: int) -> HostChannel:
    """Sums whole numbers modulo 2^32 by the protocol; the *Guarantee* is `simulate_round`'s.

    Every sum is a session of its own, since several regions may sum in one round, and a round that
    is done again sums anew; keys and masks come from the system's entropy. Of the n clients of a
    round floor(n * dropouts) drop out, at stages that seed and round fix.

    | edge                                     | result                                   |
    |------------------------------------------|------------------------------------------|
    | fewer than 3 clients                     | nothing: no sum of so few is opened      |
    | too few left around a client             | nothing, and a warning                   |

    Args:
      settings: how many may drop out or collude.
      seed: of the dropouts alone.
    """

    def total(mark: RoundMark, ids: np.ndarray, sent: PyTree) -> PyTree | None:
        clients = len(ids)
        if clients < _FEWEST:
            return None
        vectors = _flat(sent)
        shape = choose_shape(
            clients,
            dropouts=settings.dropouts,
            colluders=settings.colluders,
            failure=_FAILURE,
        )
        context = Context(os.urandom(16), mark.number)
        plan = make_plan(clients, vectors.shape[1], shape, context)
        try:
            outcome = simulate_round(plan, vectors, _drops(settings, clients, [seed, mark.number]))
        except AbortError as error:
            _LOG.warning("round %d comes to nothing: %s", mark.number, error)
            return None
        return _as_one(outcome.total, sent)

    return HostChannel("secure aggregation", total)


def check_cohorts(federated: config.Federated, groups: Sequence[int]) -> None:
    """Refuses cohorts too small for a secure sum, and such as may be oftener than delta notices.

    With Poisson sampling one client's presence can decide whether a cohort reaches 3, and with that
    whether two others count. The chance of that, over all rounds and groups, must be below a
    millionth of delta. Cohorts that take turns, or have a fixed size, are parted by region as it
    comes: of each region 3 must be expected.

    Args:
      federated: the run's settings.
      groups: how many clients each securely summed group has: all, or those of each region.

    Raises:
      UserError: a cohort has fewer than 3 clients, is expected to have fewer of a region, or may
        have: it tells the chance.
    """
    drawn = federated.clients_per_round
    last = federated.clients % drawn if federated.sampling == "cyclic" else 0
    if federated.sampling != "poisson" and min(drawn, last or drawn) < _FEWEST:
        raise UserError(
            "federated.clients_per_round",
            f"at least {_FEWEST} clients in each cohort of a secure sum",
            min(drawn, last or drawn),
            "choose another number, that leaves no short last block",
        )
    least = min(drawn * clients / federated.clients for clients in groups)
    if least < _FEWEST:
        raise UserError(
            "federated.clients_per_round",
            f"at least {_FEWEST} clients of each region whose sums are secure, as expected",
            f"{least:.3g}",
            "raise clients_per_round, or leave out federated.policies or the secure channel",
        )
    if federated.noise is None or federated.sampling != "poisson":
        return
    rate = drawn / federated.clients
    few = sum(float(bdtr(_FEWEST, clients, rate)) for clients in groups)
    chance, most = federated.rounds * few, federated.delta * 1e-6
    if chance > most:
        raise UserError(
            "federated.clients_per_round",
            f"a chance of at most {most:.1g} of a round with too few clients for a secure sum",
            f"{chance:.1g}",
            "raise clients_per_round, or set federated.sampling=cyclic",
        )


def _drops(settings: config.Secure, clients: int, seed: list[int]) -> dict[int, str]:
    rng = np.random.default_rng(seed)
    gone = rng.choice(clients, math.floor(clients * settings.dropouts), replace=False)
    return {int(client): str(rng.choice(STAGES)) for client in gone}


def _flat(sent: PyTree) -> np.ndarray:
    """Each client's numbers as one vector of the ring, uint32 [n,D]."""
    leaves = [np.asarray(leaf).reshape(len(leaf), -1) for leaf in jax.tree.leaves(sent)]
    return np.concatenate(leaves, axis=1).view(np.uint32)


def _as_one(total: np.ndarray, sent: PyTree) -> PyTree:
    """The ring's sum in the shapes of one client's message, int32."""
    leaves, structure = jax.tree.flatten(sent)
    sizes = [int(np.prod(leaf.shape[1:])) for leaf in leaves]
    parts = np.split(total.view(np.int32), np.cumsum(sizes)[:-1])
    shaped: list[Any] = [
        part.reshape(leaf.shape[1:]) for part, leaf in zip(parts, leaves, strict=True)
    ]
    return jax.tree.unflatten(structure, shaped)
