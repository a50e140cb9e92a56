"""A client trains as central training does, on its own examples alone, and sends no example."""

from functools import cache
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from federated.client import ClientOptimizer, Update, client_optimizer, local_update
from federated.sampling import Cohort
from lepton_jax import config, metrics, trees
from lepton_jax.training.step import init_state, make_step
from lepton_jax.typing import Batch, Variables
from tests.federated import tiny

MODEL = tiny.make_model(statistics=True)
VARIABLES = MODEL.init(jax.random.key(0))
KEY = jax.random.key(1)


def momentum(round: jax.Array) -> optax.GradientTransformation:
    return optax.sgd(0.5, momentum=0.9)


def sgd(round: jax.Array) -> optax.GradientTransformation:
    return optax.sgd(0.05)


@cache  # what is compiled for one test serves the others
def compiled(optimizer: ClientOptimizer, proximal: float) -> Any:
    return jax.jit(
        local_update(MODEL, optimizer, tiny.LOSS, augment=tiny.jitter, proximal=proximal)
    )


def run(
    laid: Cohort, at: int = 0, *, optimizer: ClientOptimizer = momentum, proximal: float = 0.0
) -> Update:
    batches, steps = tiny.slot(laid, at)
    return compiled(optimizer, proximal)(VARIABLES, batches, steps, jnp.int32(0), KEY)


def test_local_steps_are_those_of_central_training() -> None:
    laid = tiny.make_cohort(5, 11)
    batches, steps = tiny.slot(laid, 1)
    tx = momentum(jnp.int32(0))
    step = jax.jit(make_step(MODEL, tx, tiny.LOSS, augment=tiny.jitter))
    state, total = init_state(VARIABLES, tx), metrics.zero_tally()
    for i in range(int(steps)):
        state, tally = step(state, Batch(*(x[i] for x in batches)), KEY)
        total = metrics.merge(total, tally)
    update = run(laid, 1)
    tiny.close(trees.add(VARIABLES.params, update.delta), state.params)
    tiny.close(trees.add(VARIABLES.stats, update.stats), state.stats)
    tiny.close(update.tally, total)
    assert update.tally.count == 2 * 11


def test_padding_contributes_exactly_nothing() -> None:
    laid = tiny.make_cohort(5, 11)  # client 0 takes 4 of 6 steps, every other one padded
    update = run(laid)
    rng = np.random.default_rng(0)
    mask = np.asarray(laid.batches.mask)
    assert not mask[0].all(axis=1)[:4].all() and not mask[0, 4:].any()
    dirt: Any = rng.integers(256, size=laid.batches.images.shape).astype(np.uint8)
    images: Any = np.where(mask[..., None, None, None], laid.batches.images, dirt)
    labels: Any = np.where(mask, laid.batches.labels, 3).astype(np.int32)
    dirty = laid.batches._replace(images=images, labels=labels)
    tiny.same(run(laid._replace(batches=dirty)), update)
    fewer = jax.tree.map(lambda x: x[:, :4], laid.batches)
    tiny.same(run(laid._replace(batches=fewer)), update)


def test_no_steps_change_exactly_nothing() -> None:
    update = run(tiny.make_cohort(5, 11, ids=[0], slots=2), 1)
    assert not any(np.asarray(x).any() for x in jax.tree.leaves(update))


def test_nothing_with_an_axis_of_examples_leaves_a_client() -> None:
    steps, batch, height, width, channels = 11, 13, 17, 19, 23
    arrays: Any = (
        jax.ShapeDtypeStruct((steps, batch, height, width, channels), jnp.uint8),
        jax.ShapeDtypeStruct((steps, batch), jnp.int32),
        jax.ShapeDtypeStruct((steps, batch), jnp.bool_),
    )
    batches = Batch(*arrays)
    params = {"kernel": jnp.zeros((height * width * channels, tiny.CLASSES))}
    params["bias"] = jnp.zeros(tiny.CLASSES)
    variables = Variables(params, {"mean": jnp.float32(0)})
    scalar = jax.ShapeDtypeStruct((), jnp.int32)
    update = local_update(MODEL, momentum, tiny.LOSS, augment=tiny.as_floats)
    out = jax.eval_shape(update, variables, batches, scalar, scalar, KEY)
    shapes = jax.tree.map(lambda x: x.shape, out)
    assert shapes.delta == jax.tree.map(jnp.shape, params)
    assert shapes.stats == {"mean": ()}
    assert shapes.tally == ((), (), ())


# --- FedProx --------------------------------------------------------------------------------------


def test_fedprox_with_a_vanishing_mu_is_fedavg() -> None:
    laid = tiny.make_cohort(5, 11)
    tiny.close(run(laid, proximal=1e-12), run(laid))


def test_a_large_mu_keeps_a_client_near_the_start() -> None:
    laid = tiny.make_cohort(40, local_epochs=5)
    far, near, nearest = (
        float(trees.norm(run(laid, optimizer=sgd, proximal=mu).delta)) for mu in (0.0, 2.0, 18.0)
    )
    assert 0 < nearest < near / 3 < far / 3


def test_the_pull_is_the_gradient_of_the_proximal_term() -> None:
    """Two steps by hand: w1 = w0 - r g(w0), w2 = w1 - r (g(w1) + mu (w1 - w0))."""
    rate, mu = 0.5, 0.7
    batches, _ = tiny.slot(tiny.make_cohort(8, local_epochs=1), 0)

    def mean_loss(params: Any, i: int) -> jax.Array:
        pixels = tiny.as_floats(batches.images[i], KEY)
        logits, _ = plain.learn(Variables(params, {}), pixels, batches.mask[i], KEY)
        return jnp.mean(tiny.LOSS(logits, batches.labels[i]))

    plain = tiny.make_model()
    begin = plain.init(jax.random.key(0))
    w0 = begin.params
    w1 = trees.sub(w0, trees.scale(jax.grad(mean_loss)(w0, 0), rate))
    gradient = trees.add(jax.grad(mean_loss)(w1, 1), trees.scale(trees.sub(w1, w0), mu))
    w2 = trees.sub(w1, trees.scale(gradient, rate))
    update = local_update(
        plain, lambda round: optax.sgd(rate), tiny.LOSS, augment=tiny.as_floats, proximal=mu
    )(begin, batches, jnp.int32(2), jnp.int32(0), KEY)
    tiny.close(trees.add(w0, update.delta), w2)


# --- the learning rate ----------------------------------------------------------------------------


def test_the_learning_rate_decays_with_the_rounds_without_compiling_again() -> None:
    settings = config.Federated(client=config.Sgd(learning_rate=0.5), client_decay=0.5)
    update: Any = jax.jit(
        local_update(MODEL, client_optimizer(settings), tiny.LOSS, augment=tiny.as_floats)
    )
    batches, _ = tiny.slot(tiny.make_cohort(4, local_epochs=1), 0)
    first, fourth = (
        update(VARIABLES, batches, jnp.int32(1), jnp.int32(done), KEY).delta for done in (0, 3)
    )
    tiny.close(trees.scale(first, 0.5**3), fourth)
    assert update._cache_size() == 1


@pytest.mark.parametrize("client", [config.Sgd(momentum=0.9, nesterov=True), config.Adam()])
def test_clients_take_either_optimizer(client: config.Sgd | config.Adam) -> None:
    settings = config.Federated(client=client, client_decay=0.9)
    update = run(tiny.make_cohort(11), optimizer=client_optimizer(settings))
    assert float(trees.norm(update.delta)) > 0
