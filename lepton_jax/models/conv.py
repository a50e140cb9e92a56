"""Three forms of what layers compute, with equal results: XLA's own, patches, oneDNN's.

XLA compiles a convolution inside a loop (`scan`, `while`) for one CPU thread and on slow paths, and
the gradient of its max-pooling is slow everywhere on a CPU. There the `matmul` form, patches in one
matrix product, trains about twenty times faster, and `onednn` up to twice as fast again. What is
evaluated and exported is always the `lax` form.
"""

import itertools
import logging
from collections.abc import Callable, Sequence
from functools import cache, partial, reduce
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from flax import linen as nn
from jax import lax
from jaxtyping import Array, Float

from lepton_jax.models import onednn
from lepton_jax.models.dense import product
from lepton_jax.models.window import Padding, Pairs, dilated, padding_pairs

Features = Float[Array, "B H W F"]
Pooled = Float[Array, "B H2 W2 F"]
Convolved = Float[Array, "B H2 W2 O"]
Kernel = Float[Array, "KH KW FG O"]  # FG: input channels a group


class Form(NamedTuple):
    """How convolutions, poolings and dense layers are computed.

    Attributes:
      name: what `model.conv` calls it.
      conv: multiple -> a function with the signature of `lax.conv_general_dilated` that may crop
        its output's height and width to a multiple of `multiple`, because nobody reads the rest.
      max_pool: (x [B,H,W,F], window, stride, padding) -> [B,H',W',F]; the gradient of a tie goes
        to the first element of the window.
      average_pool: (x [B,H,W,F], window) -> [B,H//window,W//window,F].
      product: a dense layer's, with the signature of `lax.dot_general`.
    """

    name: str
    conv: Callable[[int], Callable[..., Array]]
    max_pool: Callable[[Features, int, int, Padding], Pooled]
    average_pool: Callable[[Features, int], Pooled]
    product: Callable[..., Array]


def lax_form() -> Form:
    """XLA's own convolutions and poolings: accelerators, inference, export."""
    return Form(
        "lax",
        conv=lambda multiple: lax.conv_general_dilated,
        max_pool=lambda x, window, stride, padding: nn.max_pool(
            x, (window, window), (stride, stride), padding
        ),
        average_pool=lambda x, window: (
            nn.pool(x, 0.0, lax.add, (window, window), (window, window), "VALID") / window**2
        ),
        product=lax.dot_general,
    )


def matmul_form() -> Form:
    """Patches from shifted slices, then one matrix product: for training on a CPU."""
    return Form(
        "matmul",
        conv=lambda multiple: partial(matmul_conv, multiple=multiple),
        max_pool=max_pool,
        average_pool=average_pool,
        product=product,
    )


def onednn_form() -> Form:
    """oneDNN's convolutions and a max-pooling, called by XLA: for training on x86-64 Linux.

    What they do not have (bfloat16, dilated images) is computed by patches.
    """

    def conv(lhs: Features, rhs: Kernel, *window: Any, **options: Any) -> Convolved:
        covered = onednn.covers(lhs, rhs, **options)
        return (onednn.convolve if covered else matmul_conv)(lhs, rhs, *window, **options)

    def pool(x: Features, window: int, stride: int, padding: Padding) -> Pooled:
        covered = x.dtype == jnp.float32 and window <= 16
        return (onednn.max_pool if covered else max_pool)(x, window, stride, padding)

    return matmul_form()._replace(
        name="onednn", conv=lambda multiple: partial(conv, multiple=multiple), max_pool=pool
    )


def choose_form(conv: str, *, in_loop: bool, residual: bool) -> Form:
    """The form for `model.conv`; `auto` takes what was measured to be the fastest here.

    Args:
      conv: `auto`, `lax`, `matmul` or `onednn`.
      in_loop: whether the training step is compiled into a loop.
      residual: whether the model is a ResNet, whose many channels suit XLA's own convolution.

    Raises:
      UserError: `onednn` where it is not to be had.
    """
    if conv == "auto":
        conv = _fastest(in_loop=in_loop, residual=residual)
    if conv == "onednn" and (lacking := onednn.missing()) is not None:
        raise lacking
    forms = {"lax": lax_form, "matmul": matmul_form, "onednn": onednn_form}
    return forms[conv]()


def _fastest(*, in_loop: bool, residual: bool) -> str:
    if jax.default_backend() != "cpu":
        return "lax"
    lacking = onednn.missing()
    if lacking is None:
        return "onednn"
    _note_once(f"training could be up to twice as fast here: {lacking}")
    return "matmul" if in_loop or not residual else "lax"


