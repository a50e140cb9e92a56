"""Small CNNs that a phone trains: each with JAX' own step beside it."""

from collections.abc import Callable, Iterator
from typing import Any, NamedTuple, cast

import jax
import numpy as np
from jax.flatten_util import ravel_pytree

from lepton_jax import config, models
from lepton_jax.data.augment import augmenter
from lepton_jax.export.device import Device, open_device
from lepton_jax.export.extras import litert, quiet
from lepton_jax.export.learning import SIGNATURES, Learner, training_model
from lepton_jax.training.losses import make_loss
from lepton_jax.training.optimizers import make_optimizer
from lepton_jax.training.step import TrainState, init_state, make_step
from lepton_jax.typing import Batch, Classifier, Variables

SHAPE, CLASSES, BATCH, MOMENTUM, RATE = (11, 12, 2), 3, 6, 0.9, 0.01
_PIXELS: dict[str, Any] = {"mean": (0.5, 0.4), "std": (0.3, 0.2)}


class Net(NamedTuple):
    """A model of JAX, and its training file."""

    model: Classifier
    variables: Variables
    loss: config.Loss
    content: bytes


def blocks(**second: Any) -> tuple[config.ConvBlock, ...]:
    """Two convolutions: the second one's gradients by images and by kernel both count."""
    return (
        config.ConvBlock(filters=4),
        config.ConvBlock(**{"filters": 8, "pool": 2, **second}),
    )


def make_net(
    layout: tuple[config.ConvBlock, ...],
    loss: config.Loss = config.CrossEntropy(),  # noqa: B008 # frozen
    *,
    momentum: float = MOMENTUM,
    signatures: tuple[str, ...] = SIGNATURES,
    interface: config.Interface = config.Interface(),  # noqa: B008 # frozen
    **changes: Any,
) -> Net:
    """A CNN of these blocks, as JAX' `lax` form and as a training file."""
    settings = config.Model(name="cnn", conv="lax", blocks=layout, **changes)
    model = models.build(settings, SHAPE, CLASSES, **_PIXELS)
    variables = model.init(jax.random.key(0))
    logits = models.learner(settings, SHAPE, CLASSES, **_PIXELS)
    learner = Learner(logits, jax.device_get(variables.params), SHAPE, loss)
    on_phone = config.TrainOnPhone(batch_size=BATCH, momentum=momentum)
    content = training_model(learner, on_phone, signatures, interface)
    return Net(model, variables, loss, content)


def batches(count: int, seed: int = 0) -> Iterator[Any]:
    """Batches on the host: random images and labels, no padding."""
    rng, batch = np.random.default_rng(seed), cast(Any, Batch)
    for _ in range(count):
        images = rng.integers(256, size=(BATCH, *SHAPE)).astype(np.uint8)
        labels = rng.integers(CLASSES, size=BATCH).astype(np.int32)
        yield batch(images, labels, np.ones(BATCH, bool))


def jax_step(net: Net, momentum: float = MOMENTUM) -> tuple[Callable, TrainState]:
    """The step of central training, and the state before it."""
    tx = make_optimizer(config.Sgd(learning_rate=RATE, momentum=momentum))
    step = make_step(net.model, tx, make_loss(net.loss), augment=augmenter(()))
    return jax.jit(step), init_state(net.variables, tx)


def differences(net: Net, steps: int) -> list[float]:
    """After each step the largest difference of a weight between the phone and JAX."""
    step, state = jax_step(net)
    device, found = open_device(net.content), []
    for batch in batches(steps):
        state, _ = step(state, batch, jax.random.key(0))
        learn(device, batch)
        flat = np.asarray(ravel_pytree(state.params)[0])
        found.append(float(np.abs(device.get_weights() - flat).max()))
    return found


def learn(device: Device, batch: Any) -> None:
    """One step on the phone."""
    device.train(batch.images, batch.labels, batch.mask.astype(np.float32), RATE)


def interpreter(content: bytes) -> Any:
    """The bare interpreter of a file."""
    with quiet():
        return litert().Interpreter(model_content=content, num_threads=1)
