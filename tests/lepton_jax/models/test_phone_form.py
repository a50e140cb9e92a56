"""The phone's form: values and gradients are those of `lax`, whatever the window."""

import re
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax

from lepton_jax.checks import UserError
from lepton_jax.models import phone
from lepton_jax.models.conv import lax_form, matmul_conv
from tests.lepton_jax.models.windows import POOLS

_NHWC = ("NHWC", "HWIO", "NHWC")
SIZES = ((8, 9), (7, 6))


def value_and_gradients(f: Callable, *arguments: jax.Array) -> tuple:
    value, pull = jax.vjp(jax.jit(f), *arguments)
    cotangent = np.random.default_rng(7).normal(size=value.shape).astype(value.dtype)
    return value, pull(jnp.asarray(cotangent))


def assert_close(a: object, b: object, tolerance: float) -> None:
    jax.tree.map(lambda x, y: np.testing.assert_allclose(x, y, rtol=0, atol=tolerance), a, b)


def check_convolution(size: tuple, kernel: int, stride: tuple, padding: Any, dtype: Any) -> None:
    rng = np.random.default_rng(0)

    def theirs(x: jax.Array, w: jax.Array) -> jax.Array:
        return lax.conv_general_dilated(x, w, stride, padding, dimension_numbers=_NHWC)

    with jax.enable_x64(True):
        x = jnp.asarray(rng.normal(size=(2, *size, 3)), dtype)
        w = jnp.asarray(rng.normal(size=(kernel, kernel, 3, 4)), dtype)
        ours = value_and_gradients(lambda x, w: phone.conv(x, w, stride, padding), x, w)
        tolerance = 1e-12 if dtype == jnp.float64 else 1e-4
        assert_close(ours, value_and_gradients(theirs, x, w), tolerance)


@pytest.mark.parametrize("kernel", [1, 3, 5])
@pytest.mark.parametrize("stride", [(1, 1), (2, 2)])
@pytest.mark.parametrize("padding", ["SAME", "VALID"])
def test_a_convolution_has_the_gradients_of_lax(kernel: int, stride: tuple, padding: str) -> None:
    # One size even, one odd, each way round at the other stride.
    check_convolution((8, 7) if stride == (1, 1) else (7, 8), kernel, stride, padding, jnp.float64)


@pytest.mark.parametrize(
    ("kernel", "stride", "padding"),
    [
        (3, (2, 2), "SAME"),
        (2, (2, 1), "SAME"),
        (1, (3, 3), "VALID"),
        (3, (2, 2), ((1, 1), (2, 0))),  # as torch pads
    ],
)
def test_windows_of_all_sorts_have_the_gradients_of_lax(
    kernel: int, stride: tuple, padding: Any
) -> None:
    check_convolution((7, 10), kernel, stride, padding, jnp.float32)


def test_padding_beyond_the_kernel_has_the_gradients_of_patches() -> None:
    # XLA's own gradient reads memory that is not its own there.
    rng, padding = np.random.default_rng(0), ((3, 0), (0, 4))
    x, w = (jnp.asarray(rng.normal(size=s), jnp.float32) for s in ((2, 7, 6, 3), (2, 2, 3, 4)))
    ours, patches = (
        value_and_gradients(lambda x, w, f=f: f(x, w, (2, 2), padding), x, w)
        for f in (phone.conv, matmul_conv)
    )
    assert_close(ours, patches, 1e-4)


@pytest.mark.parametrize(
    ("size", "window", "stride", "padding"),
    [*POOLS, ((8, 7), 3, 2, "VALID"), ((9, 8), 5, 2, "SAME"), ((7, 8), 2, 3, "VALID")],
)
def test_max_pooling_has_the_gradient_of_lax_with_ties_to_the_first(
    size: tuple, window: int, stride: int, padding: str
) -> None:
    rng = np.random.default_rng(1)
    with jax.enable_x64(True):
        images = [rng.integers(0, levels, (1, *size, 3)) for levels in (2, 10**6)]  # ties, none
        x = jnp.asarray(np.concatenate(images), jnp.float64)
        ours, theirs = (
            value_and_gradients(lambda x, f=f: f.max_pool(x, window, stride, padding), x)
            for f in (phone.phone_form(), lax_form())
        )
        assert_close(ours, theirs, 1e-14)


@pytest.mark.parametrize("window", [2, 3])
@pytest.mark.parametrize("size", SIZES)
def test_average_pooling_has_the_gradient_of_lax(size: tuple, window: int) -> None:
    with jax.enable_x64(True):
        x = jnp.asarray(np.random.default_rng(2).normal(size=(2, *size, 3)))
        ours, theirs = (
            value_and_gradients(lambda x, f=f: f.average_pool(x, window), x)
            for f in (phone.phone_form(), lax_form())
        )
        assert_close(ours, theirs, 1e-14)


@pytest.mark.parametrize(
    "options", [{"rhs_dilation": (2, 2)}, {"lhs_dilation": (1, 2)}, {"feature_group_count": 3}]
)
def test_what_no_phone_can_train_is_refused(options: dict) -> None:
    x, w = jnp.ones((1, 8, 8, 3)), jnp.ones((3, 3, 3, 3))
    with pytest.raises(UserError, match="model: expected convolutions without dilation or groups"):
        phone.conv(x, w, (1, 1), "SAME", **options)


def test_the_gradients_are_made_of_ops_that_phones_have() -> None:
    def loss(x: jax.Array, w: jax.Array) -> jax.Array:
        y = phone.max_pool(phone.conv(x, w, (2, 2), "SAME"), 3, 2, "SAME")
        return jnp.sum(phone.average_pool(y, 2))

    x, w = jnp.ones((2, 16, 16, 3)), jnp.ones((3, 3, 3, 4))
    text = jax.jit(jax.grad(loss, (0, 1))).lower(x, w).as_text()
    assert "select_and_scatter" not in text
    assert not re.search(r"hs_dilate = \[(?!1, 1\])", text)
    assert (
        "select_and_scatter"
        in jax.jit(jax.grad(lambda x: jnp.sum(lax_form().max_pool(x, 3, 2, "SAME"))))
        .lower(x)
        .as_text()
    )
