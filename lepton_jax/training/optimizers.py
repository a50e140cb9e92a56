"""Optimizers and learning-rate schedules from a config, in Optax' terms."""

from collections.abc import Callable

import jax
import jax.numpy as jnp
import optax

from lepton_jax import config
from lepton_jax.typing import PyTree

Schedule = Callable[[jax.Array | int], jax.Array]


def make_optimizer(
    settings: config.Optimizer,
    *,
    learning_rate: float | Schedule | None = None,
    clip_norm: float | None = None,
) -> optax.GradientTransformation:
    """A config's optimizer, for central training, a client or the server.

    Args:
      settings: which optimizer, and its constants.
      learning_rate: replaces that of `settings`; a number, or a schedule from steps done.
      clip_norm: scales the gradient down to this L2 norm first, before weight decay is added.

    Returns:
      An Optax transformation. Weight decay leaves out norms and biases: leaves of rank 0 and 1.
      SGD adds it to the gradient, Adam to the update (Loshchilov and Hutter, 2019).
    """
    rate = settings.learning_rate if learning_rate is None else learning_rate
    clip = optax.identity() if clip_norm is None else optax.clip_by_global_norm(clip_norm)
    return optax.chain(clip, _rule(settings, rate))


def _rule(settings: config.Optimizer, rate: float | Schedule) -> optax.GradientTransformation:
    match settings:
        case config.Sgd(momentum=momentum, nesterov=nesterov, weight_decay=decay):
            decayed = optax.add_decayed_weights(decay, decays) if decay else optax.identity()
            return optax.chain(decayed, optax.sgd(rate, momentum or None, nesterov))
        case config.Adam(b1=b1, b2=b2, eps=eps, weight_decay=decay):
            return _lenient(optax.adamw(rate, b1, b2, eps, weight_decay=decay, mask=decays))
        case config.Yogi(b1=b1, b2=b2, eps=eps):
            return _lenient(optax.yogi(rate, b1, b2, eps))


def _lenient(tx: optax.GradientTransformation) -> optax.GradientTransformation:
    """Lets Optax raise a float to a whole count, which strict promotion refuses."""

    def update(
        updates: PyTree, state: PyTree, params: PyTree | None = None
    ) -> tuple[PyTree, PyTree]:
        with jax.numpy_dtype_promotion("standard"):
            return tx.update(updates, state, params)

    return optax.GradientTransformation(tx.init, update)


def decays(params: PyTree) -> PyTree:
    """Which leaves weight decay touches: kernels, not norms and biases.

    >>> decays({"kernel": jnp.ones((2, 3)), "bias": jnp.ones(3)})
    {'bias': False, 'kernel': True}
    """
    return jax.tree.map(lambda leaf: leaf.ndim > 1, params)


def make_schedule(settings: config.Train, steps_per_epoch: int) -> Schedule:
    """The learning rate from the number of steps done.

    It climbs linearly to the optimizer's learning rate over the warm-up (step 0 takes 1/w of it,
    Goyal et al., 2017). A cosine spans what is left; `step` multiplies once so many epochs are done.

    Args:
      settings: optimizer, schedule, epochs and warm-up.
      steps_per_epoch: optimizer steps in an epoch.

    >>> rate = make_schedule(config.Train(schedule=config.Step(epochs=(2,))), steps_per_epoch=10)
    >>> [round(float(rate(step)), 4) for step in (0, 19, 20)]
    [0.1, 0.1, 0.01]
    """
    warmup = float(settings.warmup_epochs * steps_per_epoch)
    span = settings.epochs * steps_per_epoch - warmup
    shape = _shape(settings.schedule, warmup, span, steps_per_epoch)

    def schedule(step: jax.Array | int) -> jax.Array:
        done = jnp.asarray(step, jnp.float32)
        climb = jnp.minimum(1.0, (done + 1) / warmup) if warmup else 1.0
        return jnp.asarray(settings.optimizer.learning_rate * climb * shape(done), jnp.float32)

    return schedule


def _shape(
    settings: config.Schedule, warmup: float, span: float, steps_per_epoch: int
) -> Callable[[jax.Array], jax.Array | float]:
    """Steps done -> the factor on the learning rate, warm-up aside."""
    match settings:
        case config.Constant():
            return lambda done: 1.0
        case config.Cosine(final=final):

            def cosine(done: jax.Array) -> jax.Array:
                part = jnp.clip((done - warmup) / span, 0.0, 1.0)
                return final + (1 - final) * 0.5 * (1 + jnp.cos(jnp.pi * part))

            return cosine
        case config.Step(epochs=epochs, factor=factor):

            def steps(done: jax.Array) -> jax.Array:
                passed = sum(
                    (done >= epoch * steps_per_epoch).astype(jnp.float32) for epoch in epochs
                )
                return jnp.asarray(factor, jnp.float32) ** passed

            return steps
