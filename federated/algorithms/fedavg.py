"""Federated averaging and, by the choice of its parts, FedAvgM, FedAdam, FedYogi and FedProx."""

from collections.abc import Callable, Iterable, Iterator
from typing import NamedTuple

import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Int32

from federated.aggregate import Aggregator, Encode, Message, Report
from federated.channel import Channel
from federated.client import LocalUpdate
from federated.over import Over
from federated.sampling import Cohort
from lepton_jax import trees
from lepton_jax.typing import PRNGKey, PyTree, Variables, keys


class ServerState(NamedTuple):
    """All that the server keeps from round to round; nothing random is in it.

    Attributes:
      round: how many rounds are done.
      params: of the model.
      stats: its BatchNorm statistics, or {}.
      opt_state: of the server's optimizer.
      aggregator: state of the aggregator.
    """

    round: Int32[Array, ""]
    params: PyTree
    stats: PyTree
    opt_state: PyTree
    aggregator: PyTree


class FederatedAlgorithm(NamedTuple):
    """A way to learn in rounds.

    Attributes:
      init: variables -> the state before the first round.
      apply: (state, cohort, key) -> (state, report), one round as one compiled program. The state
        is donated: don't use it again. The key is the run's, and is folded with the round here.
    """

    init: Callable[[Variables], ServerState]
    apply: Callable[[ServerState, Cohort, PRNGKey], tuple[ServerState, Report]]


def fed_avg(
    client: LocalUpdate,
    server: optax.GradientTransformation,
    aggregator: Aggregator,
    over: Over,
) -> FederatedAlgorithm:
    """Federated averaging (McMahan et al., 2017), with any server optimizer (Reddi et al., 2021).

    The server's gradient is minus the mean update: SGD with a learning rate of 1 is FedAvg, with
    momentum FedAvgM (Hsu et al., 2019); Adam and Yogi are FedAdam and FedYogi. A client update with
    a proximal term makes it FedProx (Li et al., 2020).

    Args:
      client: what a client does with its examples; they are read nowhere else.
      server: steps by the mean update.
      aggregator: makes the mean.
      over: how the round goes over its clients; bears on speed alone.
    """

    def init(variables: Variables) -> ServerState:
        kept = aggregator.init(variables)
        params, stats = jax.tree.map(jnp.copy, tuple(variables))  # the state will be donated
        return over.place(ServerState(jnp.int32(0), params, stats, server.init(params), kept))

    def apply(state: ServerState, cohort: Cohort, key: PRNGKey) -> tuple[ServerState, Report]:
        purpose = keys(jax.random.fold_in(key, state.round), "clients", "noise")

        def collect(encode: Encode, channel: Channel) -> Message:
            def work(shared: tuple[ServerState, PRNGKey], slot: Cohort) -> Message:
                now, key = shared
                own = jax.random.fold_in(key, slot.ids)
                begin = Variables(now.params, now.stats)
                update = client(begin, slot.batches, slot.steps, now.round, own)
                return encode(now.aggregator, update, slot.weight)

            return over.total(work, channel, (state, purpose["clients"]), cohort)

        mean, kept, report = aggregator.apply(state.aggregator, collect, purpose["noise"])
        gradient = trees.scale(mean.params, -1.0)
        updates, opt_state = server.update(gradient, state.opt_state, state.params)
        params = optax.apply_updates(state.params, updates)
        stats = trees.add(state.stats, mean.stats)
        return ServerState(state.round + 1, params, stats, opt_state, kept), report

    return FederatedAlgorithm(init, jax.jit(apply, donate_argnums=0))


def rounds(
    algorithm: FederatedAlgorithm, state: ServerState, cohorts: Iterable[Cohort], key: PRNGKey
) -> Iterator[tuple[int, ServerState, Report]]:
    """Goes through rounds, a cohort each; the next cohort is laid out while the device is at work.

    Args:
      algorithm: what a round does.
      state: where to begin; donated, so not to be used again.
      cohorts: arrays on the host, made when asked for.
      key: the run's key.

    Yields:
      (rounds done in all, state, report), without waiting for the device. A state is donated to the
      next round: use it before asking for more.
    """
    done = int(state.round)
    waiting = iter(cohorts)
    cohort = next(waiting, None)
    while cohort is not None:
        state, report = algorithm.apply(state, cohort, key)
        cohort = next(waiting, None)
        done += 1
        yield done, state, report
