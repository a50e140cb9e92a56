"""Masks: AES-256 in counter mode as 32-bit numbers, which sum to 0 over each pair of clients."""

from collections.abc import Sequence

import numpy as np
from cryptography.hazmat.primitives.ciphers import Cipher, CipherContext, algorithms, modes

_CHUNK = 2**14  # numbers: the vector's part, a mask's and the zeros stay in a core's own cache


def apply_masks(vector: np.ndarray, added: Sequence[bytes], subtracted: Sequence[bytes]) -> None:
    """Adds and subtracts whole masks, modulo 2^32 and in place; the memory beside is flat.

    A key may serve for one mask only: its stream begins at counter 0 each time.

    Args:
      vector: [D] of uint32.
      added: the keys, 32 bytes each, of the masks to add.
      subtracted: those of the masks to subtract.

    >>> vector = np.arange(5, dtype=np.uint32)
    >>> apply_masks(vector, [b"a" * 32, b"b" * 32], [])
    >>> apply_masks(vector, [], [b"b" * 32, b"a" * 32])
    >>> vector.tolist()
    [0, 1, 2, 3, 4]
    """
    signed: list[tuple[CipherContext, np.ufunc]] = [(_stream(key), np.add) for key in added]
    signed += [(_stream(key), np.subtract) for key in subtracted]
    raw, zeros = memoryview(bytearray(4 * _CHUNK)), memoryview(bytes(4 * _CHUNK))
    mask = np.frombuffer(raw, "<u4")
    for start in range(0, len(vector), _CHUNK):
        part = vector[start : start + _CHUNK]
        size = len(part)
        for stream, combine in signed:
            stream.update_into(zeros[: 4 * size], raw[: 4 * size])
            combine(part, mask[:size], out=part)


def of_pairs(client: int, keys: dict[int, bytes]) -> tuple[list[bytes], list[bytes]]:
    """A client's masks with others by sign: the lower of two adds, the higher subtracts.

    Args:
      client: the one whose vector is masked.
      keys: each pair's key, by the other client.

    Returns:
      The keys to add, and those to subtract.
    """
    added = [key for other, key in keys.items() if client < other]
    return added, [key for other, key in keys.items() if client > other]


def _stream(key: bytes) -> CipherContext:
    return Cipher(algorithms.AES(key), modes.CTR(bytes(16))).encryptor()
