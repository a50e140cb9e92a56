from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax

from lepton_jax.checks import UserError
from lepton_jax.models import onednn
from lepton_jax.models.conv import (
    Form,
    choose_form,
    lax_form,
    matmul_conv,
    matmul_form,
    onednn_form,
)
from tests.lepton_jax.models.windows import POOLS, WINDOWS, needs_onednn

NOTHING = UserError("model.conv", "what onednn needs", "no package")
_NHWC = ("NHWC", "HWIO", "NHWC")


def _value_and_gradients(f: Callable, *arguments: jax.Array) -> tuple:
    """f's value, and its gradients against a fixed random cotangent."""
    value, pull = jax.vjp(jax.jit(f), *arguments)
    cotangent = np.random.default_rng(7).normal(size=value.shape).astype(value.dtype)
    return value, pull(jnp.asarray(cotangent))


def _assert_close(a: object, b: object, tolerance: float) -> None:
    jax.tree.map(lambda x, y: np.testing.assert_allclose(x, y, rtol=0, atol=tolerance), a, b)


DILATED_IMAGES = {
    "window_strides": (1, 1),
    "padding": ((1, 1), (1, 2)),
    "lhs_dilation": (2, 3),
}


@pytest.mark.parametrize(("kernel", "options"), [*WINDOWS, ((3, 3), DILATED_IMAGES)])
def test_matmul_convolution_is_the_lax_convolution(kernel: tuple, options: dict) -> None:
    rng = np.random.default_rng(0)
    groups = options.get("feature_group_count", 1)
    with jax.enable_x64(True):
        x = jnp.asarray(rng.normal(size=(2, 9, 8, 4)))
        w = jnp.asarray(rng.normal(size=(*kernel, 4 // groups, 8)))

        def ours(x: jax.Array, w: jax.Array) -> jax.Array:
            return matmul_conv(x, w, **options)

        def theirs(x: jax.Array, w: jax.Array) -> jax.Array:
            return lax.conv_general_dilated(x, w, dimension_numbers=_NHWC, **options)

        _assert_close(_value_and_gradients(ours, x, w), _value_and_gradients(theirs, x, w), 1e-12)


@pytest.mark.parametrize(("size", "window", "stride", "padding"), POOLS)
def test_max_pool_is_the_lax_max_pool_with_ties_to_the_first(
    size: tuple, window: int, stride: int, padding: str
) -> None:
    rng = np.random.default_rng(1)
    pools = [
        jax.jit(lambda x, f=form: f.max_pool(x, window, stride, padding))
        for form in (matmul_form(), lax_form())
    ]
    with jax.enable_x64(True):
        for levels in (2, 1_000_000):  # many ties, hardly any
            x = jnp.asarray(rng.integers(0, levels, (2, *size, 3)), jnp.float64)
            ours, theirs = (_value_and_gradients(pool, x) for pool in pools)
            _assert_close(ours, theirs, 1e-15)


@pytest.mark.parametrize("window", [2, 3])
def test_average_pool_is_the_lax_average_pool(window: int) -> None:
    with jax.enable_x64(True):
        x = jnp.asarray(np.random.default_rng(2).normal(size=(2, 7, 6, 3)))
        ours, theirs = (
            _value_and_gradients(lambda x, f=form: f.average_pool(x, window), x)
            for form in (matmul_form(), lax_form())
        )
        _assert_close(ours, theirs, 1e-15)


@pytest.mark.parametrize("padding", ["SAME", "VALID"])
@pytest.mark.parametrize("form", [matmul_form(), pytest.param(onednn_form(), marks=needs_onednn)])
def test_cropping_to_what_the_pool_keeps_changes_nothing_after_the_pool(
    form: Form, padding: str
) -> None:
    rng = np.random.default_rng(3)
    x = jnp.asarray(rng.normal(size=(2, 11, 7, 3)), jnp.float32)
    w = jnp.asarray(rng.normal(size=(3, 3, 3, 4)), jnp.float32)

    def pooled(multiple: int) -> Callable:
        conv = form.conv(multiple)
        return lambda x, w: form.max_pool(conv(x, w, (1, 1), padding), 2, 2, "VALID")

    cropped = jax.eval_shape(lambda: form.conv(2)(x, w, (1, 1), padding))
    assert cropped.shape[1] % 2 == 0 and cropped.shape[2] % 2 == 0
    _assert_close(
        _value_and_gradients(pooled(2), x, w), _value_and_gradients(pooled(1), x, w), 1e-5
    )


def test_the_matmul_form_maps_over_kernels() -> None:
    rng = np.random.default_rng(4)
    x = jnp.asarray(rng.normal(size=(3, 2, 6, 6, 2)), jnp.float32)
    w = jnp.asarray(rng.normal(size=(3, 3, 3, 2, 4)), jnp.float32)

    def conv(x: jax.Array, w: jax.Array) -> jax.Array:
        return matmul_conv(x, w, (1, 1), "SAME")

    one_by_one = jnp.stack([conv(a, b) for a, b in zip(x, w, strict=True)])
    _assert_close(jax.vmap(conv)(x, w), one_by_one, 1e-5)


@pytest.mark.parametrize(
    ("conv", "in_loop", "residual", "with_onednn", "without"),
    [
        ("auto", True, True, "onednn", "matmul"),
        ("auto", False, True, "onednn", "lax"),
        ("auto", True, False, "onednn", "matmul"),
        ("auto", False, False, "onednn", "matmul"),
        ("lax", True, False, "lax", "lax"),
        ("matmul", False, True, "matmul", "matmul"),
    ],
)
def test_auto_takes_the_fastest_form_that_a_cpu_has(
    conv: str,
    in_loop: bool,
    residual: bool,
    with_onednn: str,
    without: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    for lacking, expected in ((None, with_onednn), (NOTHING, without)):
        monkeypatch.setattr(onednn, "missing", lambda lacking=lacking: lacking)
        assert choose_form(conv, in_loop=in_loop, residual=residual).name == expected


def test_auto_takes_lax_on_an_accelerator(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(jax, "default_backend", lambda: "gpu")
    assert choose_form("auto", in_loop=True, residual=False).name == "lax"
