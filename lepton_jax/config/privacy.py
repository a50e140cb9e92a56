"""Differential privacy of examples, and the words that it shares with that of clients."""

from typing import Annotated, Literal

from msgspec import Meta, Struct

from lepton_jax.config.kinds import STRICT, Count, Positive

Accountant = Literal["pld", "rdp"]
Adjacency = Literal["add-remove", "replace-one"]
Randomness = Literal["secure", "reproducible"]


class Privacy(Struct, **STRICT):
    """Differential privacy of each training example, by DP-SGD (Abadi et al., 2016)."""

    noise_multiplier: Positive | None = None
    """Deviation of the normal noise on the gradients' sum, over clip_norm; unset: what epsilon needs."""
    epsilon: Positive | None = None
    """The budget: training stops before an epoch that would spend more."""
    delta: Annotated[float, Meta(gt=0, lt=1)] = 1e-5
    clip_norm: Positive = 1.0
    """Scales each example's gradient down to this L2 norm where it is longer."""
    microbatch: Count = 16
    """How many examples' gradients are in memory at a time."""
    accountant: Accountant = "pld"
    adjacency: Adjacency = "add-remove"
    """What two neighbours differ by: an example more or less, or another one in its place."""
    randomness: Randomness = "secure"
    """`secure`: noise and batches from the system's entropy; `reproducible`: from the run's seed."""

    def __post_init__(self) -> None:
        if self.noise_multiplier is None and self.epsilon is None:
            raise ValueError("expected noise_multiplier, epsilon or both, got neither")


class ClientPrivacy(Privacy, **STRICT):
    """The same on a client, for all of whose steps one rate holds: what it has is not told."""

    sampling_rate: Annotated[float, Meta(gt=0, le=1)] = 0.1
    """Chance of each example in each local step; `batch_size` is what sums are divided by."""
