"""Models of any signature, for tests, and presets with random weights."""

import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from lepton_jax.config import Interface
from lepton_jax.export.convert import Entry, convert
from lepton_jax.export.interface import phone_model
from lepton_jax.export.quantize import quantize
from tests.lepton_jax.export.conftest import CLASSES, SHAPE, Net


def made(
    function: Callable[[jax.Array], dict[str, jax.Array]],
    shape: tuple[int, ...],
    dtype: str,
    converter: str = "jax2tf",
) -> bytes:
    """A model with the signature `classify` from `image` to what the function gives by name."""
    inputs = {"image": jax.ShapeDtypeStruct(shape, jnp.dtype(dtype))}
    return convert([Entry("classify", lambda image: function(image), inputs)], converter)


def variant(net: Net, name: str) -> bytes:
    """A variant of the tiny net, as an export makes it."""
    floats = phone_model(net.apply, SHAPE, CLASSES, Interface(), "jax2tf")
    return quantize(floats, name, interface=Interface(), calibration=net.images)


@functools.cache
def classifier(name: str) -> tuple[Any, Callable[[Any], jax.Array], tuple[int, int, int]]:
    """A preset with random weights: its config, its function to logits, its image shape."""
    from lepton_jax import config, models

    shape = (28, 28, 1) if name == "keras_cnn" else (32, 32, 3)
    model = config.Model(name=name, norm="none" if name == "keras_cnn" else "batch")
    mean, std = [0.5] * shape[-1], [0.25] * shape[-1]
    built = models.build(model, shape, 10, mean=mean, std=std)
    variables = jax.tree.map(np.asarray, built.init(jax.random.key(0)))
    return model, functools.partial(built.apply, variables), shape
