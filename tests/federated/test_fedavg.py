"""The laws of a federated round."""

import inspect
import math
from collections.abc import Iterator, Sequence
from functools import cache
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from federated.aggregate import Aggregator, Report, aggregate
from federated.algorithms import FederatedAlgorithm, ServerState, fed_avg, rounds
from federated.channel import plain
from federated.client import local_update
from federated.over import Kind, make_over
from federated.privacy.noise import Drawn, gaussian
from federated.sampling import Cohort
from federated.stages import clip
from lepton_jax import config, trees
from lepton_jax.privacy.entropy import Source, seeded_source
from lepton_jax.training.optimizers import make_optimizer
from lepton_jax.training.step import Augment, init_state, make_step
from lepton_jax.typing import Batch, Classifier, Variables
from tests.federated import tiny
from tests.federated.slow_twin import federated_averaging

RATE = 0.5
MODEL, NORMED = tiny.make_model(), tiny.make_model(statistics=True)
KEY = jax.random.key(7)
FEDAVG = config.Sgd(learning_rate=1.0)
PLAIN = aggregate([], plain(), None)
CLIPPED = aggregate([clip(0.3)], plain(), None)
NOISED = aggregate([clip(0.1)], plain(), gaussian(0.5, clients=3))


def new(
    *,
    model: Classifier = NORMED,
    server: config.Optimizer = FEDAVG,
    aggregator: Aggregator = PLAIN,
    over: Kind = "scan",
    augment: Augment = tiny.jitter,
) -> FederatedAlgorithm:
    client = local_update(model, lambda round: optax.sgd(RATE), tiny.LOSS, augment=augment)
    return fed_avg(client, make_optimizer(server), aggregator, make_over(over))


make = cache(new)  # what is compiled for one test serves the others


def lay(*ids: int, **changes: Any) -> Cohort:
    """A cohort of four slots out of four unequal clients."""
    return tiny.make_cohort(9, 2, 5, 7, ids=list(ids), **{"slots": 4, **changes})


def begin(model: Classifier = NORMED) -> Variables:
    return model.init(jax.random.key(0))


def play(
    algorithm: FederatedAlgorithm, *cohorts: Cohort, model: Classifier = NORMED
) -> tuple[ServerState, Report]:
    start = algorithm.init(begin(model))
    *_, (_, state, report) = rounds(algorithm, start, cohorts, KEY, sources)
    return jax.device_get((state, report))


def sources(number: int) -> Source:
    return seeded_source(7, number)


# --- against the paper, and against central training ----------------------------------------------


def unpadded(laid: Cohort) -> list[list[tuple[np.ndarray, np.ndarray]]]:
    """A cohort as the slow twin takes it: per client, per step, the examples that are there."""
    images, labels, mask = (np.asarray(x) for x in laid.batches)
    return [
        [(images[c, t][mask[c, t]], labels[c, t][mask[c, t]]) for t in range(steps)]
        for c, steps in enumerate(np.asarray(laid.steps))
        if steps
    ]


def test_the_fast_round_equals_the_slow_twin() -> None:
    laid = [lay(0, 1, 3), lay(2, 0), lay(3)]
    weights = begin(MODEL).params
    slow = federated_averaging(MODEL, tiny.LOSS, weights, [unpadded(c) for c in laid], RATE)
    state, _ = play(make(model=MODEL, augment=tiny.as_floats), *laid, model=MODEL)
    tiny.close(state.params, slow)
    assert float(trees.norm(trees.sub(slow, weights))) > 0.1


def test_uniform_weights_give_the_plain_mean_of_the_clients() -> None:
    alone = []
    for i in range(3):
        state, _ = play(make(), lay(i))
        alone.append((state.params, state.stats))
    together, _ = play(make(), lay(0, 1, 2, weights="uniform"))
    mean = jax.tree.map(lambda *x: sum(x) / 3, *alone)
    tiny.close((together.params, together.stats), mean)


