"""Image data sets in: uint8 images and int32 labels out, divided, batched and augmented."""

from lepton_jax.data.augment import augmenter
from lepton_jax.data.batches import epoch_batches, in_order, steps_per_epoch
from lepton_jax.data.load import load
from lepton_jax.data.prepare import available, prepare
from lepton_jax.data.splits import DatasetInfo, Examples, Splits, describe

__all__ = [
    "DatasetInfo",
    "Examples",
    "Splits",
    "augmenter",
    "available",
    "describe",
    "epoch_batches",
    "in_order",
    "load",
    "prepare",
    "steps_per_epoch",
]
