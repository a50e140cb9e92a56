"""One training step: state and batch in, state and tally out."""

from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Int32

from lepton_jax import metrics, trees
from lepton_jax.metrics import Tally
from lepton_jax.training.losses import Loss
from lepton_jax.typing import (
    Batch,
    Classifier,
    Images,
    Pixels,
    PRNGKey,
    PyTree,
    Variables,
    keys,
)

Augment = Callable[[Images, PRNGKey], Pixels]


class TrainState(NamedTuple):
    """All that changes from step to step; nothing random is in it.

    Attributes:
      step: how many steps are done.
      params: what the optimizer moves.
      stats: BatchNorm's running statistics, or {}.
      opt_state: the optimizer's own.
      ema: moving average of params and stats, or None where none is kept.
      first_bad: the number of the first step (from 1) with a loss or a variable that isn't finite,
        0 while there is none. It rides along on the device, so that looking is rarely needed.
    """

    step: Int32[Array, ""]
    params: PyTree
    stats: PyTree
    opt_state: PyTree
    ema: Variables | None
    first_bad: Int32[Array, ""]


# (variables, batch, key) -> (gradient by the parameters, (tally of the batch, new statistics))
# What a batch holds is between whoever draws it and the gradient: a `Batch`, or one with its noise.
Gradient = Callable[[Variables, Any, PRNGKey], tuple[PyTree, tuple[Tally, PyTree]]]
Step = Callable[[TrainState, Any, PRNGKey], tuple[TrainState, Tally]]
Batches = Callable[[int], Iterator[Any]]  # an epoch's number -> what its steps take


def init_state(
    variables: Variables, tx: optax.GradientTransformation, *, ema: float | None = None
) -> TrainState:
    """The state before the first step.

    Args:
      variables: the model's fresh ones; copied for the average, as a donated buffer can't be shared.
      tx: the optimizer.
      ema: as in `make_step`.
    """
    average = None if ema is None else Variables(*jax.tree.map(jnp.copy, tuple(variables)))
    opt_state = tx.init(variables.params)
    return TrainState(jnp.int32(0), *variables, opt_state, average, jnp.int32(0))


def evaluated(state: TrainState) -> Variables:
    """What is evaluated and exported: the moving average where one is kept."""
    return Variables(state.params, state.stats) if state.ema is None else state.ema


def make_step(
    model: Classifier,
    tx: optax.GradientTransformation,
    loss: Loss,
    *,
    augment: Augment,
    ema: float | None = None,
) -> Step:
    """One step of gradient descent on the mean loss of a batch's examples.

    Args:
      model: its `learn` is differentiated.
      tx: the optimizer.
      loss: (logits, labels) -> each example's loss [B].
      augment: (images uint8 [B,H,W,F], key) -> pixels on 0..255.
      ema: as of `make_step_along`.

    Returns:
      As `make_step_along`; padding adds exactly 0.
    """
    return make_step_along(mean_gradient(model, loss, augment=augment), tx, ema=ema)


def make_step_along(
    gradient: Gradient, tx: optax.GradientTransformation, *, ema: float | None = None
) -> Step:
    """One step of an optimizer along some gradient.

    Args:
      gradient: of a batch.
      tx: the optimizer.
      ema: decay of the moving average; early on min(decay, (1+t)/(10+t)), so that the start, which
        is random, is soon forgotten. None keeps no average.

    Returns:
      (state, batch, key) -> (state, tally of the batch before the step). Jit it with `donate_argnums=0`; the key is the run's, and is folded with the step here.
    """

    def step(state: TrainState, batch: Any, key: PRNGKey) -> tuple[TrainState, Tally]:
        key = jax.random.fold_in(key, state.step)
        grads, (counts, stats) = gradient(Variables(state.params, state.stats), batch, key)
        updates, opt_state = tx.update(grads, state.opt_state, state.params)
        params = optax.apply_updates(state.params, updates)
        new = Variables(params, stats)
        average = None if ema is None else _average(state.ema, new, ema, state.step)
        good = trees.all_finite((counts.loss, new)) | (state.first_bad > 0)
        first_bad = jnp.where(good, state.first_bad, state.step + 1)
        return TrainState(state.step + 1, params, stats, opt_state, average, first_bad), counts

    return step


def mean_gradient(model: Classifier, loss: Loss, *, augment: Augment) -> Gradient:
    """That of the mean loss of the batch's examples; arguments as of `make_step`."""

    def objective(
        params: PyTree, stats: PyTree, batch: Batch, key: PRNGKey
    ) -> tuple[jax.Array, tuple[Tally, PyTree]]:
        purpose = keys(key, "augment", "learn")
        pixels = augment(batch.images, purpose["augment"])
        logits, stats = model.learn(Variables(params, stats), pixels, batch.mask, purpose["learn"])
        losses = loss(logits, batch.labels)
        counts = metrics.tally(losses, logits, batch.labels, batch.mask)
        return counts.loss / jnp.maximum(counts.count, 1).astype(jnp.float32), (counts, stats)

    def gradient(
        variables: Variables, batch: Batch, key: PRNGKey
    ) -> tuple[PyTree, tuple[Tally, PyTree]]:
        return jax.grad(objective, has_aux=True)(*variables, batch, key)

    return gradient


def _average(
    old: Variables | None, new: Variables, decay: float, step: Int32[Array, ""]
) -> Variables:
    done = step.astype(jnp.float32)
    decay_now = jnp.minimum(decay, (1 + done) / (10 + done))

    def mix(a: jax.Array, b: jax.Array) -> jax.Array:
        return (decay_now * a + (1 - decay_now) * b).astype(a.dtype)

    return jax.tree.map(mix, old, new)
