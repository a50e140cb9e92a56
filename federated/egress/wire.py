"""Arrays as bytes and back: no pickle, a short list of types, every size checked before it is used.

The form: a magic word, the number of arrays, and for each its type's code, the number of its axes,
their lengths, and its elements in C order, little-endian. There is one form for the same arrays.
"""

import math
import struct
from collections.abc import Sequence

import numpy as np

from lepton_jax.checks import UserError

_MAGIC = b"lepton-jax arrays 1\n"
_TYPES = ("float32", "float16", "float64", "int32", "int64", "uint32", "uint64", "int8", "uint8")
_MOST_ARRAYS, _MOST_AXES, _MOST_BYTES = 2**16, 8, 2**30


def pack(arrays: Sequence[np.ndarray], where: str) -> bytes:
    """Lays out arrays as bytes.

    Args:
      arrays: of numbers, any shapes; at most 65,536 of them, 8 axes each, 1 GiB together.
      where: names them in a refusal.

    Raises:
      UserError: another type of element, such as objects, or too much.

    >>> [each.tolist() for each in unpack(pack([np.eye(2), np.ones(0)], ""), "")]
    [[[1.0, 0.0], [0.0, 1.0]], []]
    """
    if len(arrays) > _MOST_ARRAYS or sum(x.nbytes for x in arrays) > _MOST_BYTES:
        raise _refusal(where, f"{len(arrays)} of {sum(x.nbytes for x in arrays)} bytes")
    parts = [_MAGIC, struct.pack("<I", len(arrays))]
    for array in arrays:
        if array.dtype.name not in _TYPES:
            raise UserError(where, f"elements of a type of {', '.join(_TYPES)}", array.dtype)
        if array.ndim > _MOST_AXES:
            raise _refusal(where, f"one with {array.ndim} axes")
        code = _TYPES.index(array.dtype.name)
        parts.append(struct.pack(f"<BB{array.ndim}Q", code, array.ndim, *array.shape))
        parts.append(array.astype(array.dtype.newbyteorder("<"), order="C", copy=False).tobytes())
    return b"".join(parts)


def unpack(raw: bytes, where: str) -> list[np.ndarray]:
    """Reads what `pack` laid out; whatever a header claims, nothing larger than `raw` is made.

    | edge                                                  | result                        |
    |-------------------------------------------------------|-------------------------------|
    | no arrays; arrays without elements                    | as they were                  |
    | NaN, infinity, -0.0                                   | as they were, bit by bit      |
    | an unknown type: objects, text, bfloat16              | UserError, from `pack` too    |
    | a shape of more than there is, axes beyond 2^64 cells | UserError, nothing allocated  |
    | cut short, or followed by more                        | UserError                     |

    Args:
      raw: the bytes.
      where: names them in a refusal.

    Returns:
      The arrays, as copies.

    Raises:
      UserError: as in the table.
    """
    try:
        return _unpack(memoryview(raw))
    except (struct.error, ValueError) as error:
        raise _refusal(where, f"others ({error})") from None


def _refusal(where: str, got: str) -> UserError:
    most = f"at most {_MOST_ARRAYS} arrays of {_MOST_AXES} axes and {_MOST_BYTES} bytes"
    return UserError(where, f"{most}, as they were packed", got)


def _unpack(raw: memoryview) -> list[np.ndarray]:
    if raw[: len(_MAGIC)] != _MAGIC:
        raise ValueError("another magic word")
    at, arrays = len(_MAGIC) + 4, []
    (number,) = struct.unpack_from("<I", raw, len(_MAGIC))
    if number > _MOST_ARRAYS:
        raise ValueError("too many")
    for _ in range(number):
        code, axes = struct.unpack_from("<BB", raw, at)
        if code >= len(_TYPES) or axes > _MOST_AXES:
            raise ValueError("an unknown type, or too many axes")
        shape = struct.unpack_from(f"<{axes}Q", raw, at + 2)
        dtype, at = np.dtype(_TYPES[code]).newbyteorder("<"), at + 2 + 8 * axes
        # An axis of length 0 would hide what the others claim.
        if math.prod(max(1, length) for length in shape) * dtype.itemsize > _MOST_BYTES:
            raise ValueError("a shape too large")
        count = math.prod(shape)
        if count * dtype.itemsize > len(raw) - at:
            raise ValueError("a shape of more than there is")
        array = np.frombuffer(raw, dtype, count, at) if count else np.zeros(0, dtype)
        arrays.append(array.reshape(shape).astype(dtype.newbyteorder("=")))
        at += count * dtype.itemsize
    if at != len(raw):
        raise ValueError("more follows")
    return arrays
