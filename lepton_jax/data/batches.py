"""Batches of examples, all of one shape, in host memory; what doesn't fill the last one is padding."""

from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

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


class PoissonBatches(NamedTuple):
    """Random batches: every example is in each of them with the same probability, independently.

    Attributes:
      rate: that probability, which an accountant wants to know.
      capacity: the most examples that a batch of the run has.
      epoch: number -> its batches, as many as `steps_per_epoch` says, each of `capacity` rows and
        its examples first; what they hold depends on (seed, epoch) alone.
    """

    rate: float
    capacity: int
    epoch: Callable[[int], Iterator[Batch]]


def poisson_batches(
    examples: Examples, batch_size: int, *, seed: int, epochs: int
) -> PoissonBatches:
    """Batches of `batch_size` examples on average.

    Args:
      examples: what to draw from; at least one.
      batch_size: expected; more than there are examples means all of them.
      seed: the run's seed.
      epochs: how many epochs will be asked for.
    """
    count = len(examples.labels)
    steps, rate = steps_per_epoch(count, batch_size), min(1.0, batch_size / count)

    def sizes(epoch: int) -> np.ndarray:
        return np.random.default_rng([seed, epoch]).binomial(count, rate, steps)

    capacity = max(1, *(int(sizes(number).max()) for number in range(1, epochs + 1)))

    def epoch(number: int) -> Iterator[Batch]:
        for step, size in enumerate(sizes(number)):
            rng = np.random.default_rng([seed, number, step])
            index = rng.choice(count, size, replace=False)
            yield _padded(examples.images[index], examples.labels[index], capacity)

    return PoissonBatches(rate, capacity, epoch)


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
