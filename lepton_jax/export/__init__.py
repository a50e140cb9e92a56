"""A run as TFLite models for phones: converted, quantized, checked against JAX, described and signed."""

from lepton_jax.export.flatbuffer import ops
from lepton_jax.export.inspection import inspect
from lepton_jax.export.manifest import verify as verify_files
from lepton_jax.export.phone import open_model
from lepton_jax.export.run import export
from lepton_jax.export.verify import Agreement, verify

__all__ = ["Agreement", "export", "inspect", "open_model", "ops", "verify", "verify_files"]
