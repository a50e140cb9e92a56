"""The form of training on phones: XLA's own forward passes, gradients in ops that TFLite has.

Three of JAX's gradients do not reach a phone: that of max-pooling has no TFLite op, that of a
convolution with strides becomes a transposed convolution, which some paddings turn silently wrong,
and dilated windows become ops that few phones have. Here each is written in slices, comparisons,
concatenations and ordinary convolutions, and equals JAX's.
"""

from collections.abc import Sequence
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
from jax import lax

from lepton_jax.checks import UserError
from lepton_jax.models.conv import Convolved, Features, Form, Kernel, Pooled, lax_form
from lepton_jax.models.window import Padding, Pairs, padding_pairs

_LAX = lax_form()
_NHWC = ("NHWC", "HWIO", "NHWC")
_Pair = tuple[int, int]


def phone_form() -> Form:
    """What a phone trains with; forward passes fuse as those of the `lax` form do."""
    return Form(
        "phone",
        conv=lambda multiple: conv,
        max_pool=max_pool,
        average_pool=average_pool,
        product=lax.dot_general,
    )


# --- convolution ----------------------------------------------------------------------------------


def conv(
    lhs: Features,
    rhs: Kernel,
    window_strides: Sequence[int],
    padding: str | Pairs,
    **options: Any,
) -> Convolved:
    """`lax.conv_general_dilated` of NHWC images and HWIO kernels.

    Args:
      lhs: images [B,H,W,F].
      rhs: kernel [KH,KW,F,O].
      window_strides: over height and width.
      padding: `SAME`, `VALID`, or (low, high) pairs for height and width.
      **options: `precision`; of dilations and groups only those that change nothing.

    Returns:
      [B,H',W',O].

    Raises:
      UserError: a dilation, or groups.
    """
    dilations = {*(options.get("lhs_dilation") or ()), *(options.get("rhs_dilation") or ())}
    if dilations - {1} or options.get("feature_group_count", 1) != 1:
        raise UserError(
            "model", "convolutions without dilation or groups, to train on phones", "one"
        )
    pairs = padding_pairs(padding, lhs.shape[1:3], rhs.shape[:2], window_strides)
    strides = (window_strides[0], window_strides[1])
    return _conv(strides, tuple(map(tuple, pairs)), options.get("precision"), lhs, rhs)


@partial(jax.custom_vjp, nondiff_argnums=(0, 1, 2))
def _conv(
    strides: _Pair, pairs: tuple[_Pair, ...], precision: Any, x: Features, kernel: Kernel
) -> Convolved:
    return lax.conv_general_dilated(
        x, kernel, strides, pairs, dimension_numbers=_NHWC, precision=precision
    )


def _conv_forward(
    strides: _Pair, pairs: tuple[_Pair, ...], precision: Any, x: Features, kernel: Kernel
) -> tuple[Convolved, tuple[Features, Kernel]]:
    return _conv(strides, pairs, precision, x, kernel), (x, kernel)


def _conv_backward(
    strides: _Pair,
    pairs: tuple[_Pair, ...],
    precision: Any,
    kept: tuple[Features, Kernel],
    gradient: Convolved,
) -> tuple[Features, Kernel]:
    x, kernel = kept
    by_images = _gradient_by_images(gradient, kernel, strides, pairs, x.shape[1:3], precision)
    by_kernel = _gradient_by_kernel(gradient, x, strides, pairs, kernel.shape[:2], precision)
    return by_images, by_kernel


_conv.defvjp(_conv_forward, _conv_backward)


def _gradient_by_images(
    gradient: Convolved,
    kernel: Kernel,
    strides: _Pair,
    pairs: tuple[_Pair, ...],
    size: Sequence[int],
    precision: Any,
) -> Features:
    """Zeros between the pixels, then the convolution with the kernel turned round."""
    turned = jnp.flip(kernel, (0, 1)).transpose(0, 1, 3, 2)
    spread = _interleave({(0, 0): gradient}, strides)
    margins = []
    for n, m, k, (low, _) in zip(size, spread.shape[1:3], kernel.shape[:2], pairs, strict=True):
        before = k - 1 - low
        margins.append((before, n + k - 1 - before - m))
    spread, margins = _crop(spread, margins)
    return lax.conv_general_dilated(
        spread, turned, (1, 1), margins, dimension_numbers=_NHWC, precision=precision
    )


def _gradient_by_kernel(
    gradient: Convolved,
    x: Features,
    strides: _Pair,
    pairs: tuple[_Pair, ...],
    window: Sequence[int],
    precision: Any,
) -> Kernel:
    """Of each of the kernel's pixels, what it met times what came back: one matrix product."""
    count, filters = gradient.shape[:3], gradient.shape[3]
    x = _pad(x, pairs, 0.0)
    met = [_slice(x, at, strides, count[1:]).reshape(-1, x.shape[3]) for at in _places(window)]
    rows = jnp.concatenate(met, axis=-1)
    product = jnp.matmul(rows.T, gradient.reshape(-1, filters), precision=precision)
    return product.reshape(*window, x.shape[3], filters)


# --- pooling --------------------------------------------------------------------------------------