def test_one_client_one_step_and_server_sgd_of_1_are_a_central_step() -> None:
    laid = tiny.make_cohort(4, local_epochs=1)
    state, report = play(make(augment=tiny.as_floats), laid)
    tx = optax.sgd(RATE)
    step = make_step(NORMED, tx, tiny.LOSS, augment=tiny.as_floats)
    batches, steps = tiny.slot(laid, 0)
    central, tally = step(init_state(begin(), tx), Batch(*(x[0] for x in batches)), KEY)
    assert steps == 1
    tiny.close((state.params, state.stats), (central.params, central.stats))
    tiny.close(report.tally, tally)


@pytest.mark.parametrize(
    "server",
    [
        config.Sgd(learning_rate=0.7, momentum=0.9),
        config.Adam(learning_rate=0.05),
        config.Yogi(learning_rate=0.05),
    ],
)
def test_a_server_optimizer_steps_by_minus_the_mean_update(server: config.Optimizer) -> None:
    laid = [lay(0, 1, 2), lay(1)]
    fast, _ = play(make(server=server), *laid)
    tx, averaging = make_optimizer(server), make()
    state = averaging.init(begin())
    opt_state = tx.init(state.params)
    for cohort in laid:
        before = jax.device_get(state)
        after, _ = averaging.apply(state, cohort, KEY, Drawn())
        gradient = trees.sub(before.params, after.params)
        updates, opt_state = tx.update(gradient, opt_state, before.params)
        state = after._replace(params=optax.apply_updates(before.params, updates))
    tiny.close(fast.params, state.params, 1e-5)


# --- laws -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(("model", "aggregator"), [(NORMED, PLAIN), (MODEL, NOISED)])
def test_permuting_clients_changes_nothing(model: Classifier, aggregator: Aggregator) -> None:
    algorithm = make(model=model, aggregator=aggregator)
    one, _ = play(algorithm, lay(0, 1, 2, 3), model=model)
    other, _ = play(algorithm, lay(2, 0, 3, 1), model=model)
    tiny.close(one, other)


@pytest.mark.parametrize(
    ("over", "model", "aggregator"),
    [("vmap", NORMED, CLIPPED), ("shard", NORMED, CLIPPED), ("shard", MODEL, NOISED)],
)
def test_scan_vmap_and_shard_mean_the_same(
    over: Kind, model: Classifier, aggregator: Aggregator
) -> None:
    laid = [lay(0, 1, 2, slots=5), lay(3, 1, slots=5)]
    expected = play(make(model=model, aggregator=aggregator), *laid, model=model)
    state, report = play(make(model=model, aggregator=aggregator, over=over), *laid, model=model)
    tiny.close((state, report), expected)
    assert int(report.counts[0]["clipped"]) == 2


@pytest.mark.parametrize("over", ["scan", "shard"])
def test_empty_slots_contribute_exactly_nothing(over: Kind) -> None:
    algorithm = make(over=over)
    tight, roomy = (play(algorithm, lay(3, 1, slots=slots)) for slots in (4, 8))
    if over == "scan":
        tiny.same(roomy, tight)
    else:  # slots decide which device adds up whom: equal to rounding
        tiny.close(roomy, tight)


def test_an_infinite_clip_without_noise_is_plain_averaging() -> None:
    expected, _ = play(make(), lay(0, 1, 2))
    state, _ = play(make(aggregator=aggregate([clip(math.inf)], plain(), None)), lay(0, 1, 2))
    tiny.same(state[:4], expected[:4])


def test_an_empty_cohort_leaves_the_model_as_it_was() -> None:
    state, report = play(make(), lay())
    tiny.same((state.params, state.stats), jax.device_get(tuple(begin())))
    assert (int(state.round), int(report.clients), int(report.tally.count)) == (1, 0, 0)


def test_each_client_has_randomness_of_its_own() -> None:
    one = lay(0)
    kernels = [
        play(make(), each)[0].params["kernel"] for each in (one, one._replace(ids=one.ids + 1))
    ]
    assert np.abs(kernels[0] - kernels[1]).max() > 1e-5


# --- what the server can reach --------------------------------------------------------------------


