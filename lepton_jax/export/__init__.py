"""A run as TFLite models for phones, float32 and int8, each checked against JAX before it is kept."""

from lepton_jax.export.convert import convert
from lepton_jax.export.flatbuffer import ops
from lepton_jax.export.phone import open_model
from lepton_jax.export.run import export
from lepton_jax.export.verify import Agreement, verify

__all__ = ["Agreement", "convert", "export", "open_model", "ops", "verify"]
