"""oneDNN's convolutions inside XLA's programs: about twice as fast as XLA's own on a CPU."""

from lepton_jax.models.onednn.library import missing
from lepton_jax.models.onednn.primitives import convolve, covers

__all__ = ["convolve", "covers", "missing"]
