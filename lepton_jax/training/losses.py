"""Losses of one example each; means and masks are the caller's."""

from collections.abc import Callable
from functools import cache

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from lepton_jax import config
from lepton_jax.typing import Labels, Logits

Loss = Callable[[Logits, Labels], Float[Array, "B"]]


def make_loss(settings: config.Loss) -> Loss:
    """A config's loss.

    Args:
      settings: which loss, and its constants.

    Returns:
      (logits [B, K], labels [B]) -> each example's loss [B], in float32.
    """
    match settings:
        case config.CrossEntropy():
            return cross_entropy(settings.label_smoothing)
        case config.MeanSquaredError():
            return mean_squared_error


@cache  # the same function for the same constants, so that what is compiled with it is found again
def cross_entropy(label_smoothing: float = 0.0) -> Loss:
    """Softmax cross-entropy in nats, against (1 - s) one-hot + s/K (Szegedy et al., 2016)."""

    def loss(logits: Logits, labels: Labels) -> Float[Array, "B"]:
        scores = jax.nn.log_softmax(logits.astype(jnp.float32))
        own = jnp.take_along_axis(scores, labels[:, None], axis=-1)[:, 0]
        return -(1 - label_smoothing) * own - label_smoothing * jnp.mean(scores, axis=-1)

    return loss


def mean_squared_error(logits: Logits, labels: Labels) -> Float[Array, "B"]:
    """Mean over the classes of (softmax - one-hot) squared (Brier, 1950)."""
    shares = jax.nn.softmax(logits.astype(jnp.float32))
    return jnp.mean(jnp.square(shares - jax.nn.one_hot(labels, logits.shape[-1])), axis=-1)
