from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from lepton_jax import config, metrics, trees
from lepton_jax.data.batches import epoch_batches
from lepton_jax.data.splits import Examples
from lepton_jax.training.loop import fit, on_device
from lepton_jax.training.losses import cross_entropy
from lepton_jax.training.optimizers import make_optimizer
from lepton_jax.training.step import Augment, TrainState, evaluated, init_state, make_step
from lepton_jax.typing import Batch, Classifier

TX = make_optimizer(config.Sgd(learning_rate=0.3, momentum=0.9))
KEY = jax.random.key(7)


def start(model: Classifier, ema: float | None = None) -> TrainState:
    return jax.jit(lambda key: init_state(model.init(key), TX, ema=ema))(jax.random.key(0))


def batch_of(examples: Examples, padding: int = 0, fill: int = 0) -> Batch:
    """All examples in one batch, with so many rows of padding that hold `fill`."""
    count, size = len(examples.labels), len(examples.labels) + padding
    images = np.full((size, *examples.images.shape[1:]), fill, np.uint8)
    labels = np.zeros(size, np.int32)
    images[:count], labels[:count] = examples.images, examples.labels
    return Batch(jnp.asarray(images), jnp.asarray(labels), jnp.arange(size) < count)


def test_a_step_of_sgd_equals_numpys(
    model: Classifier, examples: Callable[[int], Examples], augment: Augment
) -> None:
    state, data = start(model), examples(8)
    step = jax.jit(make_step(model, TX, cross_entropy(), augment=augment))
    new, tally = step(state, batch_of(data), KEY)

    pixels = data.images.astype(np.float64).reshape(8, -1) / 255
    inputs = pixels - 0.1 * pixels.mean()
    kernel = np.asarray(state.params["kernel"], np.float64)
    exponents = np.exp(inputs @ kernel)
    shares = exponents / exponents.sum(axis=-1, keepdims=True)
    slope = (shares - np.eye(3)[data.labels]) / 8
    np.testing.assert_allclose(new.params["kernel"], kernel - 0.3 * inputs.T @ slope, atol=1e-6)
    np.testing.assert_allclose(new.params["bias"], -0.3 * slope.sum(axis=0), atol=1e-6)
    np.testing.assert_allclose(new.stats["mean"], 0.1 * pixels.mean(), rtol=1e-5)
    losses = -np.log(shares[np.arange(8), data.labels])
    assert float(tally.loss) == pytest.approx(losses.sum(), rel=1e-5)
    assert (int(tally.count), int(new.step), int(new.first_bad)) == (8, 1, 0)


def test_padding_contributes_exactly_nothing(
    model: Classifier, examples: Callable[[int], Examples], augment: Augment
) -> None:
    step = jax.jit(make_step(model, TX, cross_entropy(0.1), augment=augment, ema=0.9))
    ends = [
        step(start(model, 0.9), batch_of(examples(5), padding=3, fill=fill), KEY)
        for fill in (0, 77, 255)
    ]
    assert len({trees.sha256(end) for end in ends}) == 1


def test_more_padding_changes_a_step_by_rounding_only(
    model: Classifier, examples: Callable[[int], Examples], augment: Augment
) -> None:
    step = jax.jit(make_step(model, TX, cross_entropy(), augment=augment))
    (bare, _), (padded, _) = (
        step(start(model), batch_of(examples(5), padding), KEY) for padding in (0, 4)
    )
    np.testing.assert_allclose(bare.params["kernel"], padded.params["kernel"], atol=1e-7)


def test_the_key_is_folded_with_the_step(
    model: Classifier, examples: Callable[[int], Examples]
) -> None:
    def noise(images: jax.Array, key: jax.Array) -> jax.Array:
        return 255 * jax.random.uniform(key, images.shape)

    step = jax.jit(make_step(model, TX, cross_entropy(), augment=noise))
    state, batch = start(model), batch_of(examples(4))
    first = step(state, batch, KEY)[1]
    again = step(state, batch, KEY)[1]
    later = step(state._replace(step=jnp.int32(1)), batch, KEY)[1]
    assert float(first.loss) == float(again.loss) != float(later.loss)


def test_an_average_that_decays_at_once_is_the_variables(
    model: Classifier, examples: Callable[[int], Examples], augment: Augment
) -> None:
    step = jax.jit(make_step(model, TX, cross_entropy(), augment=augment, ema=0.0))
    state = start(model, 0.0)
    for _ in range(3):
        state, _ = step(state, batch_of(examples(8)), KEY)
        assert trees.sha256(evaluated(state).params) == trees.sha256(state.params)
        assert trees.sha256(evaluated(state).stats) == trees.sha256(state.stats)


def test_the_average_forgets_the_start_and_then_decays_as_told(
    model: Classifier, examples: Callable[[int], Examples], augment: Augment
) -> None:
    step = jax.jit(make_step(model, TX, cross_entropy(), augment=augment, ema=0.25))
    state = start(model, 0.25)
    expected = np.asarray(state.params["kernel"])
    for done, decay in enumerate((0.1, 2 / 11, 0.25, 0.25)):
        assert decay == pytest.approx(min(0.25, (1 + done) / (10 + done)))
        state, _ = step(state, batch_of(examples(8)), KEY)
        expected = decay * expected + (1 - decay) * np.asarray(state.params["kernel"])
    np.testing.assert_allclose(evaluated(state).params["kernel"], expected, rtol=1e-5)


def test_the_first_step_that_is_not_finite_is_remembered(
    model: Classifier, examples: Callable[[int], Examples], augment: Augment
) -> None:
    step = jax.jit(make_step(model, TX, cross_entropy(), augment=augment))
    state, batch = start(model), batch_of(examples(4))
    state, _ = step(state, batch, KEY)
    poisoned = {**state.params, "bias": jnp.full(3, jnp.inf)}
    state, _ = step(state._replace(params=poisoned), batch, KEY)
    for _ in range(2):
        state, _ = step(state, batch, KEY)
    assert (int(state.step), int(state.first_bad)) == (4, 2)


def test_fit_steps_through_all_batches_in_order(
    model: Classifier, examples: Callable[[int], Examples], augment: Augment
) -> None:
    step = jax.jit(make_step(model, TX, cross_entropy(), augment=augment), donate_argnums=0)
    batches = [jax.tree.map(np.asarray, batch_of(examples(4), padding=n)) for n in (0, 0, 0)]
    state = start(model)._replace(step=jnp.int32(5))
    seen = [(done, int(state.step)) for done, state, _ in fit(step, state, batches, KEY)]
    assert seen == [(6, 6), (7, 7), (8, 8)]


def test_an_epoch_counts_every_example_once(
    model: Classifier, examples: Callable[[int], Examples], augment: Augment
) -> None:
    step = jax.jit(make_step(model, TX, cross_entropy(), augment=augment), donate_argnums=0)
    batches = epoch_batches(examples(11), 4, seed=0, epoch=1)
    total = metrics.zero_tally()
    for _, _, tally in fit(step, start(model), batches, KEY):
        total = metrics.merge(total, tally)
    assert int(total.count) == 11


@pytest.mark.parametrize("count", [0, 1, 3])
def test_sending_ahead_loses_and_reorders_nothing(count: int) -> None:
    def batches() -> list[Batch]:
        images, mask = jnp.zeros((1, 2, 2, 1), jnp.uint8), jnp.ones(1, bool)
        return [Batch(images, jnp.array([i], jnp.int32), mask) for i in range(count)]

    assert [int(batch.labels[0]) for batch in on_device(batches())] == list(range(count))
