"""Regions as borders in a run: each sums its own clients, and its gate lets out what its policy names."""

import json
import logging
import os
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import jax
import msgspec
import numpy as np

from federated.channel import HostChannel, RoundMark, add_up
from federated.egress import (
    About,
    Books,
    Gate,
    Passed,
    check_policies,
    contributing,
    large_enough,
    open_desk,
    open_gate,
)
from federated.egress.letters import Kind, sealing
from federated.policy import Policy
from federated.shards import Client
from lepton_jax import config
from lepton_jax.typing import PyTree

_LOG = logging.getLogger(__name__)


class Borders(NamedTuple):
    """The regions' gates, and the server's desk behind them, for one process' part of a run.

    Attributes:
      channel: sums each region by itself, and passes the sums through the gates.
      open_to: epsilon after the next round -> which clients [C] may take part in it, bool.
      passed: () -> what each region's gate has let out so far, by region.
      figures: figures by region -> those that may leave their regions.
      policies: what may leave each region, and on what terms, as JSON.
    """

    channel: HostChannel
    open_to: Callable[[float], np.ndarray]
    passed: Callable[[], dict[str, dict[str, int]]]
    figures: Callable[[Sequence[Mapping[str, Any]]], list[dict[str, Any]]]
    policies: dict[str, Any]


def open_borders(
    policies: Mapping[str, Policy],
    federated: config.Federated,
    clients: Sequence[Client],
    inner: HostChannel,
) -> Borders:
    """Puts a gate before each region of a run.

    *Guarantee.* Of a region's updates nothing reaches the server but what its gate released: one
    sum over its clients a round or, where the policy allows it, each update; sealed, and bound to
    run, round, region and model. What a region's sum holds, the others' noise doesn't hide: noise
    is added to the sum of all, by the server. With two regions alone each can take its own sum off.

    | edge                                        | result                                       |
    |---------------------------------------------|----------------------------------------------|
    | a region at its budget                      | its clients aren't chosen any more           |
    | noise, nobody of a region was drawn         | its sum, zeros, leaves all the same          |
    | no noise, fewer drawn than its minimum      | it is left out of the round                  |
    | every region left out                       | the round comes to nothing                   |

    Args:
      policies: of each region.
      federated: the run's settings.
      clients: with their regions, by number.
      inner: how a region sums its own clients.

    Raises:
      UserError: the run isn't as a policy asks for.
    """
    regions = np.array([client.region for client in clients])
    counts = {region: int(np.sum(regions == region)) for region in policies}
    silent = check_policies(policies, federated, counts)
    noised = federated.noise is not None
    run, server = os.urandom(16), os.urandom(32)
    keys = {region: os.urandom(32) for region in policies}
    gates: dict[str, Gate] = {
        region: open_gate(
            policy, run, key=keys[region], server=sealing().public_key(server), noised=noised
        )
        for region, policy in policies.items()
    }
    senders = {region: sealing().public_key(key) for region, key in keys.items()}
    desk, books = open_desk(run, key=server, senders=senders), Books()
    passed = dict.fromkeys(policies, Passed())

    def total(mark: RoundMark, ids: np.ndarray, sent: PyTree) -> PyTree | None:
        nonlocal books
        books = desk.expect(books, mark.number, mark.model_sha256)
        drawn = {region: np.flatnonzero(regions[ids] == region) for region in policies}
        leaving = [region for region in policies if region not in silent]
        if not noised:
            enough = large_enough(policies, {region: len(own) for region, own in drawn.items()})
            leaving = [region for region in leaving if region in enough]
        arrived = []
        for region in leaving:
            own = jax.tree.map(lambda x, rows=drawn[region]: x[rows], sent)
            arrived += cross(mark, region, ids[drawn[region]], own)
        return add_up(arrived) if arrived else None

    def cross(mark: RoundMark, region: str, ids: np.ndarray, own: PyTree) -> list[PyTree]:
        """What the server gets of one region."""
        nonlocal books
        kind: Kind
        if policies[region].cross_border == "updates":
            kind, parts = (
                "update",
                [jax.tree.map(lambda x, i=i: x[i], own) for i in range(len(ids))],
            )
        else:
            summed = inner.total(mark, ids, own)
            if summed is None and len(ids):
                _LOG.warning("round %d: region %s contributes nothing", mark.number, region)
            zeros = jax.tree.map(lambda x: np.zeros(x.shape[1:], x.dtype), own)
            kind, parts = "sum", [zeros if summed is None else summed]
        arrived = []
        for part, content in enumerate(parts):
            about = About(mark.number, mark.model_sha256, kind, part)
            arrays = [np.asarray(x) for x in jax.tree.leaves(content)]
            passed[region], sealed = gates[region].release_update(
                passed[region], about, len(ids), arrays
            )
            books, opened = desk.open(books, sealed)
            arrived.append(jax.tree.unflatten(jax.tree.structure(own), opened))
        return arrived

    def open_to(spent: float) -> np.ndarray:
        return np.isin(regions, contributing(policies, spent))

    def figures(by_region: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
        left = []
        for each in by_region:
            name = each["region"]
            told = {key: each[key] for key in each if key not in ("region", "clients")}
            leaving: dict[str, Any] = {}
            if "figures" in policies[name].outputs:
                passed[name], leaving = gates[name].release_figures(
                    passed[name], each["clients"], told
                )
            left.append({**each, **dict.fromkeys(told), **leaving})
        return left

    return Borders(
        HostChannel(f"the gates of {len(policies)} regions", total),
        open_to,
        passed=lambda: {region: each.to_json() for region, each in passed.items()},
        figures=figures,
        policies=json.loads(msgspec.json.encode(dict(policies))),
    )
