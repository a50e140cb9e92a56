"""oneDNN's convolutions as JAX primitives: three bilinear maps, closed under differentiation.

An output, the images' gradient and the kernel's gradient are each linear in two arrays, and the
transposes of each are the other two. So both modes of differentiation work, to any order.
"""

from collections.abc import Sequence
from functools import partial
from itertools import chain
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.extend.core import Primitive
from jax.interpreters import ad, batching, mlir

from lepton_jax.cores import cores
from lepton_jax.models.window import Pairs, dilated, padding_pairs


class Window(NamedTuple):
    """How a kernel goes over the images, and over how many threads the work is spread."""

    strides: tuple[int, ...]
    dilation: tuple[int, ...]
    padding: tuple[int, ...]  # top, bottom, left, right
    groups: int
    threads: int


def covers(lhs: jax.Array, rhs: jax.Array, **options: Any) -> bool:
    """Whether oneDNN has this convolution; the arguments are those of `convolve`."""
    dilation = options.get("lhs_dilation") or (1, 1)
    return (
        lhs.dtype == rhs.dtype == jnp.float32
        and lhs.ndim == rhs.ndim == 4
        and 0 not in lhs.shape + rhs.shape
        and tuple(dilation) == (1, 1)
        and options.get("batch_group_count", 1) == 1
    )


def convolve(
    lhs: jax.Array,
    rhs: jax.Array,
    window_strides: Sequence[int],
    padding: str | Pairs,
    **options: Any,
) -> jax.Array:
    """`lax.conv_general_dilated` of NHWC images and HWIO kernels in float32.

    Inside `shard_map` it needs `check_vma=False`: it tells nothing of what varies over devices.

    Args:
      lhs: images [B,H,W,F].
      rhs: kernel [KH,KW,F/groups,O].
      window_strides: over height and width.
      padding: `SAME`, `VALID`, or (low, high) pairs for height and width.
      **options: `rhs_dilation` and `feature_group_count` of `lax.conv_general_dilated`.

    Returns:
      [B,H',W',O].
    """
    dilation = options.get("rhs_dilation") or (1, 1)
    image, kernel = lhs.shape[1:3], dilated(rhs.shape[:2], dilation)
    pairs = padding_pairs(padding, image, kernel, window_strides)
    sizes = zip(image, pairs, kernel, window_strides, strict=True)
    height, width = ((n + sum(pair) - k) // stride + 1 for n, pair, k, stride in sizes)
    window = Window(
        tuple(window_strides),
        tuple(dilation),
        tuple(chain.from_iterable(pairs)),
        options.get("feature_group_count", 1),
        _threads(),
    )
    out = (lhs.shape[0], height, width, rhs.shape[3])
    return _forward.bind(lhs, rhs, out=out, window=window)


# --- the three maps -------------------------------------------------------------------------------
# Each has the last four axes of its result in `out`; leading axes, which vmap brings, are shared.


def _primitive(name: str) -> Primitive:
    primitive = Primitive(f"onednn_{name}")

    def call(a: jax.Array, b: jax.Array, *, out: tuple[int, ...], window: Window) -> jax.Array:
        result = jax.ShapeDtypeStruct(a.shape[:-4] + out, a.dtype)
        return jax.ffi.ffi_call(f"lepton_{name}", result)(
            a,
            b,
            strides=np.array(window.strides),
            dilation=np.array(window.dilation),
            padding=np.array(window.padding),
            groups=np.int64(window.groups),
            threads=np.int64(window.threads),
        )

    def shape(a: Any, b: Any, *, out: tuple[int, ...], window: Window) -> Any:
        return a.update(shape=a.shape[:-4] + out)

    def run(a: jax.Array, b: jax.Array, **static: Any) -> jax.Array:
        return jax.jit(partial(primitive.bind, **static))(a, b)

    primitive.def_impl(run)
    primitive.def_abstract_eval(shape)
    mlir.register_lowering(primitive, mlir.lower_fun(call, multiple_results=False), platform="cpu")
    return primitive


def _threads() -> int:
    """How many parts a convolution is cut into: the cores, shared by devices that compute at once."""
    mesh = jax.sharding.get_abstract_mesh()
    busy = 1 if mesh.empty else min(mesh.size, jax.local_device_count("cpu"))
    return max(1, cores() // busy)


_forward = _primitive("forward")  # images, kernel -> output
_images = _primitive("backward_images")  # output, kernel -> images
_kernel = _primitive("backward_kernel")  # images, output -> kernel


def _tail(x: Any) -> tuple[int, ...]:
    """Of what a transpose is taken by: of that, only the shape is known."""
    return x.aval.shape[-4:]


ad.defbilinear(
    _forward,
    lambda y, x, w, *, out, window: _images.bind(y, w, out=_tail(x), window=window),
    lambda y, x, w, *, out, window: _kernel.bind(x, y, out=_tail(w), window=window),
)
ad.defbilinear(
    _images,
    lambda x, y, w, *, out, window: _forward.bind(x, w, out=_tail(y), window=window),
    lambda x, y, w, *, out, window: _kernel.bind(x, y, out=_tail(w), window=window),
)
ad.defbilinear(
    _kernel,
    lambda w, x, y, *, out, window: _images.bind(y, w, out=_tail(x), window=window),
    lambda w, x, y, *, out, window: _forward.bind(x, w, out=_tail(y), window=window),
)


# --- vmap -----------------------------------------------------------------------------------------


def _batch(
    primitive: Primitive, arrays: Any, axes: Any, *, out: tuple[int, ...], window: Window
) -> tuple[jax.Array, int]:
    """One kernel for all: more images. Else a leading axis for both."""
    size = next(x.shape[i] for x, i in zip(arrays, axes, strict=True) if i is not None)
    (a, b), (i, j) = arrays, axes
    if primitive is not _kernel and j is None and a.ndim == 5:
        a = jnp.moveaxis(a, i, 0)
        merged = primitive.bind(
            a.reshape(-1, *a.shape[2:]), b, out=(size * out[0], *out[1:]), window=window
        )
        return merged.reshape(size, *out), 0
    return primitive.bind(_led(a, i, size), _led(b, j, size), out=out, window=window), 0


def _led(x: jax.Array, axis: int | None, size: int) -> jax.Array:
    return jnp.broadcast_to(x, (size, *x.shape)) if axis is None else jnp.moveaxis(x, axis, 0)


for _each in (_forward, _images, _kernel):
    batching.primitive_batchers[_each] = partial(_batch, _each)
