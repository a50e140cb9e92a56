from typing import Any

import jax.numpy as jnp
import numpy as np
import pytest
from ai_edge_litert.interpreter import Interpreter

from lepton_jax.export import ops
from lepton_jax.export.affine import fold_affine
from lepton_jax.export.convert import Entry, convert
from tests.lepton_jax.export.test_convert import spec

IMAGES = np.random.default_rng(0).random((1, 4, 5, 3), np.float32)
VECTOR = np.array([1.5, -2, 0.25], np.float32)[None, None, None]


def made(function: Any) -> bytes:
    return convert([Entry("f", lambda x: {"y": function(x)}, {"x": spec(1, 4, 5, 3)})], "litert")


def check(model: bytes, function: Any) -> None:
    found = Interpreter(model_content=model).get_signature_runner("f")(x=IMAGES)["y"]
    np.testing.assert_allclose(found, function(jnp.asarray(IMAGES)), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize(
    "function",
    [
        lambda x: x * VECTOR + 2 * VECTOR,
        lambda x: (x - VECTOR) * VECTOR,
        lambda x: (x * jnp.float32(255) - VECTOR) * VECTOR,
        lambda x: jnp.maximum(x * VECTOR + VECTOR, 0),
        lambda x: jnp.tanh((VECTOR + VECTOR * jnp.tanh(x)) * VECTOR),
    ],
)
def test_scales_and_shifts_become_one_convolution(function: Any) -> None:
    folded = fold_affine(made(function))
    check(folded, function)
    found = ops(folded)
    found.pop("TANH", None)
    assert found == {"DEPTHWISE_CONV_2D": 1}


@pytest.mark.parametrize(
    "function",
    [
        lambda x: x * VECTOR,  # alone
        lambda x: x * x + VECTOR,  # of no constant
        lambda x: (
            x * np.arange(5, dtype=np.float32)[None, None, :, None] + VECTOR
        ),  # not by channel
        lambda x: VECTOR - x * VECTOR,  # a constant less something
        lambda x: jnp.maximum(x * VECTOR, 0) + VECTOR,  # an activation between
    ],
)
def test_others_stay_as_they_are(function: Any) -> None:
    model = made(function)
    assert ops(fold_affine(model)) == ops(model)
    check(fold_affine(model), function)


def test_what_is_used_twice_stays() -> None:
    def function(x: Any) -> Any:
        half = x * VECTOR
        return jnp.tanh(half) * (half + VECTOR)

    model = made(function)
    assert ops(fold_affine(model)) == ops(model)
    check(fold_affine(model), function)
