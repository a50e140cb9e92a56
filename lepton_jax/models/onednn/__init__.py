"""oneDNN's convolutions and a max-pooling inside XLA's programs: about twice as fast as XLA's own."""

from lepton_jax.models.onednn.convolution import convolve, covers
from lepton_jax.models.onednn.library import missing
from lepton_jax.models.onednn.pooling import max_pool

__all__ = ["convolve", "covers", "max_pool", "missing"]