def outside(jaxpr: Any, data: Sequence[Any]) -> Iterator[Any]:
    """The equations that read `data`, also inside of nested calls (jit, shard_map) and reshaped."""
    for equation in jaxpr.eqns:
        read = [i for i, var in enumerate(equation.invars) if any(var is each for each in data)]
        inner = equation.params.get("jaxpr")
        if read and equation.primitive.name in ("jit", "pjit", "shard_map"):
            inner = getattr(inner, "jaxpr", inner)
            yield from outside(inner, [inner.invars[i] for i in read])
        elif read and equation.primitive.name == "reshape":
            data = [*data, *equation.outvars]
        elif read:
            yield equation


@pytest.mark.parametrize("over", ["scan", "vmap", "shard"])
def test_no_array_with_an_axis_of_examples_reaches_the_server(over: Kind) -> None:
    """Only the loop over the clients reads their data, and it lets no axis of examples out.

    T, B and the numbers of examples are such that nothing else has them for a size.
    """
    steps, batch, sizes = 11, 13, [137, 139, 131, 127, 138, 136, 141]
    laid = tiny.make_cohort(*sizes, batch_size=batch, local_epochs=1, slots=8)
    assert laid.batches.images.shape[:3] == (8, steps, batch)
    algorithm = make(aggregator=CLIPPED, over=over)
    state = algorithm.init(begin())
    closed = jax.make_jaxpr(algorithm.apply)(state, laid, KEY)
    first = len(jax.tree.leaves(state))
    inputs: Sequence[Any] = closed.jaxpr.invars[first:]
    data = [var for var in inputs if var.aval.shape[:2] == (8, steps)]
    assert len(data) == 3
    readers = list(outside(closed.jaxpr, data))
    assert {equation.primitive.name for equation in readers} == {"scan"}
    forbidden = {steps, batch, steps * batch, *sizes, sum(sizes)}
    for equation in readers:
        left = [out for out in equation.outvars if type(out).__name__ != "DropVar"]
        assert left
        assert not any(forbidden & set(out.aval.shape) for out in left)


def test_a_round_s_results_have_the_shapes_of_the_model_and_of_scalars() -> None:
    algorithm = make()
    state = algorithm.init(begin())
    out, report = jax.eval_shape(algorithm.apply, state, lay(0, 1), KEY)
    assert jax.tree.map(jnp.shape, out) == jax.tree.map(jnp.shape, state)
    assert {x.shape for x in jax.tree.leaves(report)} == {()}


# --- the program ----------------------------------------------------------------------------------


@pytest.mark.parametrize("over", ["scan", "shard"])
def test_rounds_are_one_compilation_and_donate_their_state(over: Kind) -> None:
    algorithm = new(model=MODEL, augment=tiny.as_floats, over=over)
    cohorts = [lay(0, 1), lay(2), lay(3, 0, 2)]
    seen = []
    for number, state, _ in rounds(algorithm, algorithm.init(begin(MODEL)), cohorts, KEY):
        seen.append((number, state))
    assert [number for number, _ in seen] == [1, 2, 3]
    assert [state.params["kernel"].is_deleted() for _, state in seen] == [True, True, False]
    within = inspect.getclosurevars(inspect.unwrap(algorithm.apply)).nonlocals
    assert within["apply"]._cache_size() == 1


def test_init_copies_what_the_rounds_will_donate() -> None:
    variables = begin()
    algorithm = make()
    algorithm.apply(algorithm.init(variables), lay(0), KEY, Drawn())
    assert not variables.params["kernel"].is_deleted()


def test_the_next_cohort_is_laid_out_before_a_round_is_waited_for() -> None:
    laid: list[int] = []

    def cohorts() -> Iterator[Cohort]:
        for i in range(3):
            laid.append(i)
            yield lay(0)

    algorithm = make()
    ahead = [len(laid) for _ in rounds(algorithm, algorithm.init(begin()), cohorts(), KEY)]
    assert ahead == [2, 3, 3]


def test_no_cohorts_are_no_rounds() -> None:
    algorithm = make()
    assert list(rounds(algorithm, algorithm.init(begin()), [], KEY)) == []
