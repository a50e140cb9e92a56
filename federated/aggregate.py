"""From the clients' updates to their mean: stages, then the channel, then noise, in this order only."""

import math
from collections.abc import Callable, Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float32, Int32

from federated.channel import Channel
from federated.client import Update
from federated.privacy.noise import Noise
from federated.stages import Stage, chain
from lepton_jax import trees
from lepton_jax.checks import UserError
from lepton_jax.metrics import Tally
from lepton_jax.typing import PRNGKey, PyTree, Variables

Weight = Float32[Array, ""]


class Report(NamedTuple):
    """Sums over a round's clients; noise protects none of them.

    Attributes:
      clients: how many took part.
      tally: over their local steps.
      counts: of each stage, what it did.
    """

    clients: Int32[Array, ""]
    tally: Tally
    counts: PyTree


class Message(NamedTuple):
    """What one client sends and, added up by the channel, what the server has of them all.

    Attributes:
      delta: encoded update of the parameters, times the weight.
      stats: update of the BatchNorm statistics, times the weight.
      weight: what the client counts; 0 for an empty slot.
      report: what is told of the round.
    """

    delta: PyTree
    stats: PyTree
    weight: Weight
    report: Report


Encode = Callable[[PyTree, Update, Weight], Message]
Collect = Callable[[Encode, Channel], Message]


class Aggregator(NamedTuple):
    """How updates become the step that the server takes.

    Attributes:
      init: variables -> state.
      apply: (state, collect, key) -> (mean update of the variables, state, report). Not updates
        are handed in but `collect`, which goes over the clients and sums: (encode, channel) -> sum
        of their messages, where encode is (state, update, weight) -> message.
      bound: the greatest L2 norm of what one client adds to the sum, before its weight.
    """

    init: Callable[[Variables], PyTree]
    apply: Callable[[PyTree, Collect, PRNGKey], tuple[Variables, PyTree, Report]]
    bound: float


def aggregate(stages: Sequence[Stage], channel: Channel, noise: Noise | None) -> Aggregator:
    """Joins the three slots; a wrong order can't be written.

    *Guarantee.* With noise, each client's share of the sum has at most the L2 norm `bound`, since
    every client counts 1 whatever its weight; the noise takes its deviation from that bound and
    nothing else; and what is divided by is fixed beforehand. The mean, and all that is computed
    from it, is then as private as `noise` says. The report is not.

    | edge                             | without noise                  | with noise              |
    |----------------------------------|--------------------------------|-------------------------|
    | an empty cohort                  | mean 0                         | noise alone             |
    | an empty slot, weight 0          | adds exactly 0                 | adds exactly 0          |
    | a chain without a finite bound   | allowed                        | UserError               |
    | a NaN or an infinity, no stages  | goes into the mean, is noticed | (UserError, as above)   |
    | BatchNorm statistics             | averaged with the same weights | UserError, from `init`  |

    Args:
      stages: what happens to each update before it leaves, in this order; may be empty.
      channel: how the server sums.
      noise: what is added to the sum; None: the mean is weighted, and exact.

    Raises:
      UserError: the noise has no finite bound to go by.
    """
    stage = chain(*stages)
    bound = stage.bound(math.inf)
    if noise is not None and not math.isfinite(bound):
        raise UserError(
            noise.name,
            "a finite bound before it",
            f"{stage.name}, which has none",
            "put clip(max_norm) before it",
        )

    def init(variables: Variables) -> PyTree:
        if noise is not None and variables.stats:
            raise shared_statistics(noise.name)
        return stage.init(variables.params)

    def encode(state: PyTree, update: Update, weight: Weight) -> Message:
        present = weight > 0
        share = weight if noise is None else present.astype(jnp.float32)
        delta, counts = stage.encode(state, update.delta)
        stats = _kept(update.stats) if stages else update.stats
        report = Report(present.astype(jnp.int32), update.tally, counts)
        return Message(trees.scale(delta, share), trees.scale(stats, share), share, report)

    def apply(state: PyTree, collect: Collect, key: PRNGKey) -> tuple[Variables, PyTree, Report]:
        total = collect(encode, channel)
        delta, divisor = total.delta, total.weight
        if noise is not None:
            delta, divisor = noise.add(delta, bound, key), jnp.float32(noise.clients)
        mean = Variables(_divide(delta, divisor), _divide(total.stats, divisor))
        return mean, stage.advance(state, total.report.counts), total.report

    return Aggregator(init, apply, bound)


def shared_statistics(noise: str) -> UserError:
    """The refusal of noise where BatchNorm statistics, which nothing bounds, would be shared."""
    return UserError(
        "model.norm",
        f"'group' or 'none' with {noise}, as shared BatchNorm statistics would leak",
        "'batch'",
        "set model.norm=group",
    )


def _kept(stats: PyTree) -> PyTree:
    """The statistics of a client that diverged must not spread, no more than its update."""
    return trees.select(trees.all_finite(stats), stats, trees.zeros_like(stats))


def _divide(tree: PyTree, divisor: Weight) -> PyTree:
    """tree / divisor, 0 where the divisor is 0."""
    return jax.tree.map(lambda x: jnp.where(divisor > 0, x / divisor, 0.0), tree)
