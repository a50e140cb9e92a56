"""Masks cancel pairwise, whatever the length, and are AES' stream."""

import numpy as np
import pytest
from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes

from federated.secure.masks import _CHUNK, apply_masks, of_pairs

KEYS = [bytes([i]) * 32 for i in range(4)]


def slow(vector: np.ndarray, added: list[bytes], subtracted: list[bytes]) -> np.ndarray:
    """One whole mask after another, in Python's own integers."""
    numbers = [int(x) for x in vector]
    for sign, keys in ((1, added), (-1, subtracted)):
        for key in keys:
            cipher = Cipher(algorithms.AES(key), modes.CTR(bytes(16))).encryptor()
            raw = cipher.update(bytes(4 * len(vector)))
            mask = [int.from_bytes(raw[i : i + 4], "little") for i in range(0, len(raw), 4)]
            numbers = [(x + sign * m) % 2**32 for x, m in zip(numbers, mask, strict=True)]
    return np.array(numbers, np.uint32)


@pytest.mark.parametrize("size", [0, 1, 3, 4, _CHUNK - 1, _CHUNK, _CHUNK + 1, 2 * _CHUNK + 7])
def test_masks_are_as_one_would_write_them_down(size: int) -> None:
    vector = np.random.default_rng(size).integers(0, 2**32, size, dtype=np.uint32)
    expected = slow(vector, KEYS[:1], KEYS[1:3])
    apply_masks(vector, KEYS[:1], KEYS[1:3])
    assert np.array_equal(vector, expected)


def test_every_pair_of_clients_cancels() -> None:
    vectors = np.random.default_rng(0).integers(0, 2**32, (4, 1000), dtype=np.uint32)
    masked = vectors.copy()
    for i in range(4):
        pairs = {j: bytes([min(i, j), max(i, j)]) * 16 for j in range(4) if j != i}
        apply_masks(masked[i], *of_pairs(i, pairs))
        assert not np.array_equal(masked[i], vectors[i])
    assert np.array_equal(masked.sum(0, dtype=np.uint32), vectors.sum(0, dtype=np.uint32))


def test_the_lower_client_adds() -> None:
    assert of_pairs(1, {0: b"a", 2: b"b"}) == ([b"b"], [b"a"])
