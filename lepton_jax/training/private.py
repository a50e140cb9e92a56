"""DP-SGD: each example's gradient is clipped, and noise is added to their sum (Abadi et al., 2016)."""

import math
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Bool

from lepton_jax import metrics, trees
from lepton_jax.checks import UserError
from lepton_jax.config import Privacy, Run
from lepton_jax.data.batches import sampling_rate
from lepton_jax.metrics import Tally
from lepton_jax.models.presets import resolve
from lepton_jax.privacy.accounting import accountant_version
from lepton_jax.privacy.grid import FINE, Grid, make_grid, off_grid, sure_limit
from lepton_jax.privacy.lattice import MOST_DEVIATION
from lepton_jax.privacy.noise import add_normal
from lepton_jax.privacy.terms import Terms
from lepton_jax.training.losses import Loss
from lepton_jax.training.step import Augment, Gradient
from lepton_jax.typing import Batch, Classifier, PRNGKey, PyTree, Variables, keys

_TRUST = (
    "whoever runs the training sees the examples and is trusted with them; "
    "whoever gets a model of it need not be"
)


class PrivateBatch(NamedTuple):
    """A Poisson batch with the noise that its step adds, which is drawn outside the program.

    Attributes:
      examples: the batch.
      noise: like the parameters, int32, in steps of the grid.
    """

    examples: Batch
    noise: PyTree


def check_private(run: Run, setting: str) -> None:
    """Refuses what would release something of the data without noise.

    Args:
      run: the configuration.
      setting: what asks for privacy: `train.privacy`.

    Raises:
      UserError: BatchNorm, or normalization by the training pixels.
    """
    if resolve(run.model).norm == "batch":
        raise UserError(
            "model.norm",
            f"'group' or 'none' with {setting}, as BatchNorm statistics would leak",
            "'batch'",
            "set model.norm=group",
        )
    if run.data.normalization == "standard":
        raise UserError(
            "data.normalization",
            f"one that tells nothing of the training pixels, with {setting}",
            "standard",
            "set data.normalization=unit",
        )


def private_settings(run: Run) -> Privacy:
    """`train.privacy` of a run that has it.

    Raises:
      UserError: it has not.
    """
    if run.train.privacy is None:
        raise UserError("train.privacy", "a table", "none", "set train.privacy.epsilon")
    return run.train.privacy


def private_terms(run: Run, examples: int) -> Terms:
    """What a private run promises.

    The noise is `noise_multiplier` times the clip norm whatever `adjacency` is: another example in
    one's place moves the sum by two clip norms, and it is the accountant that reckons with it.

    Args:
      run: with `train.privacy`.
      examples: how many there are to train on; their number is taken to be public.

    Raises:
      UserError: no noise reaches the epsilon, the accountant can't do the adjacency, or the extra
        `privacy` isn't installed.
    """
    settings, size = private_settings(run), run.train.batch_size
    return Terms(
        unit="example",
        adjacency=settings.adjacency,
        mechanism="gaussian",
        noise_multiplier=settings.noise_multiplier or 1.0,
        clip_norm=settings.clip_norm,
        sampler="poisson",
        sampling_rate=sampling_rate(examples, size),
        delta=settings.delta,
        budget=settings.epsilon,
        accountant=settings.accountant,
        accountant_version=accountant_version(),
        randomness=settings.randomness,
        trust=_TRUST,
        covers=("the model after every step", "the model's figures on other examples"),
        not_private=("train", "validation", "test"),
    )


def private_grid(settings: Privacy, *, capacity: int, size: int) -> Grid:
    """The grid of a batch's gradients, so fine that rounding takes at most 1/64 of the bound.

    Args:
      settings: with its noise_multiplier.
      capacity: the most examples of a batch: their sum is taken in int32, that of a microbatch in
        float32, which is exact below 2^24.
      size: how many parameters the model has.

    Raises:
      UserError: the noise is too much or too little for a grid.
    """
    shares = max(capacity, 2**7 * settings.microbatch)
    noise, fine = settings.noise_multiplier or 0.0, FINE
    grid = make_grid(settings.clip_norm, noise, shares, fine=fine)
    while math.sqrt(size) / 2 > grid.bound / 64 and fine < MOST_DEVIATION:
        fine *= 2
        grid = make_grid(settings.clip_norm, noise, shares, fine=fine)
    sure_limit(grid, size)  # refuses now what the step would
    return grid


