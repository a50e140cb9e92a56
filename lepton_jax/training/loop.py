"""The loop over batches: a generator, so that whoever iterates decides what happens in between."""

from collections.abc import Iterable, Iterator
from typing import TypeVar

import jax

from lepton_jax.metrics import Tally
from lepton_jax.training.step import Step, TrainState
from lepton_jax.typing import PRNGKey

AnyBatch = TypeVar("AnyBatch")


def fit(
    step: Step, state: TrainState, batches: Iterable[AnyBatch], key: PRNGKey
) -> Iterator[tuple[int, TrainState, Tally]]:
    """Steps through batches.

    Args:
      step: from `make_step`, jitted with `donate_argnums=0`.
      state: where to begin; donated, so not to be used again.
      batches: of one shape, in host memory.
      key: the run's key.

    Yields:
      (steps done in all, state, the batch's tally), as soon as the step is dispatched: nothing here
      waits for the device. A state is donated to the next step: use it before asking for more.
    """
    done = int(state.step)
    for batch in on_device(batches):
        state, tally = step(state, batch, key)
        done += 1
        yield done, state, tally


def on_device(batches: Iterable[AnyBatch]) -> Iterator[AnyBatch]:
    """Draws each batch, and sends it ahead, while the one before it is at work."""
    waiting: AnyBatch | None = None
    for batch in batches:
        sent = jax.device_put(batch)
        if waiting is not None:
            yield waiting
        waiting = sent
    if waiting is not None:
        yield waiting
