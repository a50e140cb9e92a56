"""oneDNN's convolutions equal XLA's, derived, mapped, looped and sharded; or say what they lack."""

import logging
import re
from collections.abc import Callable
from importlib import metadata
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax
from jax.sharding import Mesh, PartitionSpec

from lepton_jax.checks import UserError
from lepton_jax.models import conv as conv_forms
from lepton_jax.models import onednn
from lepton_jax.models.conv import choose_form, lax_form, matmul_form, onednn_form
from lepton_jax.models.onednn import library
from lepton_jax.models.window import Padding
from tests.lepton_jax.models.windows import POOLS, WINDOWS, needs_onednn


def normal(seed: int, *shape: int) -> jax.Array:
    return jnp.asarray(0.3 * np.random.default_rng(seed).normal(size=shape), jnp.float32)


def arrays(kernel: tuple, options: dict) -> tuple[jax.Array, jax.Array]:
    groups = options.get("feature_group_count", 1)
    return normal(0, 5, 9, 8, 4), normal(1, *kernel, 4 // groups, 8)


def conv(form: Callable, options: dict) -> Callable:
    function = form().conv(1)
    layout = ("NHWC", "HWIO", "NHWC")
    return lambda x, w: function(x, w, **options, dimension_numbers=layout)


def assert_close(a: object, b: object) -> None:
    jax.tree.map(lambda x, y: np.testing.assert_allclose(x, y, rtol=1e-5, atol=1e-5), a, b)


def derivatives(f: Callable, x: jax.Array, w: jax.Array) -> tuple:
    """Value, first derivatives in both modes, second ones forward and reverse over reverse."""
    along = (normal(2, *x.shape), normal(3, *w.shape))
    gradient = jax.grad(lambda x, w: (f(x, w) ** 3).mean(), argnums=(0, 1))

    def slope(x: jax.Array, w: jax.Array) -> jax.Array:
        pairs = zip(gradient(x, w), along, strict=True)
        return jnp.stack([jnp.sum(a * b) for a, b in pairs]).sum()

    return (
        jax.jvp(f, (x, w), along),
        gradient(x, w),
        jax.jvp(gradient, (x, w), along),
        jax.grad(slope, argnums=(0, 1))(x, w),
    )


@needs_onednn
@pytest.mark.parametrize(("kernel", "options"), WINDOWS)
def test_values_and_first_and_second_derivatives_are_those_of_lax(
    kernel: tuple, options: dict
) -> None:
    def derived(form: Callable) -> tuple:
        f = conv(form, options)
        return jax.jit(lambda x, w: derivatives(f, x, w))(*arrays(kernel, options))

    assert_close(derived(onednn_form), derived(lax_form))


@needs_onednn
@pytest.mark.parametrize("axes", [(0, 0), (0, None), (None, 0), (1, 3)])
@pytest.mark.parametrize(("kernel", "options"), [WINDOWS[1], WINDOWS[-1]])
def test_it_maps_over_images_kernels_and_both(kernel: tuple, options: dict, axes: tuple) -> None:
    inputs = [
        x if axis is None else jnp.stack([x, 2 * x, x + 1], axis)
        for x, axis in zip(arrays(kernel, options), axes, strict=True)
    ]

    def mapped(form: Callable) -> Callable:
        f = conv(form, options)
        loss = jax.value_and_grad(lambda x, w: (f(x, w) ** 2).mean(), argnums=(0, 1))
        return jax.jit(jax.vmap(loss, in_axes=axes))

    assert_close(mapped(onednn_form)(*inputs), mapped(lax_form)(*inputs))


@needs_onednn
def test_nested_maps_are_loops() -> None:
    x, w = normal(0, 2, 3, 4, 6, 6, 2), normal(1, 2, 3, 3, 3, 2, 4)
    f = conv(onednn_form, WINDOWS[0][1])
    nested = jax.jit(jax.vmap(jax.vmap(f)))(x, w)
    for i in range(2):
        for j in range(3):
            assert_close(nested[i, j], f(x[i, j], w[i, j]))


def chain(f: Callable, images: jax.Array, kernel: jax.Array) -> jax.Array:
    """Descends along the gradient of each element of images [N,B,H,W,F], one after another."""
    gradient = jax.grad(lambda w, x: (f(x, w) ** 2).mean())

    def step(w: jax.Array, x: jax.Array) -> tuple[jax.Array, None]:
        return w - 0.1 * gradient(w, x), None

    return lax.scan(step, kernel, images)[0]


@needs_onednn
def test_inside_a_scan_and_sharded_over_devices() -> None:
    images, kernel = normal(0, 8, 16, 12, 12, 4), normal(1, 3, 3, 4, 4)
    options = WINDOWS[0][1]
    expected = jax.jit(lambda x, w: chain(conv(lax_form, options), x, w))(images, kernel)
    ours = conv(onednn_form, options)
    assert_close(jax.jit(lambda x, w: chain(ours, x, w))(images, kernel), expected)

    devices = jax.device_count()
    assert devices > 1
    sharded = jax.jit(
        jax.shard_map(
            lambda x, w: chain(ours, x, w)[None],
            mesh=Mesh(np.array(jax.devices()), ("d",)),
            in_specs=(PartitionSpec("d"), PartitionSpec()),
            out_specs=PartitionSpec("d"),
            check_vma=False,
        )
    )(images, kernel)
    for i, part in enumerate(jnp.split(images, devices)):
        assert_close(sharded[i], chain(conv(lax_form, options), part, kernel))


@needs_onednn
# Two levels make many ties, a million hardly any.
@pytest.mark.parametrize(("channels", "levels"), [(3, 2), (35, 2), (35, 1_000_000)])
@pytest.mark.parametrize(("size", "window", "stride", "padding"), POOLS)
def test_max_pool_and_its_derivatives_are_those_of_comparing_slices(
    size: tuple, window: int, stride: int, padding: Padding, channels: int, levels: int
) -> None:
    x = np.random.default_rng(0).integers(0, levels, (2, *size, channels)) / levels
    scale = normal(1, 1, 1, 1, channels) + 1.0

    def derived(form: Callable) -> tuple:
        def f(x: jax.Array, scale: jax.Array) -> jax.Array:
            return scale * form().max_pool(scale * x, window, stride, padding)

        return jax.jit(lambda *arrays: derivatives(f, *arrays))(jnp.float32(x), scale)

    assert_close(derived(onednn_form), derived(matmul_form))


@needs_onednn
def test_max_pool_maps_over_any_axis_and_keeps_what_is_not_a_number() -> None:
    def pool(x: jax.Array) -> jax.Array:
        return onednn_form().max_pool(x, 2, 2, "VALID")

    x = normal(0, 2, 4, 3, 6, 5).at[0, 1, 0, 2, 3].set(jnp.nan)
    mapped = jax.jit(jax.vmap(jax.vmap(pool, in_axes=-1), in_axes=1))(x[..., None])
    for i in range(4):
        np.testing.assert_array_equal(mapped[i, 0], pool(x[:, i]))
    assert jnp.isnan(pool(x[:, 1])).sum() == 1


@needs_onednn
def test_equal_calls_give_equal_bits() -> None:
    images, kernel = normal(0, 32, 32, 32, 16), normal(1, 3, 3, 16, 16)
    f = conv(onednn_form, WINDOWS[0][1])
    gradient = jax.jit(jax.grad(lambda x, w: (f(x, w) ** 2).mean(), argnums=(0, 1)))
    first = gradient(images, kernel)
    for _ in range(10):
        again = gradient(images, kernel)
        assert all((a == b).all() for a, b in zip(first, again, strict=True))


@needs_onednn
@pytest.mark.parametrize(
    ("dtype", "images", "options"),
    [
        (jnp.bfloat16, 2, {}),
        (jnp.float32, 2, {"lhs_dilation": (2, 2)}),
        (jnp.float32, 0, {}),
    ],
)
def test_what_onednn_does_not_have_is_computed_by_patches(
    dtype: type, images: int, options: dict
) -> None:
    x, w = normal(0, images, 6, 6, 2).astype(dtype), normal(1, 3, 3, 2, 4).astype(dtype)
    options = {"window_strides": (1, 1), "padding": "SAME", **options}
    ours, theirs = (conv(form, options)(x, w) for form in (onednn_form, matmul_form))
    np.testing.assert_array_equal(ours, theirs)


# --- where it is not to be had --------------------------------------------------------------------


@pytest.fixture
def afresh(monkeypatch: pytest.MonkeyPatch, fresh_cache: Path) -> None:
    """An empty cache, and no memory of what is missing."""
    monkeypatch.setattr(onednn, "missing", library.missing.__wrapped__)
    monkeypatch.setattr(library, "_register", lambda path: None)  # once a process is enough
    conv_forms._note_once.cache_clear()


def without_packages(monkeypatch: pytest.MonkeyPatch) -> None:
    def files(package: str) -> None:
        raise metadata.PackageNotFoundError(package)

    monkeypatch.setattr(metadata, "files", files)


def without_compiler(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(library.shutil, "which", lambda name: None)


def on_a_phone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(library.platform, "machine", lambda: "aarch64")


@pytest.mark.parametrize(
    ("take_away", "got"),
    [
        (without_packages, "no package onednn-cpu-gomp; pip install"),
        (on_a_phone, "on aarch64"),
        pytest.param(without_compiler, r"no C\+\+ compiler; install", marks=needs_onednn),
    ],
)
def test_where_it_is_not_to_be_had_onednn_is_refused_and_auto_goes_without(
    take_away: Callable,
    got: str,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    afresh: None,
) -> None:
    take_away(monkeypatch)
    with pytest.raises(UserError, match=got) as error:
        choose_form("onednn", in_loop=True, residual=True)
    assert str(error.value).startswith("model.conv: expected what onednn needs, got ")
    with caplog.at_level(logging.WARNING):
        form = choose_form("auto", in_loop=False, residual=True)
        choose_form("auto", in_loop=True, residual=True)
    assert form.name == "lax"
    (record,) = caplog.records
    assert re.search(got, record.message)


@needs_onednn
def test_it_is_compiled_once_and_a_damaged_library_is_told(
    afresh: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    built = library._build()
    monkeypatch.setattr(library, "_compile", None)  # not called again
    assert library._build() == built
    built.write_bytes(built.read_bytes()[:-1])
    with pytest.raises(UserError, match=r"damaged file in .*; remove that folder"):
        library._build()


@needs_onednn
def test_a_source_that_does_not_compile_leaves_nothing(
    afresh: None, fresh_cache: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    wrong = tmp_path / "wrong.cc"
    wrong.write_text("nothing;")
    monkeypatch.setattr(library, "_SOURCES", [wrong])
    with pytest.raises(UserError, match=r"a compiler that fails: .*error: .nothing. does not"):
        library._build()
    assert list((fresh_cache / "native").iterdir()) == []
