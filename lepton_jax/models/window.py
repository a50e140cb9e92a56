"""How a kernel goes over images: how far it reaches when dilated, what a padding's name adds."""

from collections.abc import Sequence
from typing import Literal

from jax import lax

Padding = Literal["SAME", "VALID"]
Pairs = Sequence[tuple[int, int]]


def dilated(size: Sequence[int], dilation: Sequence[int]) -> tuple[int, ...]:
    """A size, with gaps between its elements.

    >>> dilated((3, 3), (1, 2))
    (3, 5)
    """
    return tuple((n - 1) * d + 1 for n, d in zip(size, dilation, strict=True))


def padding_pairs(
    padding: str | Pairs, image: Sequence[int], kernel: Sequence[int], strides: Sequence[int]
) -> Pairs:
    """What is added below and above along each axis, whichever way a padding is given.

    >>> padding_pairs("SAME", (8, 8), (3, 5), (1, 1))
    [(1, 1), (2, 2)]
    """
    if isinstance(padding, str):
        return lax.padtype_to_pads(image, kernel, strides, padding)
    return padding
