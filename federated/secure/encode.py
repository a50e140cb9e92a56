"""Real vectors as integers modulo 2^32, and their sum back."""

import math
from collections.abc import Callable
from typing import NamedTuple

import numpy as np

from lepton_jax.checks import UserError

_MOST_SUM = 2**31 - 1  # sums are signed: the upper half of the ring is the negative numbers


class Encoding(NamedTuple):
    """Fixed-point numbers.

    Attributes:
      encode: real vector [D] -> uint32 [D].
      decode: sum of encoded vectors, uint32 [D] -> float64 [D].
      error: the most by which an element of one client's vector is off.
    """

    encode: Callable[[np.ndarray], np.ndarray]
    decode: Callable[[np.ndarray], np.ndarray]
    error: float


def fixed_point(clip: float, scale: float, clients: int) -> Encoding:
    """Numbers of at most `clip`, in steps of 1 / `scale`, to the nearest (ties to even).

    *Guarantee.* The sum of up to `clients` encoded vectors never wraps, so that its decoding is
    the sum of the rounded vectors exactly. What can't be encoded is refused; nothing is clamped.

    | edge                                         | result               |
    |----------------------------------------------|----------------------|
    | clip 0, negative, NaN, inf                   | UserError            |
    | scale 0, negative, NaN, inf                  | UserError            |
    | clip * scale at most 1/2: all would be 0     | UserError            |
    | clients below 1                              | UserError            |
    | clients * clip * scale above 2^31 - 1        | UserError            |
    | a NaN or an infinity in a vector             | UserError            |
    | an element above clip                        | UserError            |
    | an element of just +-clip, from all clients  | exact                |
    | -0.0, subnormals                             | 0                    |
    | the sum of no vectors: zeros                 | zeros                |

    Args:
      clip: the largest absolute value of an element.
      scale: steps to 1.
      clients: how many vectors are summed at most.

    Raises:
      UserError: as in the table.

    >>> coding = fixed_point(clip=1.0, scale=2.0**16, clients=100)
    >>> first, second = (coding.encode(np.array(x, np.float32)) for x in ([0.5, -1], [0.25, 0.5]))
    >>> coding.decode(first + second).tolist()
    [0.75, -0.5]
    """
    _check(clip, scale, clients)

    def encode(vector: np.ndarray) -> np.ndarray:
        wide = np.asarray(vector, np.float64)
        largest = np.abs(wide).max(initial=0.0)
        if not largest <= clip:  # NaN compares false
            raise UserError(
                "fixed_point: vector",
                f"finite numbers of at most {clip}",
                largest,
                "put clip(max_norm) before it",
            )
        return np.rint(wide * scale).astype(np.int32).view(np.uint32)

    def decode(total: np.ndarray) -> np.ndarray:
        return total.view(np.int32) / scale

    return Encoding(encode, decode, error=0.5 / scale)


def _check(clip: float, scale: float, clients: int) -> None:
    for name, value in (("clip", clip), ("scale", scale)):
        if not 0 < value < math.inf:
            raise UserError(f"fixed_point: {name}", "a finite number above 0", value)
    if clients < 1:
        raise UserError("fixed_point: clients", "at least 1", clients)
    if not clip * scale > 0.5:  # a tie goes to 0
        raise UserError("fixed_point: clip * scale", "above 1/2", clip * scale, "raise the scale")
    # Before rounding, as what overflows to infinity can't be rounded.
    if clip * scale > _MOST_SUM or clients * round(clip * scale) > _MOST_SUM:
        raise UserError(
            "fixed_point: clients * clip * scale",
            "at most 2^31 - 1, so that no sum wraps",
            f"{clients * clip * scale:.6g}",
            f"take a scale of at most {_MOST_SUM // clients / clip:.6g}",
        )
