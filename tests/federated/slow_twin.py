"""Federated averaging as the paper writes it, in Python loops: the fast round's oracle."""

from collections.abc import Sequence

import jax
import jax.numpy as jnp
import numpy as np

from lepton_jax.training.losses import Loss
from lepton_jax.typing import Classifier, PyTree, Variables

Rows = tuple[np.ndarray, np.ndarray]  # images [n,H,W,F], labels [n]


def federated_averaging(
    model: Classifier,
    loss: Loss,
    w: PyTree,
    rounds: Sequence[Sequence[Sequence[Rows]]],
    rate: float,
) -> PyTree:
    """Algorithm 1 of McMahan et al. (2017).

    Args:
      model: without statistics.
      loss: of one example each.
      w: where to begin.
      rounds: for each round t the clients S_t; for each client k its minibatches, all epochs in a
        row, each without any padding.
      rate: the learning rate eta.

    Returns:
      The parameters after the last round.
    """

    @jax.jit
    def gradient(w: PyTree, images: np.ndarray, labels: np.ndarray) -> PyTree:
        def mean_loss(w: PyTree) -> jax.Array:
            pixels = jnp.asarray(images, jnp.float32)
            return jnp.mean(loss(model.apply(Variables(w, {}), pixels), jnp.asarray(labels)))

        return jax.grad(mean_loss)(w)

    for clients in rounds:
        n = [sum(len(labels) for _, labels in batches) for batches in clients]
        after = []
        for batches in clients:
            w_k = w
            for images, labels in batches:
                g = gradient(w_k, images, labels)
                w_k = jax.tree.map(lambda w, g: w - rate * g, w_k, g)
            after.append(w_k)
        m = sum(n)
        w = jax.tree.map(
            lambda *w_k: sum(n_k / m * w for n_k, w in zip(n, w_k, strict=True)),  # noqa: B023
            *after,
        )
    return w
