"""Gradients in the phone's form convert rightly, by either converter."""

import importlib.util

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from lepton_jax.export.convert import Entry, convert
from lepton_jax.export.flatbuffer import ops
from lepton_jax.models.conv import Form, lax_form
from lepton_jax.models.phone import phone_form
from tests.lepton_jax.export import learning_nets

SHAPES = {"x": (2, 13, 12, 3), "kernel": (3, 3, 3, 4)}
CONVERTERS = [
    "jax2tf",
    pytest.param(
        "litert",
        marks=pytest.mark.skipif(
            importlib.util.find_spec("litert_converter") is None, reason="needs litert-converter"
        ),
    ),
]


def gradients(form: Form, x: jax.Array, kernel: jax.Array) -> dict[str, jax.Array]:
    """Through all that a form has, at strides and paddings that are hard to convert."""
    as_torch = ((1, 1), (1, 1))
    names = {"dimension_numbers": ("NHWC", "HWIO", "NHWC")}

    def loss(x: jax.Array, kernel: jax.Array) -> jax.Array:
        y = form.max_pool(form.conv(1)(x, kernel, (2, 2), as_torch, **names), 3, 2, "SAME")
        z = form.average_pool(form.max_pool(y, 2, 1, "VALID"), 2)
        return jnp.sum(jnp.sin(z))

    by_x, by_kernel = jax.grad(loss, (0, 1))(x, kernel)
    return {"by_x": by_x, "by_kernel": by_kernel}


@pytest.mark.parametrize("converter", CONVERTERS)
def test_gradients_on_the_phone_are_those_of_jax(converter: str) -> None:
    rng = np.random.default_rng(0)
    given = {
        name: rng.integers(-3, 4, shape).astype(np.float32) / 4  # with ties
        for name, shape in SHAPES.items()
    }
    inputs = {name: jax.ShapeDtypeStruct(shape, jnp.float32) for name, shape in SHAPES.items()}

    def on_phone(x: jax.Array, kernel: jax.Array) -> dict[str, jax.Array]:
        return gradients(phone_form(), x, kernel)

    content = convert([Entry("gradients", on_phone, inputs)], converter)
    assert not {op for op in ops(content) if op in ("TRANSPOSE_CONV", "CUSTOM", "DILATE")}
    runner = learning_nets.interpreter(content).get_signature_runner("gradients")
    expected = gradients(lax_form(), *(jnp.asarray(each) for each in given.values()))
    for name, found in runner(**given).items():
        np.testing.assert_allclose(found, expected[name], rtol=0, atol=1e-5)
        assert np.abs(found).max() > 0.1
