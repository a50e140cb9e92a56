"""From the clients' updates to their mean: stages, then the channel, then noise, in this order only."""

import math
from collections.abc import Callable, Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float32, Int32, Num

from federated.channel import Channel, HostChannel
from federated.client import Update
from federated.privacy.noise import MOST_SUM, Drawn, Noise
from federated.stages import Stage, chain
from lepton_jax import trees
from lepton_jax.checks import UserError
from lepton_jax.metrics import Tally
from lepton_jax.privacy.entropy import Source
from lepton_jax.privacy.grid import EXACT, Grid, clip_limit, off_grid, on_grid
from lepton_jax.typing import PyTree, Variables

Weight = Float32[Array, ""]
_WEIGHT_UNITS = 2.0**16  # of a weight of 1, where weights are summed as whole numbers
_MOST = 4096  # clients a round, for exact sums without noise


class Report(NamedTuple):
    """Sums over a round's clients; noise protects none of them.

    Attributes:
      clients: how many took part.
      tally: over their local steps.
      counts: of each stage, what it did.
    """

    clients: Int32[Array, "..."]
    tally: Tally
    counts: PyTree


class Message(NamedTuple):
    """What one client sends and, added up by the channel, what the server has of them all.

    Attributes:
      delta: encoded update of the parameters, times the weight; whole numbers where noise is added
        or sums are secure.
      stats: update of the BatchNorm statistics, times the weight.
      weight: what the client counts; 0 for an empty slot.
      report: what is told of the round.
    """

    delta: PyTree
    stats: PyTree
    weight: Num[Array, "..."]
    report: Report


class State(NamedTuple):
    """What the server keeps of its aggregation: the stages' states, and that of its noise."""

    stages: PyTree
    noise: PyTree


class Aggregator(NamedTuple):
    """How updates become the step that the server takes.

    Attributes:
      init: variables -> state.
      encode: (state, one client's update, its weight, its noise) -> its message.
      channel: how messages are summed.
      decode: (state, sum of the messages, what the round was given, variables) -> (mean update of
        the variables, state, report).
      draw: (parameters, source, clients, slots) -> what a round is given; `Drawn()` without noise.
      bound: the greatest L2 norm of what one client adds to the sum, before its weight.
      most: the greatest number of clients that a round can have.
      noised: whether a round must be given noise.
    """

    init: Callable[[Variables], State]
    encode: Callable[[State, Update, Weight, PyTree], Message]
    channel: Channel | HostChannel
    decode: Callable[[State, Message, Drawn, Variables], tuple[Variables, State, Report]]
    draw: Callable[[PyTree, Source, int, int], Drawn]
    bound: float
    most: float
    noised: bool


