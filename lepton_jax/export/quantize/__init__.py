"""Float32 phone models in fewer bits: one quantizer for the files of both converters."""

from lepton_jax.export.quantize.variants import quantize

__all__ = ["quantize"]
