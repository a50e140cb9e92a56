"""Gradient inversion: what an attacker sees of the images behind an update (Geiping et al., 2020).

An *estimate*, no bound: a better attack may exist. It is given more than a server has: the labels,
and updates of a single example and a single step of a fresh model, in which gradients tell most.
It looks for the image whose gradient points where the update does, with little total variation, by
Adam on the signs of its gradient.
"""

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax import lax
from jaxtyping import Array, Float32, Int32

from lepton_jax import config, trees
from lepton_jax.privacy.noise import add_normal
from lepton_jax.training.losses import Loss
from lepton_jax.training.optimizers import make_optimizer
from lepton_jax.training.private import clipped_sum
from lepton_jax.typing import Classifier, PRNGKey, PyTree, Variables

_RATE, _VARIATION = 0.1, 1e-3
Image = Float32[Array, "H W F"]


class Attacker(NamedTuple):
    """What is attacked, and how long.

    Attributes:
      model: without BatchNorm, so that an example's gradient is its own.
      loss: (logits, labels) -> each example's loss [B].
      variables: that the clients began with.
      clip_norm: to which the noised update's examples are clipped.
      multiplier: deviation of its noise, over that norm.
      steps: of the attack.
      starts: random images that it begins with; the best end counts.
    """

    model: Classifier
    loss: Loss
    variables: Variables
    clip_norm: float
    multiplier: float
    steps: int = 300
    starts: int = 2


class Inversion(NamedTuple):
    """Images [V,H,W,F] in [0, 1] and how near they come, in decibels (PSNR), for V victims.

    Attributes:
      original: what the victims hold.
      plain: from each victim's own update.
      aggregated: from the mean of the whole cohort's updates.
      noised: from the cohort's clipped and noised sum.
      decibels: of each of the three, [V]; about 8 is a guess, 20 a good likeness.
    """

    original: np.ndarray
    plain: np.ndarray
    aggregated: np.ndarray
    noised: np.ndarray
    decibels: dict[str, np.ndarray]


def inversion(
    attacker: Attacker, images: np.ndarray, labels: np.ndarray, *, victims: int, key: PRNGKey
) -> Inversion:
    """Attacks the first of a cohort, each of whom holds one image.

    Args:
      attacker: the model and the means.
      images: uint8 [C,H,W,F], one of each client.
      labels: [C].
      victims: V, at most C.
      key: of noise and of the attack's starts.
    """
    truth = jnp.asarray(images, jnp.float32) / 255
    classes = jnp.asarray(labels, jnp.int32)
    noise, starts = jax.random.split(key)
    own = jax.jit(jax.vmap(_gradient_of(attacker)))(truth, classes)
    shape = (victims, attacker.starts, *images.shape[1:])
    begin, wanted = jax.random.uniform(starts, shape), classes[:victims]
    invert = jax.jit(_each(_inversion_of(attacker)))
    held = np.asarray(truth[:victims])
    seen: dict[str, np.ndarray] = {}
    for name, update in _views(attacker, own, victims, noise).items():
        ends, distances = jax.device_get(invert(update, wanted, begin))
        seen[name] = ends[np.arange(victims), np.argmin(distances, axis=1)]
    return Inversion(held, **seen, decibels={name: psnr(seen[name], held) for name in seen})


def psnr(found: np.ndarray, truth: np.ndarray) -> np.ndarray:
    """Peak signal over noise [V] in decibels, of images [V,H,W,F] in [0, 1]; at most 100.

    >>> psnr(np.full((1, 2, 2, 1), 0.1), np.zeros((1, 2, 2, 1))).round(6)
    array([20.])
    """
    error = np.square(found.astype(np.float64) - truth).mean(axis=(1, 2, 3))
    return np.asarray(-10 * np.log10(np.maximum(error, 1e-10)))


def _gradient_of(attacker: Attacker) -> Callable[[Image, Int32[Array, ""]], PyTree]:
    """(image, label) -> the gradient of its loss, which is minus the update of one step of SGD."""

    def loss(params: PyTree, image: Image, label: Int32[Array, ""]) -> Float32[Array, ""]:
        variables, alone = Variables(params, attacker.variables.stats), jnp.ones(1, bool)
        key = jax.random.key(0)
        logits, _ = attacker.model.learn(variables, 255 * image[None], alone, key)
        return attacker.loss(logits, label[None])[0]

    return lambda image, label: jax.grad(loss)(attacker.variables.params, image, label)


def _views(attacker: Attacker, own: PyTree, victims: int, key: PRNGKey) -> dict[str, PyTree]:
    """What can be seen of the victims' updates, [V,...] each."""
    cohort = len(jax.tree.leaves(own)[0])
    bound = attacker.clip_norm
    clipped = clipped_sum(own, jnp.ones(cohort, bool), bound)
    noised = add_normal(clipped, attacker.multiplier * bound, key)

    def for_each(tree: PyTree) -> PyTree:
        return jax.tree.map(lambda x: jnp.broadcast_to(x, (victims, *x.shape)), tree)

    return {
        "plain": jax.tree.map(lambda x: x[:victims], own),
        "aggregated": for_each(jax.tree.map(lambda x: x.mean(0), own)),
        "noised": for_each(noised),
    }


def _inversion_of(
    attacker: Attacker,
) -> Callable[[PyTree, Int32[Array, ""], Image], tuple[Image, Float32[Array, ""]]]:
    """(update, label, first guess) -> (image, how far its gradient's direction is off)."""
    gradient_of = _gradient_of(attacker)
    parts = [3 * attacker.steps // 8, 5 * attacker.steps // 8, 7 * attacker.steps // 8]
    rate = optax.piecewise_constant_schedule(_RATE, dict.fromkeys(parts, 0.1))
    tx = make_optimizer(config.Adam(), learning_rate=rate)

    def invert(
        update: PyTree, label: Int32[Array, ""], first: Image
    ) -> tuple[Image, Float32[Array, ""]]:
        length = trees.norm(update)

        def off(image: Image) -> Float32[Array, ""]:
            found = gradient_of(image, label)
            products = jax.tree.map(lambda a, b: jnp.sum(a * b), found, update)
            product = sum(jax.tree.leaves(products), start=jnp.float32(0))
            return 1 - product / jnp.maximum(trees.norm(found) * length, 1e-12)

        def objective(image: Image) -> Float32[Array, ""]:
            return off(image) + _VARIATION * _total_variation(image)

        def step(carry: tuple[Image, PyTree], _: None) -> tuple[tuple[Image, PyTree], None]:
            image, state = carry
            move, state = tx.update(jnp.sign(jax.grad(objective)(image)), state, image)
            return (jnp.clip(optax.apply_updates(image, move), 0.0, 1.0), state), None

        (end, _), _ = lax.scan(step, (first, tx.init(first)), None, attacker.steps)
        return end, off(end)

    return invert


def _each(invert: Callable) -> Callable:
    """Goes over victims, and over their starts, one after another: batched, it compiles for long."""

    def of_victim(victim: tuple) -> PyTree:
        update, label, starts = victim
        return lax.map(lambda first: invert(update, label, first), starts)

    return lambda *victims: lax.map(of_victim, victims)


def _total_variation(image: Image) -> Float32[Array, ""]:
    down, across = image[1:] - image[:-1], image[:, 1:] - image[:, :-1]
    return jnp.mean(jnp.abs(down)) + jnp.mean(jnp.abs(across))
