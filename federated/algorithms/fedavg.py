"""Federated averaging and, by the choice of its parts, FedAvgM, FedAdam, FedYogi and FedProx."""

from collections.abc import Callable, Iterable, Iterator
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jaxtyping import Array, Int32

from federated.aggregate import Aggregator, Message, Report
from federated.channel import Channel, HostChannel, RoundMark
from federated.client import LocalUpdate
from federated.over import Over, Work
from federated.privacy.noise import Drawn
from federated.sampling import Cohort
from lepton_jax import trees
from lepton_jax.checks import UserError
from lepton_jax.privacy.entropy import Source, secure_source
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
      apply: (state, cohort, key, what the round is given) -> (state, report), one round. It is one
        compiled program, unless the channel sums elsewhere. The state is donated: don't use it
        again. The key is the run's, and is folded with the round here.
      draw: (state, source, cohort) -> what a round with this cohort is given: its noise.
    """

    init: Callable[[Variables], ServerState]
    apply: Callable[[ServerState, Cohort, PRNGKey, Drawn], tuple[ServerState, Report]]
    draw: Callable[[ServerState, Source, Cohort], Drawn]


class _Slot(NamedTuple):
    """One client's place in a round: its cohort without the axis C, and its noise."""

    cohort: Cohort
    noise: PyTree


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

    def work(shared: tuple[ServerState, PRNGKey], slot: _Slot) -> Message:
        (now, key), laid = shared, slot.cohort
        own = jax.random.fold_in(key, laid.ids)
        begin = Variables(now.params, now.stats)
        update = client(begin, laid.batches, laid.steps, now.round, own)
        return aggregator.encode(now.aggregator, update, laid.weight, slot.noise)

    def given(state: ServerState, cohort: Cohort, key: PRNGKey, drawn: Drawn) -> tuple[Any, _Slot]:
        purpose = keys(jax.random.fold_in(key, state.round), "clients")
        return (state, purpose["clients"]), _Slot(cohort, drawn.clients)

    def step(state: ServerState, total: Message, drawn: Drawn) -> tuple[ServerState, Report]:
        variables = Variables(state.params, state.stats)
        mean, kept, report = aggregator.decode(state.aggregator, total, drawn, variables)
        gradient = trees.scale(mean.params, -1.0)
        updates, opt_state = server.update(gradient, state.opt_state, state.params)
        params = optax.apply_updates(state.params, updates)
        stats = trees.add(state.stats, mean.stats)
        return ServerState(state.round + 1, params, stats, opt_state, kept), report

    def draw(state: ServerState, source: Source, cohort: Cohort) -> Drawn:
        several = jax.process_count() > 1  # then a cohort lies on all processes' devices
        present = int((jnp if several else np).count_nonzero(cohort.weight))
        return aggregator.draw(state.params, source, present, len(cohort.ids))

    if isinstance(aggregator.channel, HostChannel):
        apply = _in_two_programs(work, given, step, aggregator.channel, over)
    else:
        apply = _in_one_program(work, given, step, aggregator.channel, over)

    def checked(
        state: ServerState, cohort: Cohort, key: PRNGKey, drawn: Drawn = _NOTHING
    ) -> tuple[ServerState, Report]:
        if len(cohort.ids) > aggregator.most:
            raise UserError(
                "round", f"at most {aggregator.most} clients, lest a sum wraps", len(cohort.ids)
            )
        if aggregator.noised and not jax.tree.leaves((drawn.server, drawn.clients)):
            raise UserError("round", "noise that was drawn for it", "none", "give it `draw`'s")
        return apply(state, cohort, key, drawn)

    return FederatedAlgorithm(init, checked, draw)


_NOTHING = Drawn()
_FRESH = Source(lambda n: secure_source().words(n))  # opened where there is something to draw
_Apply = Callable[[ServerState, Cohort, PRNGKey, Drawn], tuple[ServerState, Report]]
_Given = Callable[[ServerState, Cohort, PRNGKey, Drawn], tuple[Any, _Slot]]
_Step = Callable[[ServerState, Message, Drawn], tuple[ServerState, Report]]


