"""Batches of examples, all of one shape, in host memory; what doesn't fill the last one is padding."""

from bisect import bisect_left
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import numpy as np
from scipy.special import bdtrc

from lepton_jax.checks import UserError
from lepton_jax.data.splits import Examples
from lepton_jax.typing import Batch

_LARGER = 2.0**-40  # how likely a run is to have a batch above its capacity


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


# (epoch from 1, step from 0) -> the rows of the examples that are in the batch
Choose = Callable[[int, int], np.ndarray]


class PoissonBatches(NamedTuple):
    """Random batches: every example is in each of them with the same probability, independently.

    Attributes:
      rate: that probability, which an accountant wants to know.
      capacity: the rows of each batch: a batch of the run has more examples than these with a
        probability below 2^-40, and then it raises, as leaving some out would not be Poisson sampling.
      epoch: number -> its batches, as many as `steps_per_epoch` says, each of `capacity` rows and
        its examples first.
    """

    rate: float
    capacity: int
    epoch: Callable[[int], Iterator[Batch]]


def sampling_rate(n_examples: int, batch_size: int) -> float:
    """The probability of each example to be in a batch of `batch_size` on average, at most 1.

    >>> sampling_rate(1000, 10)
    0.01
    """
    return min(1.0, batch_size / n_examples)


def seeded_choice(n_examples: int, batch_size: int, *, seed: int) -> Choose:
    """What is in each batch of `poisson_batches`, as (seed, epoch, step) alone have it.

    Whoever knows the seed knows the batches: for privacy they have to come from the system's
    entropy instead.

    Args:
      n_examples: how many there are to choose from.
      batch_size: expected.
      seed: the run's seed.
    """
    steps, rate = steps_per_epoch(n_examples, batch_size), sampling_rate(n_examples, batch_size)

    def choose(epoch: int, step: int) -> np.ndarray:
        size = np.random.default_rng([seed, epoch]).binomial(n_examples, rate, steps)[step]
        return np.random.default_rng([seed, epoch, step]).choice(n_examples, size, replace=False)

    return choose


def poisson_batches(
    examples: Examples, batch_size: int, *, choose: Choose, epochs: int
) -> PoissonBatches:
    """Batches of `batch_size` examples on average.

    Args:
      examples: what to draw from; at least one.
      batch_size: expected; more than there are examples means all of them.
      choose: each example with the probability `sampling_rate`, independently.
      epochs: how many epochs will be asked for.

    Raises:
      UserError: of `epoch`'s batches: one is larger than the capacity.
    """
    count = len(examples.labels)
    steps, rate = steps_per_epoch(count, batch_size), sampling_rate(count, batch_size)
    capacity = poisson_capacity(count, rate, batches=steps * epochs)

    def epoch(number: int) -> Iterator[Batch]:
        for step in range(steps):
            index = choose(number, step)
            if len(index) > capacity:
                raise UserError(
                    "train.batch_size",
                    f"at most {capacity} examples in a random batch of {batch_size} on average",
                    len(index),
                    f"resume: by chance it happens once in 2^40 runs of {epochs} epochs",
                )
            yield _padded(examples.images[index], examples.labels[index], capacity)

    return PoissonBatches(rate, capacity, epoch)


def poisson_capacity(n_examples: int, rate: float, *, batches: int) -> int:
    """The rows that all of so many random batches fit in, but with a probability of 2^-40.

    Args:
      n_examples: how many there are to choose from, at least 1.
      rate: the probability of each to be in a batch.
      batches: how many are drawn.

    >>> poisson_capacity(1000, 0.01, batches=100)
    42
    """
    rare = _LARGER / batches
    fits = bisect_left(range(n_examples), True, key=lambda k: bdtrc(k, n_examples, rate) <= rare)
    return max(1, fits)


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
