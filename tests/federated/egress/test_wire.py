"""Arrays travel as they are; whatever the bytes claim, nothing is made that isn't there."""

import pickle
import struct
import tracemalloc

import numpy as np
import pytest

from federated.egress.wire import pack, unpack
from lepton_jax.checks import UserError

MAGIC = b"lepton-jax arrays 1\n"
TYPES = ("float32", "float16", "float64", "int32", "int64", "uint32", "uint64", "int8", "uint8")


def forged(code: int, shape: tuple[int, ...], body: bytes = b"", number: int = 1) -> bytes:
    header = struct.pack(f"<BB{len(shape)}Q", code, len(shape), *shape)
    return MAGIC + struct.pack("<I", number) + header + body


def same(a: list[np.ndarray], b: list[np.ndarray]) -> bool:
    kinds = [[(x.dtype, x.shape, x.tobytes()) for x in each] for each in (a, b)]
    return kinds[0] == kinds[1]


@pytest.mark.parametrize("name", TYPES)
def test_what_is_packed_is_unpacked(name: str) -> None:
    rng = np.random.default_rng(0)
    shapes = ((), (0,), (3, 0, 2), (5,), (2, 3, 4))
    arrays = [np.asarray(100 * rng.random(s)).astype(name) for s in shapes]
    assert same(unpack(pack(arrays, "x"), "x"), arrays)


def test_the_order_in_memory_makes_no_difference() -> None:
    array = np.arange(6, dtype=np.float32).reshape(2, 3)
    kinds = [array, np.asfortranarray(array), array.astype(">f4"), array[::-1][::-1]]
    assert len({pack([each], "x") for each in kinds}) == 1
    assert same(unpack(pack([kinds[2]], "x"), "x"), [array])


def test_what_comes_back_is_the_receivers_own() -> None:
    (array,) = unpack(pack([np.zeros(3, np.float32)], "x"), "x")
    array += 1


# --- the table of `unpack` ------------------------------------------------------------------------


def test_no_arrays_are_no_arrays() -> None:
    assert unpack(pack([], "x"), "x") == []


def test_nan_infinity_and_the_sign_of_zero_come_bit_by_bit() -> None:
    array = np.array([0x7FC00001, 0x7F800001, 0x7F800000, 0x80000000], np.uint32).view(np.float32)
    assert same(unpack(pack([array], "x"), "x"), [array])


@pytest.mark.parametrize("dtype", ["object", "U3", "S3", "M8[s]", "c8", "?", "f4,i4"])
def test_other_types_are_not_packed(dtype: str) -> None:
    with pytest.raises(UserError, match=r"^x: expected elements of a type of float32"):
        pack([np.zeros(2, dtype)], "x")


def test_too_many_axes_are_not_packed() -> None:
    with pytest.raises(UserError, match="9 axes"):
        pack([np.zeros((1,) * 9, np.float32)], "x")


@pytest.mark.parametrize(
    "raw",
    [
        b"",
        MAGIC,
        MAGIC[:-1] + b"2" + bytes(4),
        pickle.dumps([np.zeros(3)]),
        forged(0, (2**40,)),
        forged(0, (2**64 - 1, 2**64 - 1)),
        forged(0, (2**40, 0)),
        forged(0, (2**63,) * 7 + (0,)),
        forged(0, (0,) * 9),
        forged(0, (3,), bytes(8)),
        forged(0, (2,), bytes(9)),
        forged(9, (1,), bytes(8)),
        forged(255, (1,), bytes(8)),
        forged(0, (1,), bytes(4), number=2),
        forged(0, (1,), bytes(4), number=0),
        forged(0, (), bytes(4), number=2**32 - 1),
    ],
)
def test_what_a_header_claims_is_not_believed(raw: bytes) -> None:
    tracemalloc.start()
    try:
        with pytest.raises(UserError, match=r"^x: expected at most"):
            unpack(raw, "x")
        assert tracemalloc.get_traced_memory()[1] < 2**20
    finally:
        tracemalloc.stop()


def test_of_bytes_cut_or_changed_anywhere_nothing_but_arrays_or_a_refusal_comes() -> None:
    rng = np.random.default_rng(1)
    raw = pack([np.ones((2, 3), np.float32), np.arange(5), np.zeros((0, 4), np.uint8)], "x")
    for cut in range(len(raw)):
        with pytest.raises(UserError):
            unpack(raw[:cut], "x")
    for _ in range(3000):
        changed = bytearray(raw)
        changed[rng.integers(len(raw))] ^= 1 << int(rng.integers(8))
        try:
            arrays = unpack(bytes(changed), "x")
        except UserError as error:
            assert str(error).isprintable()
        else:
            assert sum(each.nbytes for each in arrays) <= len(raw)
            assert pack(arrays, "x") == bytes(changed)  # one form for the same arrays