@cache
def _note_once(line: str) -> None:
    logging.getLogger(__name__).warning(line)


def matmul_conv(
    lhs: Features,
    rhs: Kernel,
    window_strides: Sequence[int],
    padding: str | Pairs,
    *,
    multiple: int = 1,
    **options: Any,
) -> Convolved:
    """`lax.conv_general_dilated` of NHWC images and HWIO kernels, as one matrix product.

    Args:
      lhs: images [B,H,W,F].
      rhs: kernel [KH,KW,F/groups,O].
      window_strides: over height and width.
      padding: `SAME`, `VALID`, or (low, high) pairs for height and width.
      multiple: crops the output's height and width to a multiple of this.
      **options: `lhs_dilation`, `rhs_dilation`, `feature_group_count` and `precision` of
        `lax.conv_general_dilated`; `dimension_numbers` is taken to be NHWC, HWIO, NHWC.

    Returns:
      [B,H',W',O].
    """
    lhs_dilation = options.get("lhs_dilation") or (1, 1)
    rhs_dilation = options.get("rhs_dilation") or (1, 1)
    image, kernel = dilated(lhs.shape[1:3], lhs_dilation), dilated(rhs.shape[:2], rhs_dilation)
    padding = padding_pairs(padding, image, kernel, window_strides)
    lhs = _pad(lhs, padding, 0.0, lhs_dilation)
    sizes = zip(lhs.shape[1:3], kernel, window_strides, strict=True)
    size = [((n - k) // s + 1) // multiple * multiple for n, k, s in sizes]
    rows, columns = (range(0, k, d) for k, d in zip(kernel, rhs_dilation, strict=True))
    patches = [_shifted(lhs, at, window_strides, size) for at in itertools.product(rows, columns)]
    out = _product(patches, rhs, options.get("feature_group_count", 1), options.get("precision"))
    return out.reshape(lhs.shape[0], *size, rhs.shape[-1])


def max_pool(x: Features, window: int, stride: int, padding: Padding) -> Pooled:
    """Max-pooling as a chain of comparisons over shifted slices.

    `where(a >= b, a, b)`, not `maximum`: the gradient of a tie goes to the first element, as in
    `lax`; a mask of all that equal the maximum is wrong by far on images with blank borders.
    """
    return reduce(lambda a, b: jnp.where(a >= b, a, b), _windows(x, window, stride, padding))


def average_pool(x: Features, window: int) -> Pooled:
    """Average pooling as a sum of shifted slices."""
    return reduce(jnp.add, _windows(x, window, window, "VALID")) / window**2


def _windows(x: Features, window: int, stride: int, padding: Padding) -> list[Pooled]:
    """The elements of each window, in row-major order: window^2 arrays [B,H',W',F]."""
    pairs = padding_pairs(padding, x.shape[1:3], (window, window), (stride, stride))
    x = _pad(x, pairs, -jnp.inf, (1, 1))
    size = tuple((n - window) // stride + 1 for n in x.shape[1:3])
    return [
        _shifted(x, at, (stride, stride), size) for at in itertools.product(range(window), repeat=2)
    ]


def _product(patches: list[Pooled], kernel: Kernel, groups: int, precision: Any) -> Array:
    """Every pixel's patch times the kernel: [B*H'*W', O], by group where there are several."""
    if groups == 1:
        rows = jnp.concatenate(patches, axis=-1).reshape(-1, kernel[..., 0].size)
        return jnp.matmul(rows, kernel.reshape(rows.shape[-1], -1), precision=precision)
    taps, inputs = len(patches), kernel.shape[2]
    rows = jnp.stack(patches, axis=-2).reshape(-1, taps, groups, inputs)
    weights = kernel.reshape(taps, inputs, groups, -1)
    return jnp.einsum("ntgi,tigo->ngo", rows, weights, precision=precision)


def _pad(x: Features, pairs: Pairs, value: float, dilation: Sequence[int]) -> Float[Array, "..."]:
    spatial = [(low, high, d - 1) for (low, high), d in zip(pairs, dilation, strict=True)]
    return lax.pad(x, jnp.asarray(value, x.dtype), [(0, 0, 0), *spatial, (0, 0, 0)])


def _shifted(
    x: Features, offset: Sequence[int], stride: Sequence[int], size: Sequence[int]
) -> Pooled:
    """Every stride-th pixel from the offset on, so many of them."""
    rows, columns = (
        slice(start, start + step * (n - 1) + 1, step)
        for start, step, n in zip(offset, stride, size, strict=True)
    )
    return x[:, rows, columns]
