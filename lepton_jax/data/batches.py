"""Batches of examples, all of one shape, in host memory; what doesn't fill the last one is padding."""

from collections.abc import Iterator
from typing import Any

import numpy as np

from lepton_jax.data.splits import Examples
from lepton_jax.typing import Batch


def steps_per_epoch(n_examples: int, batch_size: int) -> int:
    """How many batches an epoch has, the padded last one included.

    >>> steps_per_epoch(101, 10)
    11
    """
    return -(-n_examples // batch_size)


def epoch_batches(examples: Examples, batch_size: int, *, seed: int, epoch: int) -> Iterator[Batch]:
    """Goes once over all examples, in an order that depends on (seed, epoch) alone.

    Args:
      examples: what to go over; none give no batch.
      batch_size: B.
      seed: the run's seed.
      epoch: the epoch's number.

    Yields:
      Batches of B rows as numpy arrays: images uint8 [B,H,W,F], labels int32 [B], mask bool [B].
    """
    order = np.random.default_rng([seed, epoch]).permutation(len(examples.labels))
    for start in range(0, len(order), batch_size):
        index = order[start : start + batch_size]
        yield _padded(examples.images[index], examples.labels[index], batch_size)


def in_order(examples: Examples, batch_size: int) -> Iterator[Batch]:
    """Goes once over all examples as they stand, for evaluation; batches as in `epoch_batches`."""
    for start in range(0, len(examples.labels), batch_size):
        rows = slice(start, start + batch_size)
        yield _padded(examples.images[rows], examples.labels[rows], batch_size)


def _padded(images: Any, labels: Any, batch_size: int) -> Batch:
    """A batch of the rows given, then rows of zeros that the mask leaves out."""
    missing = batch_size - len(labels)
    mask: Any = np.arange(batch_size) < len(labels)
    if missing:
        images = np.pad(images, ((0, missing), (0, 0), (0, 0), (0, 0)))
        labels = np.pad(labels, (0, missing))
    return Batch(images, labels, mask)
