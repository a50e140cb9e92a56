import jax
import jax.numpy as jnp
import numpy as np
import pytest

from lepton_jax import config
from lepton_jax.training.losses import make_loss

LOGITS = np.random.default_rng(0).normal(size=(6, 4)).astype(np.float32)
LABELS = np.array([0, 1, 2, 3, 1, 0], np.int32)


@pytest.mark.parametrize("smoothing", [0.0, 0.1, 0.9])
def test_smoothed_cross_entropy_is_that_of_the_smoothed_labels(smoothing: float) -> None:
    loss = make_loss(config.CrossEntropy(label_smoothing=smoothing))
    exponents = np.exp(LOGITS.astype(np.float64))
    scores = np.log(exponents / exponents.sum(axis=-1, keepdims=True))
    targets = (1 - smoothing) * np.eye(4)[LABELS] + smoothing / 4
    got = loss(jnp.asarray(LOGITS), jnp.asarray(LABELS))
    np.testing.assert_allclose(got, -(targets * scores).sum(axis=-1), rtol=1e-6)


def test_squared_error_is_the_mean_over_classes_of_probability_less_one_hot() -> None:
    loss = make_loss(config.MeanSquaredError())
    exponents = np.exp(LOGITS.astype(np.float64))
    shares = exponents / exponents.sum(axis=-1, keepdims=True)
    expected = ((shares - np.eye(4)[LABELS]) ** 2).mean(axis=-1)
    got = loss(jnp.asarray(LOGITS), jnp.asarray(LABELS))
    np.testing.assert_allclose(got, expected, rtol=1e-6)


@pytest.mark.parametrize("kind", [config.CrossEntropy(), config.MeanSquaredError()])
def test_losses_are_float32_and_finite_for_huge_bfloat16_logits(kind: config.Loss) -> None:
    logits = jnp.array([[3e4, -3e4, 0, 0]], jnp.bfloat16)
    losses = jax.jit(make_loss(kind))(logits, jnp.array([1], jnp.int32))
    assert losses.dtype == jnp.float32 and bool(jnp.isfinite(losses).all())