def _in_one_program(work: Work, given: _Given, step: _Step, channel: Channel, over: Over) -> _Apply:
    def apply(
        state: ServerState, cohort: Cohort, key: PRNGKey, drawn: Drawn
    ) -> tuple[ServerState, Report]:
        shared, slots = given(state, cohort, key, drawn)
        return step(state, over.total(work, channel, shared, slots), drawn)

    return jax.jit(apply, donate_argnums=0)


def _in_two_programs(
    work: Work, given: _Given, step: _Step, channel: HostChannel, over: Over
) -> _Apply:
    """Messages come out of the first program, and their sum goes into the second.

    A round that comes to nothing leaves the model as it was; noise that is correlated over rounds
    goes on all the same, lest a pass of cohorts takes more rounds than a pass of noise.
    """

    @jax.jit
    def encode(state: ServerState, cohort: Cohort, key: PRNGKey, drawn: Drawn) -> Message:
        shared, slots = given(state, cohort, key, drawn)
        return over.each(work, shared, slots)

    finish = jax.jit(step, donate_argnums=0)

    @jax.jit
    def pass_over(state: ServerState, nothing: Message, drawn: Drawn) -> ServerState:
        noise = step(state, nothing, drawn)[0].aggregator.noise
        kept = state.aggregator._replace(noise=noise)
        return state._replace(round=state.round + 1, aggregator=kept)

    def apply(
        state: ServerState, cohort: Cohort, key: PRNGKey, drawn: Drawn
    ) -> tuple[ServerState, Report]:
        mark = RoundMark(int(state.round) + 1, trees.sha256(jax.device_get(state.params)))
        messages: Message = jax.device_get(encode(state, cohort, key, drawn))
        present = np.flatnonzero(np.asarray(cohort.weight))
        sent = jax.tree.map(lambda x: x[present], (messages.delta, messages.weight))
        total = channel.total(mark, np.asarray(cohort.ids)[present], sent)
        report = jax.tree.map(lambda x: x.sum(0, dtype=x.dtype), messages.report)
        if total is None:
            nothing = jax.tree.map(lambda x: np.zeros(x.shape[1:], x.dtype), sent)
            return pass_over(state, over.place(Message(*_apart(nothing), report)), drawn), report
        return finish(state, over.place(Message(*_apart(total), report)), drawn)

    return apply


def _apart(total: tuple[PyTree, PyTree]) -> tuple[PyTree, PyTree, PyTree]:
    """A sum of updates and weights as the first fields of a message, which has no statistics."""
    delta, weight = total
    return delta, {}, weight


def rounds(
    algorithm: FederatedAlgorithm,
    state: ServerState,
    cohorts: Iterable[Cohort],
    key: PRNGKey,
    sources: Callable[[int], Source] = lambda number: _FRESH,
) -> Iterator[tuple[int, ServerState, Report]]:
    """Goes through rounds, a cohort each; the next one is laid out, and drawn for, while the device is at work.

    Args:
      algorithm: what a round does.
      state: where to begin; donated, so not to be used again.
      cohorts: arrays on the host, made when asked for.
      key: the run's key.
      sources: number of a round -> where its noise comes from; unset, the system's entropy.

    Yields:
      (rounds done in all, state, report), without waiting for the device. A state is donated to the
      next round: use it before asking for more.
    """
    done = int(state.round)
    waiting = iter(cohorts)
    cohort = next(waiting, None)
    drawn = None if cohort is None else algorithm.draw(state, sources(done + 1), cohort)
    while cohort is not None and drawn is not None:
        state, report = algorithm.apply(state, cohort, key, drawn)
        done += 1
        cohort = next(waiting, None)
        drawn = None if cohort is None else algorithm.draw(state, sources(done + 1), cohort)
        yield done, state, report
