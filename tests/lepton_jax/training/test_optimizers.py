import math
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from lepton_jax import config, trees
from lepton_jax.training.optimizers import make_optimizer, make_schedule

PARAMS = {"kernel": jnp.full((2, 3), 2.0), "bias": jnp.full(3, 2.0), "scale": jnp.full(3, 2.0)}
NOTHING = jax.tree.map(jnp.zeros_like, PARAMS)


def moved(settings: config.Optimizer, gradient: dict, **options: Any) -> dict:
    """How far one step moves `PARAMS`."""
    tx = make_optimizer(settings, **options)
    updates, _ = tx.update(gradient, tx.init(PARAMS), PARAMS)
    return updates


@pytest.mark.parametrize("kind", [config.Sgd, config.Adam])
def test_weight_decay_moves_kernels_and_leaves_norms_and_biases(kind: type) -> None:
    updates = moved(kind(learning_rate=0.5, weight_decay=0.1), NOTHING)
    np.testing.assert_allclose(updates["kernel"], -0.5 * 0.1 * 2.0, rtol=1e-6)
    assert not updates["bias"].any() and not updates["scale"].any()


@pytest.mark.parametrize("nesterov", [False, True])
def test_sgd_steps_as_written_by_hand(nesterov: bool) -> None:
    settings = config.Sgd(learning_rate=0.1, momentum=0.9, nesterov=nesterov, weight_decay=0.01)
    tx = make_optimizer(settings)
    rng = np.random.default_rng(0)
    weights = rng.normal(size=(2, 3)).astype(np.float32)
    params, velocity = {"kernel": jnp.asarray(weights)}, np.zeros_like(weights)
    state = tx.init(params)
    for _ in range(3):
        gradient = rng.normal(size=(2, 3)).astype(np.float32)
        updates, state = tx.update({"kernel": jnp.asarray(gradient)}, state, params)
        params = optax.apply_updates(params, updates)

        decayed = gradient + 0.01 * weights
        velocity = 0.9 * velocity + decayed
        weights = weights - 0.1 * (decayed + 0.9 * velocity if nesterov else velocity)
    np.testing.assert_allclose(params["kernel"], weights, rtol=1e-6)


def test_clipping_scales_a_long_gradient_down_to_the_norm_and_keeps_a_short_one() -> None:
    gradient = {**NOTHING, "kernel": jnp.full((2, 3), 4.0), "bias": jnp.full(3, 2.0)}
    for clip_norm in (1.0, 1000.0):
        updates = moved(config.Sgd(learning_rate=1.0), gradient, clip_norm=clip_norm)
        expected = min(clip_norm, math.sqrt(6 * 16 + 3 * 4))
        assert float(trees.norm(updates)) == pytest.approx(expected, rel=1e-6)


def test_clipping_comes_before_weight_decay() -> None:
    gradient = {**NOTHING, "kernel": jnp.full((2, 3), 1e6)}
    settings = config.Sgd(learning_rate=1.0, weight_decay=10.0)
    updates = moved(settings, gradient, clip_norm=1e-3)
    np.testing.assert_allclose(updates["kernel"], -10.0 * 2.0, rtol=1e-3)


def test_a_given_learning_rate_replaces_the_configs() -> None:
    gradient = jax.tree.map(jnp.ones_like, PARAMS)
    for rate in (0.25, lambda step: 0.25):
        updates = moved(config.Sgd(learning_rate=9.0), gradient, learning_rate=rate)
        np.testing.assert_array_equal(updates["bias"], np.full(3, -0.25, np.float32))


@pytest.mark.parametrize("settings", [config.Sgd(), config.Adam(), config.Yogi()])
def test_every_optimizer_goes_downhill(settings: config.Optimizer) -> None:
    tx = make_optimizer(settings)
    params, state = PARAMS, tx.init(PARAMS)
    start = float(trees.norm(params))
    for _ in range(5):
        updates, state = tx.update(params, state, params)  # the gradient of |x|^2 / 2
        params = optax.apply_updates(params, updates)
    assert float(trees.norm(params)) < start


SGD = config.Sgd(learning_rate=0.4)


def rates(train: config.Train, *steps: int) -> list[float]:
    schedule = make_schedule(train, steps_per_epoch=10)
    return [float(schedule(step)) for step in steps]


def test_a_constant_schedule_stays() -> None:
    assert rates(config.Train(optimizer=SGD), 0, 57, 99) == pytest.approx([0.4] * 3)


def test_warm_up_climbs_linearly_and_never_starts_at_zero() -> None:
    train = config.Train(optimizer=SGD, warmup_epochs=2)
    assert rates(train, 0, 9, 19, 20, 50) == pytest.approx([0.02, 0.2, 0.4, 0.4, 0.4])


def test_a_cosine_spans_what_the_warm_up_leaves() -> None:
    train = config.Train(
        optimizer=SGD, epochs=12, warmup_epochs=2, schedule=config.Cosine(final=0.1)
    )
    half = 0.4 * (0.1 + 0.9 / 2)
    assert rates(train, 20, 70, 120, 999) == pytest.approx([0.4, half, 0.04, 0.04])


def test_a_step_schedule_multiplies_once_its_epochs_are_done() -> None:
    train = config.Train(optimizer=SGD, schedule=config.Step(epochs=(3, 6), factor=0.5))
    assert rates(train, 29, 30, 59, 60, 99) == pytest.approx([0.4, 0.2, 0.2, 0.1, 0.1])


def test_a_schedule_is_the_same_inside_jit() -> None:
    train = config.Train(optimizer=SGD, warmup_epochs=0.5, schedule=config.Cosine())
    schedule = make_schedule(train, steps_per_epoch=7)
    steps = jnp.arange(70, dtype=jnp.int32)
    outside = [float(schedule(step)) for step in range(70)]
    np.testing.assert_allclose(jax.jit(jax.vmap(schedule))(steps), outside, rtol=1e-5, atol=1e-8)