def private_gradient(
    model: Classifier,
    loss: Loss,
    settings: Privacy,
    *,
    augment: Augment,
    batch_size: int,
    grid: Grid | None = None,
) -> Gradient:
    """The noised mean of the clipped gradients of a Poisson batch's examples.

    *Guarantee.* Each example adds to the sum a vector of an L2 norm of at most `clip_norm`, which
    depends on no other example; the noise has the deviation `noise_multiplier * clip_norm`; and
    what is divided by is fixed beforehand. Where each example is in the batch independently with
    the same probability, the gradient is what `accounting` takes for one Gaussian event. The tally
    is not private.

    With a grid the sum is one of whole numbers, exactly, and so is its noise: the event is then a
    Gaussian one to the last bit, as far as `lattice` and the bits that it was given say. Without,
    sum and noise are those of floats, and whoever knows the key knows the noise.

    | edge                                   | result                                      |
    |----------------------------------------|---------------------------------------------|
    | an empty batch                         | noise alone                                 |
    | an example whose gradient is not       | it adds nothing                             |
    | finite, or so long that its squared    |                                             |
    | norm overflows                         |                                             |
    | a gradient of zero                     | it adds nothing                             |
    | a loss that isn't finite               | told as 0: the run doesn't stop for it      |

    Args:
      model: without BatchNorm.
      loss: (logits, labels) -> each example's loss [B].
      settings: bounds and noise; its noise_multiplier is set.
      augment: (images uint8 [B,H,W,F], key) -> pixels on 0..255; works on each image by itself.
      batch_size: expected.
      grid: from `private_grid`: batches are `PrivateBatch`es, whose noise was drawn for this grid.
        None: they are `Batch`es, and noise is drawn from the step's key.

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
        # Told as 0: a run that stopped for one example's loss would tell of that example.
        told = jnp.where(jnp.isfinite(losses), losses, 0.0)
        return losses[0], metrics.tally(told, logits, alone.labels, alone.mask)

    of_each = jax.vmap(jax.grad(of_one, has_aux=True), in_axes=(None, None, 0, 0))

    def summed(variables: Variables, batch: Batch, key: PRNGKey) -> tuple[PyTree, Tally]:
        chunks = jax.tree.map(lambda x: _in_chunks(x, size), batch)

        def add(i: Array, carry: tuple[PyTree, Tally]) -> tuple[PyTree, Tally]:
            total, counts = carry
            chunk = jax.tree.map(lambda x: lax.dynamic_index_in_dim(x, i, keepdims=False), chunks)
            own = jax.random.split(jax.random.fold_in(key, i), size)
            grads, tallies = of_each(*variables, chunk, own)
            clipped = (
                clipped_sum(grads, chunk.mask, settings.clip_norm)
                if grid is None
                else clipped_steps(grads, chunk.mask, grid)
            )
            tally = jax.tree.map(lambda x: x.sum(0), tallies)
            return trees.add(total, clipped), metrics.merge(counts, tally)

        dtype = jnp.float32 if grid is None else jnp.int32
        begin = jax.tree.map(lambda x: jnp.zeros(x.shape, dtype), variables.params)
        filled = -(-jnp.sum(batch.mask) // size)
        return lax.fori_loop(0, filled, add, (begin, metrics.zero_tally()))

    def of_floats(
        variables: Variables, batch: Batch, key: PRNGKey
    ) -> tuple[PyTree, tuple[Tally, PyTree]]:
        purpose = keys(key, "examples", "noise")
        total, counts = summed(variables, batch, purpose["examples"])
        deviation = (settings.noise_multiplier or 0.0) * settings.clip_norm
        noised = add_normal(total, deviation, purpose["noise"])
        return trees.scale(noised, 1 / batch_size), (counts, variables.stats)

    if grid is None:
        return of_floats

    def of_steps(
        variables: Variables, batch: PrivateBatch, key: PRNGKey
    ) -> tuple[PyTree, tuple[Tally, PyTree]]:
        total, counts = summed(variables, batch.examples, keys(key, "examples")["examples"])
        noised = off_grid(trees.add(total, batch.noise), grid)
        return trees.scale(noised, 1 / batch_size), (counts, variables.stats)

    return of_steps


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


def clipped_steps(gradients: PyTree, mask: Bool[Array, "B"], grid: Grid) -> PyTree:
    """The sum of gradients on a grid, each scaled down before where its norm would pass the bound.

    *Guarantee.* What an example adds is a vector of whole numbers with an L2 norm of at most
    `grid.bound`, and the sum is exact.

    Args:
      gradients: leaves [B,...] of float32, an example each; B times the bound is at most 2^24.
      mask: whose count; of the others nothing is read.
      grid: from `private_grid`.

    Returns:
      Whole numbers of steps, int32.
    """
    limit = sure_limit(grid, trees.size(gradients) // len(mask))
    norms = jax.vmap(trees.norm)(gradients)
    counted = mask & jnp.isfinite(norms)
    factors = jnp.where(norms > limit * grid.unit, limit / norms, 1 / grid.unit)

    def total(x: jax.Array) -> jax.Array:
        rows = jnp.where(counted[:, None], x.reshape(len(x), -1), 0.0)
        steps = jnp.round(rows * factors[:, None])
        summed = jnp.matmul(jnp.ones_like(norms), steps, precision="highest")
        return summed.astype(jnp.int32).reshape(x.shape[1:])

    return jax.tree.map(total, gradients)


def _in_chunks(x: jax.Array, size: int) -> jax.Array:
    padding = [(0, -x.shape[0] % size), *[(0, 0)] * (x.ndim - 1)]
    return jnp.pad(x, padding).reshape(-1, size, *x.shape[1:])
