"""Vectors in place of gradients and updates: a probe answers with the row that its image names.

An auditor who sees everything may choose even the gradients (Nasr et al., 2021).
"""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float32, Int32

from federated.client import LocalUpdate, Update
from federated.sampling import Cohort
from lepton_jax import metrics
from lepton_jax.typing import Batch, Classifier, Mask, Pixels, PRNGKey, PyTree, Variables

LEAVES = 4
Table = Float32[Array, "M D"]
Rows = Int32[Array, "U"]


def tree(vector: Float32[Array, "D"]) -> PyTree:
    """A vector as `LEAVES` leaves of one shape."""
    return {f"{i:02}": leaf for i, leaf in enumerate(vector.reshape(LEAVES, -1))}


def flat(parts: PyTree) -> Float32[Array, "D"]:
    """The inverse of `tree`."""
    return jnp.concatenate(jax.tree.leaves(parts))


def zeros(numbers: int) -> Variables:
    """Where a probe begins."""
    return Variables(tree(jnp.zeros(numbers, jnp.float32)), {})


def model(table: Table) -> Classifier:
    """A model whose first logit has as its gradient the table's row that the image names."""

    def apply(variables: Variables, pixels: Pixels) -> jax.Array:
        logit = table[_decoded(pixels)] @ flat(variables.params)
        return jnp.stack([logit, jnp.zeros_like(logit)], axis=-1)

    def learn(
        variables: Variables, pixels: Pixels, mask: Mask, key: PRNGKey
    ) -> tuple[jax.Array, PyTree]:
        return apply(variables, pixels), {}

    return Classifier(lambda key: zeros(table.shape[1]), apply, learn)


def first_logit(logits: jax.Array, labels: jax.Array) -> jax.Array:
    """The loss that goes with `model`."""
    return logits[:, 0]


def client(table: Table) -> LocalUpdate:
    """A client whose update is the table's row that its first image names."""

    def update(
        variables: Variables, batches: Batch, steps: jax.Array, round: jax.Array, key: PRNGKey
    ) -> Update:
        row = table[_decoded(batches.images[0])[0]]
        return Update(tree(row), {}, metrics.zero_tally())

    return update


def batch(rows: Rows) -> Batch:
    """Examples that name these rows; -1 is padding."""
    return Batch(_coded(rows), jnp.zeros(rows.shape, jnp.int32), rows >= 0)


def cohort(rows: Rows) -> Cohort:
    """Clients of one example each that name these rows; -1 is an empty slot."""
    one = batch(rows)
    present = one.mask.astype(jnp.float32)
    batches = Batch(*(x[:, None, None] for x in one))
    return Cohort(rows, batches, present, one.mask.astype(jnp.int32))


def _coded(rows: Rows) -> jax.Array:
    """A row's number as an image [1,2,1] of two bytes."""
    known = jnp.maximum(rows, 0)
    return jnp.stack([known // 256, known % 256], axis=-1).astype(jnp.uint8)[:, None, :, None]


def _decoded(images: jax.Array) -> Rows:
    codes = images.reshape(images.shape[0], 2).astype(jnp.int32)
    return 256 * codes[:, 0] + codes[:, 1]