@partial(jax.custom_vjp, nondiff_argnums=(1, 2, 3))
def max_pool(x: Features, window: int, stride: int, padding: Padding) -> Pooled:
    """Max-pooling; the gradient of a tie goes to the first element of the window, as in `lax`."""
    return _LAX.max_pool(x, window, stride, padding)


def _max_forward(
    x: Features, window: int, stride: int, padding: Padding
) -> tuple[Pooled, tuple[Features, Pooled]]:
    y = max_pool(x, window, stride, padding)
    return y, (x, y)


def _max_backward(
    window: int, stride: int, padding: Padding, kept: tuple[Features, Pooled], gradient: Pooled
) -> tuple[Features]:
    x, y = kept
    size = y.shape[1:3]
    pairs = padding_pairs(padding, x.shape[1:3], (window, window), (stride, stride))
    padded = _pad(x, pairs, -jnp.inf)
    left, places = gradient, dict[_Pair, Pooled]()
    for at in _places((window, window)):
        own = _slice(padded, at, (stride, stride), size) == y
        places[at] = jnp.where(own, left, jnp.zeros_like(left))
        left = jnp.where(own, jnp.zeros_like(left), left)  # whoever comes first takes it all
    return (_put_back(places, x.shape[1:3], stride, pairs),)


max_pool.defvjp(_max_forward, _max_backward)


@partial(jax.custom_vjp, nondiff_argnums=(1,))
def average_pool(x: Features, window: int) -> Pooled:
    """Average pooling."""
    return _LAX.average_pool(x, window)


def _average_forward(x: Features, window: int) -> tuple[Pooled, _Pair]:
    return average_pool(x, window), (x.shape[1], x.shape[2])


def _average_backward(window: int, size: _Pair, gradient: Pooled) -> tuple[Features]:
    share = gradient / window**2
    places = {at: share for at in _places((window, window))}
    return (_put_back(places, size, window, ((0, 0), (0, 0))),)


average_pool.defvjp(_average_forward, _average_backward)


# --- slices, and their way back -------------------------------------------------------------------


def _places(window: Sequence[int]) -> list[_Pair]:
    """The elements of a window, row by row."""
    return [(row, column) for row in range(window[0]) for column in range(window[1])]


def _put_back(
    places: dict[_Pair, Pooled], size: Sequence[int], stride: int, pairs: Pairs
) -> Features:
    """The sum over a window's places of what they had, laid where the images had it.

    Args:
      places: (row, column) in the window -> [B,H',W',F].
      size: (H, W) of the images.
      stride: between windows.
      pairs: what was added around the images.
    """
    reach = max(row for row, _ in places) // stride
    grid: dict[_Pair, Pooled] = {}
    for (row, column), values in places.items():
        down, right = row // stride, column // stride
        moved = _pad(values, ((down, reach - down), (right, reach - right)), 0.0)
        at = (row % stride, column % stride)
        grid[at] = grid[at] + moved if at in grid else moved
    spread = _interleave(grid, (stride, stride))
    margins = [
        (-low, n + low - m) for n, m, (low, _) in zip(size, spread.shape[1:3], pairs, strict=True)
    ]
    spread, margins = _crop(spread, margins)
    return _pad(spread, margins, 0.0)


def _interleave(grid: dict[_Pair, Pooled], strides: Sequence[int]) -> Features:
    """One image of several, by turns: pixel (s i + r, s j + c) is that of grid[r, c] at (i, j).

    Args:
      grid: of equal shape [B,H,W,F]; zeros where one is missing.
      strides: how many there are by rows and by columns.

    Returns:
      [B, H strides[0], W strides[1], F].
    """
    batch, height, width, channels = grid[0, 0].shape
    if tuple(strides) == (1, 1):
        return grid[0, 0]
    zeros = jnp.zeros_like(grid[0, 0])
    rows = []
    for row in range(strides[0]):
        own = [grid.get((row, column), zeros) for column in range(strides[1])]
        rows.append(jnp.concatenate(own, axis=-1).reshape(batch, height, -1))
    return jnp.concatenate(rows, axis=-1).reshape(
        batch, height * strides[0], width * strides[1], channels
    )


def _slice(x: Features, at: _Pair, strides: Sequence[int], size: Sequence[int]) -> Pooled:
    """Every stride-th pixel from `at` on, so many of them."""
    (top, left), (down, right), (height, width) = at, strides, size
    return lax.slice(
        x,
        (0, top, left, 0),
        (x.shape[0], top + down * (height - 1) + 1, left + right * (width - 1) + 1, x.shape[3]),
        (1, down, right, 1),
    )


def _crop(x: Features, margins: Sequence[_Pair]) -> tuple[Pooled, list[_Pair]]:
    """Carries out the margins that are negative; those that are left are not."""
    (top, bottom), (left, right) = margins
    cropped = x[
        :,
        max(-top, 0) : x.shape[1] - max(-bottom, 0),
        max(-left, 0) : x.shape[2] - max(-right, 0),
    ]
    return cropped, [(max(top, 0), max(bottom, 0)), (max(left, 0), max(right, 0))]


def _pad(x: Features, pairs: Pairs, value: float) -> Pooled:
    if not any(map(any, pairs)):
        return x
    return lax.pad(
        x, jnp.asarray(value, x.dtype), [(0, 0, 0), *((*pair, 0) for pair in pairs), (0, 0, 0)]
    )