def aggregate(
    stages: Sequence[Stage], channel: Channel | HostChannel, noise: Noise | None
) -> Aggregator:
    """Joins the three slots; a wrong order can't be written.

    *Guarantee.* With noise, each client's share of the sum is a vector of whole numbers with at most
    the L2 norm `bound`, since its weight is at most 1; the noise takes its deviation from that bound
    and nothing else; and what is divided by is fixed beforehand. The mean, and all that is computed
    from it, is then as private as `noise` says. The report is not.

    | edge                             | without noise                  | with noise              |
    |----------------------------------|--------------------------------|-------------------------|
    | an empty cohort                  | mean 0                         | noise alone             |
    | an empty slot, weight 0          | adds exactly 0                 | adds exactly 0          |
    | a weight above 1                 | allowed, in plain sums         | counts 1                |
    | a chain without a finite bound   | allowed, in plain sums         | UserError               |
    | a NaN or an infinity, no stages  | goes into the mean, is noticed | (UserError, as above)   |
    | BatchNorm statistics             | averaged with the same weights | UserError, from `init`  |

    What is said of noise holds of a channel that sums whole numbers, too.

    Args:
      stages: what happens to each update before it leaves, in this order; may be empty.
      channel: how the server sums.
      noise: what is added to the sum; None: the mean is weighted, and exact.

    Raises:
      UserError: the noise, or a sum of whole numbers, has no finite bound to go by.
    """
    stage = chain(*stages)
    bound = stage.bound(math.inf)
    grid = _grid(noise, channel, stage, bound)

    def init(variables: Variables) -> State:
        if grid is not None and variables.stats:
            raise shared_statistics(noise.name if noise else channel.name)
        kept = stage.init(variables.params)
        return State(kept, noise.init(_shapes(stage, kept, variables.params)) if noise else ())

    def encode(state: State, update: Update, weight: Weight, own: PyTree) -> Message:
        present = weight > 0
        delta, counts = stage.encode(state.stages, update.delta)
        report = Report(present.astype(jnp.int32), update.tally, counts)
        if grid is not None:
            share = jnp.minimum(weight, 1.0)
            whole = on_grid(trees.scale(delta, share * _room(grid, delta)), grid)
            whole = jax.tree.map(lambda x: x.astype(jnp.int32), whole)
            whole = trees.add(whole, own) if jax.tree.leaves(own) else whole
            whole = trees.select(present, whole, trees.zeros_like(whole))
            units = jnp.rint(share * _WEIGHT_UNITS).astype(jnp.int32)
            return Message(whole, update.stats, units, report)
        stats = _kept(update.stats) if stages else update.stats
        return Message(trees.scale(delta, weight), trees.scale(stats, weight), weight, report)

    def decode(
        state: State, total: Message, drawn: Drawn, variables: Variables
    ) -> tuple[Variables, State, Report]:
        delta, kept, divisor = total.delta, state.noise, total.weight
        if noise is not None:
            delta, kept = noise.add(kept, delta, drawn.server)
            divisor = drawn.expected
        elif grid is not None:
            divisor = divisor.astype(jnp.float32) / _WEIGHT_UNITS
        if grid is not None:
            delta = trees.scale(off_grid(delta, grid), 1 / _room(grid, delta))
        mean = _divide(delta, divisor)
        params, advanced = stage.decode(state.stages, mean, variables.params)
        stats = _divide(total.stats, divisor)
        return Variables(params, stats), State(advanced, kept), total.report

    def draw(params: PyTree, source: Source, present: int, slots: int) -> Drawn:
        if noise is None or grid is None:
            return Drawn()
        kept = jax.eval_shape(stage.init, params)
        drawn = noise.draw(grid, _shapes(stage, kept, params), source, present, slots)
        return drawn._replace(expected=jnp.float32(noise.clients))

    most = noise.most if noise else _MOST if grid is not None else math.inf
    return Aggregator(init, encode, channel, decode, draw, bound, most, noise is not None)


def _grid(
    noise: Noise | None, channel: Channel | HostChannel, stage: Stage, bound: float
) -> Grid | None:
    """Where messages are whole numbers: with noise, and where the channel sums nothing else."""
    if noise is None and isinstance(channel, Channel):
        return None
    who = noise.name if noise else channel.name
    if not math.isfinite(bound):
        raise UserError(
            who,
            "a finite bound before it",
            f"{stage.name}, which has none",
            "put clip(max_norm) before it",
        )
    steps = min(MOST_SUM // _MOST, EXACT)
    return noise.grid(bound) if noise else Grid(bound / steps, steps, 0.0)


def _room(grid: Grid, message: PyTree) -> float:
    """The factor on a share that leaves it the room to be rounded in."""
    return clip_limit(grid, trees.size(message)) / grid.bound


def _shapes(stage: Stage, state: PyTree, params: PyTree) -> PyTree:
    """The shapes of one message."""
    return jax.eval_shape(stage.encode, state, params)[0]


def shared_statistics(who: str) -> UserError:
    """The refusal of noise where BatchNorm statistics, which nothing bounds, would be shared."""
    return UserError(
        "model.norm",
        f"'group' or 'none' with {who}, as shared BatchNorm statistics would leak",
        "'batch'",
        "set model.norm=group",
    )


def _kept(stats: PyTree) -> PyTree:
    """The statistics of a client that diverged must not spread, no more than its update."""
    return trees.select(trees.all_finite(stats), stats, trees.zeros_like(stats))


def _divide(tree: PyTree, divisor: Weight) -> PyTree:
    """tree / divisor, 0 where the divisor is 0."""
    return jax.tree.map(lambda x: jnp.where(divisor > 0, x / divisor, 0.0), tree)
