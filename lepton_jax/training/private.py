"""DP-SGD: each example's gradient is clipped, and noise is added to their sum (Abadi et al., 2016)."""

import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Bool

from lepton_jax import metrics, trees
from lepton_jax.checks import UserError
from lepton_jax.config import Privacy, Run
from lepton_jax.metrics import Tally
from lepton_jax.models.presets import resolve
from lepton_jax.privacy.noise import add_normal
from lepton_jax.training.losses import Loss
from lepton_jax.training.step import Augment, Gradient
from lepton_jax.typing import Batch, Classifier, PRNGKey, PyTree, Variables, keys


def check_private(run: Run) -> None:
    """Refuses what would release something of the examples without noise.

    Raises:
      UserError: BatchNorm, or normalization by the training pixels.
    """
    if resolve(run.model).norm == "batch":
        raise UserError(
            "model.norm",
            "a model whose statistics no example moves, with train.privacy",
            "batch",
            'set model.norm = "group" or "none"',
        )
    if run.data.normalization == "standard":
        raise UserError(
            "data.normalization",
            "one that tells nothing of the training pixels, with train.privacy",
            "standard",
            'set data.normalization = "unit"',
        )


def private_gradient(
    model: Classifier, loss: Loss, settings: Privacy, *, augment: Augment, batch_size: int
) -> Gradient:
    """The noised mean of the clipped gradients of a Poisson batch's examples.

    *Guarantee.* Each example adds to the sum a vector of an L2 norm of at most `clip_norm`, which
    depends on no other example; the noise has the deviation `noise_multiplier * clip_norm`; and
    what is divided by is fixed beforehand. Where each example is in the batch independently with
    the same probability, the gradient is what `accounting` takes for one Gaussian event. The tally
    is not private.

    | edge                                   | result                                      |
    |----------------------------------------|---------------------------------------------|
    | an empty batch                         | noise alone                                 |
    | an example whose gradient is not       | it adds nothing                             |
    | finite, or so long that its squared    |                                             |
    | norm overflows                         |                                             |
    | a gradient of zero                     | it adds nothing                             |

    Args:
      model: without BatchNorm.
      loss: (logits, labels) -> each example's loss [B].
      settings: bounds and noise.
      augment: (images uint8 [B,H,W,F], key) -> pixels on 0..255; works on each image by itself.
      batch_size: expected.

    Returns:
      As `mean_gradient`. The batch's examples come first, its padding last.
    """
    size = settings.microbatch

    def of_one(
        params: PyTree, stats: PyTree, example: Batch, key: PRNGKey
    ) -> tuple[jax.Array, Tally]:
        purpose = keys(key, "augment", "learn")
        alone = jax.tree.map(lambda x: x[None], example)
        pixels = augment(alone.images, purpose["augment"])
        logits, _ = model.learn(Variables(params, stats), pixels, alone.mask, purpose["learn"])
        losses = loss(logits, alone.labels)
        return losses[0], metrics.tally(losses, logits, alone.labels, alone.mask)

    of_each = jax.vmap(jax.grad(of_one, has_aux=True), in_axes=(None, None, 0, 0))

    def gradient(
        variables: Variables, batch: Batch, key: PRNGKey
    ) -> tuple[PyTree, tuple[Tally, PyTree]]:
        purpose = keys(key, "examples", "noise")
        chunks = jax.tree.map(lambda x: _in_chunks(x, size), batch)

        def add(i: Array, carry: tuple[PyTree, Tally]) -> tuple[PyTree, Tally]:
            total, counts = carry
            chunk = jax.tree.map(lambda x: lax.dynamic_index_in_dim(x, i, keepdims=False), chunks)
            own = jax.random.split(jax.random.fold_in(purpose["examples"], i), size)
            grads, tallies = of_each(*variables, chunk, own)
            clipped = clipped_sum(grads, chunk.mask, settings.clip_norm)
            tally = jax.tree.map(lambda x: x.sum(0), tallies)
            return trees.add(total, clipped), metrics.merge(counts, tally)

        begin = (trees.zeros_like(variables.params), metrics.zero_tally())
        filled = -(-jnp.sum(batch.mask) // size)
        total, counts = lax.fori_loop(0, filled, add, begin)
        deviation = settings.noise_multiplier * settings.clip_norm
        noised = add_normal(total, deviation, purpose["noise"])
        return trees.scale(noised, 1 / batch_size), (counts, variables.stats)

    return gradient


def clipped_sum(gradients: PyTree, mask: Bool[Array, "B"], max_norm: float) -> PyTree:
    """The sum of gradients, each scaled down to an L2 norm of `max_norm` where it is longer.

    Args:
      gradients: leaves [B,...], an example each.
      mask: whose count; of the others nothing is read.
      max_norm: above 0.
    """
    limit = max_norm * trees.NORM_ROOM
    norms = jax.vmap(trees.norm)(gradients)
    counted = mask & jnp.isfinite(norms)
    factors = jnp.where(norms > limit, limit / norms, 1.0)

    def total(x: jax.Array) -> jax.Array:
        rows = x.reshape(len(x), -1)
        return jnp.matmul(factors, jnp.where(counted[:, None], rows, 0.0)).reshape(x.shape[1:])

    return jax.tree.map(total, gradients)


def _in_chunks(x: jax.Array, size: int) -> jax.Array:
    padding = [(0, -x.shape[0] % size), *[(0, 0)] * (x.ndim - 1)]
    return jnp.pad(x, padding).reshape(-1, size, *x.shape[1:])
