"""DP-SGD on the clients: each local step takes a random batch, and its noise, before anything leaves."""

from collections.abc import Callable, Sequence
from typing import NamedTuple

import jax
import msgspec
import numpy as np

from federated.privacy.promise import local_steps
from federated.sampling import Cohort, gather, slots_of
from federated.shards import Client
from lepton_jax import config, trees
from lepton_jax.checks import UserError
from lepton_jax.data.batches import poisson_capacity
from lepton_jax.data.splits import Examples
from lepton_jax.privacy.entropy import Source, bernoulli
from lepton_jax.privacy.grid import noise_like
from lepton_jax.privacy.lattice import rounded_normal
from lepton_jax.training.losses import Loss
from lepton_jax.training.private import PrivateBatch, private_gradient, private_grid
from lepton_jax.training.step import Augment, Gradient
from lepton_jax.typing import Classifier


class ExamplePrivacy(NamedTuple):
    """What makes local training private.

    Attributes:
      gradient: that each local step follows.
      lay: (the chosen clients' numbers, source, slots) -> their cohort, batches and noise drawn.
    """

    gradient: Gradient
    lay: Callable[[np.ndarray, Source, int], Cohort]


def example_privacy(
    federated: config.Federated,
    noise_multiplier: float,
    model: Classifier,
    loss: Loss,
    augment: Augment,
    held: tuple[Sequence[Client], Examples],
) -> ExamplePrivacy:
    """Private local training, of `local_steps` steps whatever a client holds.

    *Guarantee.* In each local step each of the client's examples is in the batch independently with
    the same probability, adds a vector of at most the clip norm to its sum, and the sum is noised
    and divided by what was fixed beforehand: `private_gradient`. Neither the number of steps nor any
    divisor tells how many examples a client has. One participation is `local_steps` Gaussian events.

    | edge                                  | result                                          |
    |---------------------------------------|-------------------------------------------------|
    | an empty local batch                  | a step along noise alone                        |
    | a client drawn in every round         | each of its rounds is charged                   |
    | a batch above the capacity, by chance | UserError, once in 2^40 runs                    |

    Args:
      federated: with `example_privacy`.
      noise_multiplier: of each local step.
      model: without BatchNorm.
      loss: (logits, labels) -> each example's loss [B].
      augment: as of `private_gradient`.
      held: the clients, and the examples that their indices point into.

    Raises:
      UserError: the batch size is "all", or the noise doesn't fit a grid.
    """
    privacy, size = federated.example_privacy, federated.batch_size
    if privacy is None or size == "all":
        raise UserError("federated.batch_size", "a number with example_privacy", repr(size))
    (clients, examples), rate = held, privacy.sampling_rate
    settings = msgspec.structs.replace(privacy, noise_multiplier=noise_multiplier)
    steps = local_steps(federated.local_epochs, rate)
    taken, largest = (
        federated.rounds * federated.clients * steps,
        max(len(c.train) for c in clients),
    )
    capacity = poisson_capacity(largest, rate, batches=taken)
    shapes = jax.eval_shape(model.init, jax.random.key(0)).params
    grid = private_grid(settings, capacity=capacity, size=trees.size(shapes))
    sampler = rounded_normal(grid.deviation)
    gradient = private_gradient(model, loss, settings, augment=augment, batch_size=size, grid=grid)

    def lay(ids: np.ndarray, source: Source, slots: int) -> Cohort:
        index = np.full((slots, steps, capacity), -1, np.int64)
        for slot, client in enumerate(ids):
            for step in range(steps):
                own = clients[client].train
                drawn = own[bernoulli(source, rate, len(own))]
                if len(drawn) > capacity:
                    expected = f"at most {capacity} examples in a local batch"
                    raise UserError("federated.example_privacy", expected, len(drawn), "resume")
                index[slot, step, : len(drawn)] = drawn
        each = jax.tree.map(
            lambda x: jax.ShapeDtypeStruct((slots, steps, *x.shape), x.dtype), shapes
        )
        return Cohort(
            ids=slots_of(ids.tolist(), slots, -1, np.int32),
            batches=PrivateBatch(gather(examples, index), noise_like(each, sampler, source)),
            weight=slots_of([1] * len(ids), slots, 0, np.float32),
            steps=slots_of([steps] * len(ids), slots, 0, np.int32),
        )

    return ExamplePrivacy(gradient, lay)
