"""oneDNN's convolutions as JAX primitives: three bilinear maps, closed under differentiation.

An output, the images' gradient and the kernel's gradient are each linear in two arrays, and the
transposes of each are the other two. So both modes of differentiation work, to any order.
"""

from collections.abc import Sequence
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.extend.core import Primitive
from jax.interpreters import ad, batching

from lepton_jax.models.onednn.calls import lead, make_primitive, threads
from lepton_jax.models.window import Pairs, dilated, padding_pairs


class Window(NamedTuple):
    """How a kernel goes over the images, and over how many threads the work is spread."""

    strides: tuple[int, ...]
    dilation: tuple[int, ...]
    padding: tuple[int, int, int, int]  # top, bottom, left, right
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
    *,
    multiple: int = 1,
    **options: Any,
) -> jax.Array:
    """`lax.conv_general_dilated` of NHWC images and HWIO kernels in float32.

    Inside `shard_map` it needs `check_vma=False`: it tells nothing of what varies over devices.

    Args:
      lhs: images [B,H,W,F].
      rhs: kernel [KH,KW,F/groups,O].
      window_strides: over height and width.
      padding: `SAME`, `VALID`, or (low, high) pairs for height and width.
      multiple: crops the output's height and width to a multiple of this.
      **options: `rhs_dilation` and `feature_group_count` of `lax.conv_general_dilated`.

    Returns:
      [B,H',W',O].
    """
    dilation = options.get("rhs_dilation") or (1, 1)
    image, kernel = lhs.shape[1:3], dilated(rhs.shape[:2], dilation)
    pairs = padding_pairs(padding, image, kernel, window_strides)
    axes = list(zip(image, pairs, kernel, window_strides, strict=True))
    size = [((n + sum(pair) - k) // s + 1) // multiple * multiple for n, pair, k, s in axes]
    # How far beyond the image's end the last window reaches; what no window reaches is cut off.
    ends = [(m - 1) * s + k - pair[0] - n for m, (n, pair, k, s) in zip(size, axes, strict=True)]
    lhs = lhs[:, : image[0] + min(ends[0], 0), : image[1] + min(ends[1], 0)]
    (top, _), (left, _) = pairs
    window = Window(
        tuple(window_strides),
        tuple(dilation),
        (top, max(ends[0], 0), left, max(ends[1], 0)),
        options.get("feature_group_count", 1),
        threads(),
    )
    out = (lhs.shape[0], *size, rhs.shape[3])
    return _forward.bind(lhs, rhs, out=out, window=window)


# --- the three maps -------------------------------------------------------------------------------
# Each has the last four axes of its result in `out`; leading axes, which vmap brings, are shared.


def _result(a: Any, b: Any, *, out: tuple[int, ...], window: Window) -> jax.ShapeDtypeStruct:
    return jax.ShapeDtypeStruct(a.shape[:-4] + out, a.dtype)


def _attributes(*, out: tuple[int, ...], window: Window) -> dict[str, Any]:
    return {
        "strides": np.array(window.strides),
        "dilation": np.array(window.dilation),
        "padding": np.array(window.padding),
        "groups": np.int64(window.groups),
        "threads": np.int64(window.threads),
    }


_forward = make_primitive("forward", _result, _attributes)  # images, kernel -> output
_images = make_primitive("backward_images", _result, _attributes)  # output, kernel -> images
_kernel = make_primitive("backward_kernel", _result, _attributes)  # images, output -> kernel


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
    (a, b), (i, j) = arrays, axes
    if primitive is not _kernel and j is None and a.ndim == 5:
        a, size = jnp.moveaxis(a, i, 0), a.shape[i]
        merged = primitive.bind(
            a.reshape(-1, *a.shape[2:]), b, out=(size * out[0], *out[1:]), window=window
        )
        return merged.reshape(size, *out), 0
    return primitive.bind(*lead(arrays, axes), out=out, window=window), 0


for _each in (_forward, _images, _kernel):
    batching.primitive_batchers[_each] = partial(_batch, _each)
