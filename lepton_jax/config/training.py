"""Optimizers, schedules, losses, and training in one place."""

from msgspec import Struct

from lepton_jax.config.kinds import STRICT, Count, Fraction, NonNegative, Positive
from lepton_jax.config.privacy import Privacy


class Sgd(Struct, tag_field="kind", tag="sgd", **STRICT):
    """Stochastic gradient descent; `weight_decay` leaves out norms and biases."""

    learning_rate: Positive = 0.1
    momentum: Fraction = 0.0
    nesterov: bool = False
    weight_decay: NonNegative = 0.0

    def __post_init__(self) -> None:
        if self.nesterov and self.momentum == 0:
            raise ValueError("nesterov needs a momentum above 0; set momentum = 0.9")


class Adam(Struct, tag_field="kind", tag="adam", **STRICT):
    """Adam (Kingma and Ba, 2015) with decoupled weight decay (Loshchilov and Hutter, 2019)."""

    learning_rate: Positive = 1e-3
    b1: Fraction = 0.9
    b2: Fraction = 0.999
    eps: Positive = 1e-8
    weight_decay: NonNegative = 0.0


class Yogi(Struct, tag_field="kind", tag="yogi", **STRICT):
    """Yogi (Zaheer et al., 2018), as a server optimizer after Reddi et al. (2021)."""

    learning_rate: Positive = 1e-2
    b1: Fraction = 0.9
    b2: Fraction = 0.999
    eps: Positive = 1e-3


Optimizer = Sgd | Adam | Yogi


class Constant(Struct, tag_field="kind", tag="constant", **STRICT):
    """The optimizer's learning rate, unchanged."""


class Cosine(Struct, tag_field="kind", tag="cosine", **STRICT):
    """Half a cosine down to `final` times the learning rate (Loshchilov and Hutter, 2017)."""

    final: Fraction = 0.0


class Step(Struct, tag_field="kind", tag="step", **STRICT):
    """Multiplies the learning rate by `factor` at each of these epochs."""

    epochs: tuple[Count, ...]
    factor: Positive = 0.1


Schedule = Constant | Cosine | Step


class CrossEntropy(Struct, tag_field="kind", tag="cross_entropy", **STRICT):
    """Softmax cross-entropy in nats."""

    label_smoothing: Fraction = 0.0


class MeanSquaredError(Struct, tag_field="kind", tag="mean_squared_error", **STRICT):
    """Mean over the classes of (softmax - one-hot) squared."""


Loss = CrossEntropy | MeanSquaredError


class Train(Struct, **STRICT):
    """Centralized training: `lepton train`."""

    epochs: Count = 10
    batch_size: Count = 64
    optimizer: Optimizer = Sgd(learning_rate=0.1, momentum=0.9, nesterov=True)
    schedule: Schedule = Constant()
    warmup_epochs: NonNegative = 0.0
    clip_norm: Positive | None = None
    """Scales a gradient down to this L2 norm where it is longer."""
    ema: Fraction | None = None
    """Decay per step of the exponential moving average of the parameters, which is then evaluated."""
    patience: Count | None = None
    """Stop after this many epochs without a better validation loss."""
    privacy: Privacy | None = None
    """Makes batches random, each example in each with equal probability: `batch_size` is expected."""

    def __post_init__(self) -> None:
        if self.privacy is not None and self.clip_norm is not None:
            raise ValueError("`privacy` clips each example's gradient; remove clip_norm")
        if self.warmup_epochs >= self.epochs:
            raise ValueError(
                f"expected warmup_epochs < epochs ({self.epochs}), got {self.warmup_epochs}"
            )
