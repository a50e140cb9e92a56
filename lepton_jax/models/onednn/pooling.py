"""Max-pooling as JAX primitives: which element of a window is the greatest, and two linear maps.

XLA's own remembers no positions: its gradient compares again, and takes longer than a convolution.
"""

from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.dtypes import float0
from jax.extend.core import Primitive
from jax.interpreters import ad, batching

from lepton_jax.models.onednn.calls import lead, make_primitive, threads
from lepton_jax.models.window import padding_pairs


class Window(NamedTuple):
    """How windows lie over images, and over how many threads the work is spread."""

    size: int
    stride: int
    padding: tuple[int, int]  # top, left
    image: tuple[int, int]
    out: tuple[int, int]
    threads: int


def max_pool(x: jax.Array, size: int, stride: int, padding: str) -> jax.Array:
    """Max-pooling of images [...,H,W,F] in float32; the gradient of a tie goes to the first.

    Args:
      x: the images.
      size: of the square window, at most 16.
      stride: in both directions.
      padding: `SAME` or `VALID`.

    Returns:
      [...,H',W',F].
    """
    image = x.shape[-3], x.shape[-2]
    pairs = padding_pairs(padding, image, (size, size), (stride, stride))
    height, width = (
        (n + sum(pair) - size) // stride + 1 for n, pair in zip(image, pairs, strict=True)
    )
    start = pairs[0][0], pairs[1][0]
    return _max_pool(x, Window(size, stride, start, image, (height, width), threads()))[0]


@partial(jax.custom_jvp, nondiff_argnums=(1,))
def _max_pool(x: jax.Array, window: Window) -> tuple[jax.Array, jax.Array]:
    """The greatest elements, and where in its window each is."""
    greatest, which = _maximum.bind(x, window=window)
    return greatest, which


@_max_pool.defjvp
def _max_pool_jvp(window: Window, primals: Any, tangents: Any) -> Any:
    greatest, which = _max_pool(*primals, window)
    change = _gather.bind(*tangents, which, window=window)
    return (greatest, which), (change, np.zeros(which.shape, float0))


# --- the three maps -------------------------------------------------------------------------------


def _of_maximum(x: Any, *, window: Window) -> list[jax.ShapeDtypeStruct]:
    shape = _resized(x, window.out)
    return [jax.ShapeDtypeStruct(shape, x.dtype), jax.ShapeDtypeStruct(shape, jnp.uint8)]


def _of_gather(x: Any, which: Any, *, window: Window) -> jax.ShapeDtypeStruct:
    return jax.ShapeDtypeStruct(_resized(x, window.out), x.dtype)


def _of_scatter(y: Any, which: Any, *, window: Window) -> jax.ShapeDtypeStruct:
    return jax.ShapeDtypeStruct(_resized(y, window.image), y.dtype)


def _resized(x: Any, size: tuple[int, int]) -> tuple[int, ...]:
    return (*x.shape[:-3], *size, x.shape[-1])


def _attributes(*, window: Window) -> dict[str, Any]:
    return {
        "window": np.int64(window.size),
        "stride": np.int64(window.stride),
        "padding": np.array(window.padding),
        "threads": np.int64(window.threads),
    }


_maximum = make_primitive("pool_maximum", _of_maximum, _attributes, several=True)
_gather = make_primitive("pool_gather", _of_gather, _attributes)  # images, which -> output
_scatter = make_primitive("pool_scatter", _of_scatter, _attributes)  # output, which -> images


def _linear(map: Primitive, transpose: Primitive) -> None:
    """Declares a map as linear in its first argument, and which map is its transpose."""

    def transposed(y: Any, x: Any, which: Any, *, window: Window) -> Any:
        zero = type(y) is ad.Zero
        return ad.Zero(x.aval) if zero else transpose.bind(y, which, window=window), None

    ad.defjvp(map, lambda change, x, which, *, window: map.bind(change, which, window=window), None)
    ad.primitive_transposes[map] = transposed


_linear(_gather, _scatter)
_linear(_scatter, _gather)


def _batch(primitive: Primitive, arrays: Any, axes: Any, *, window: Window) -> Any:
    results = primitive.bind(*lead(arrays, axes), window=window)
    return results, [0] * len(results) if primitive.multiple_results else 0


for _each in (_maximum, _gather, _scatter):
    batching.primitive_batchers[_each] = partial(_batch, _each)
