"""JAX functions to one TFLite model with a signature each, by either of two converters."""

from lepton_jax.export.convert.choice import CONVERTERS, choose, convert
from lepton_jax.export.convert.entry import Converter, Entry
from lepton_jax.export.convert.jax2tf import convert_module

__all__ = ["CONVERTERS", "Converter", "Entry", "choose", "convert", "convert_module"]
