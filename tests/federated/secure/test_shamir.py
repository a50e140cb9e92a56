"""Shares give a secret back, all at once or not at all, and fewer of them fit every secret."""

import itertools

import numpy as np
import pytest

from federated.secure.shamir import PRIME, Share, join, split
from lepton_jax.checks import UserError
from tests.federated.secure.drive import flip

RANDOM = np.random.default_rng(0).bytes
SECRET = bytes(range(32))


def lagrange(points: list[tuple[int, int]], at: int) -> int:
    """The polynomial through some points, as a textbook has it."""
    total = 0
    for i, (x, y) in enumerate(points):
        for other, _ in points[:i] + points[i + 1 :]:
            y = y * (at - other) * pow(x - other, -1, PRIME) % PRIME
        total += y
    return total % PRIME


def numbers(shares: list[Share]) -> list[tuple[int, int]]:
    return [(share.at, int.from_bytes(share.value, "big")) for share in shares]


def is_prime(n: int) -> bool:
    """Miller and Rabin, with the first 40 bases: a composite passes once in 4^40."""
    halvings = ((n - 1) & (1 - n)).bit_length() - 1
    for base in range(2, 42):
        roots = [pow(base, (n - 1) >> k, n) for k in range(1, halvings + 1)]
        if pow(base, n - 1, n) != 1 or (roots[-1] != 1 and n - 1 not in roots):
            return False
    return True


def test_the_prime_is_the_least_above_2_to_the_256() -> None:
    assert [n for n in range(2**256 + 1, PRIME + 1, 2) if is_prime(n)] == [PRIME]


@pytest.mark.parametrize(("holders", "threshold"), [(1, 1), (3, 2), (5, 5), (7, 4), (40, 21)])
def test_any_threshold_of_shares_give_the_secret_back(holders: int, threshold: int) -> None:
    rng = np.random.default_rng(holders)
    indices = [int(x) for x in rng.choice(1000, holders, replace=False) + 1]
    for secret in (SECRET, bytes(32), b"\xff" * 32):
        shares = split(secret, indices, threshold, rng.bytes)
        for size in {threshold, holders}:
            some = [shares[i] for i in rng.permutation(holders)[:size]]
            assert join(some, threshold) == secret
            slow = lagrange(numbers(some), 0)
            assert slow == int.from_bytes(secret, "big")


def test_fewer_shares_fit_every_secret() -> None:
    few = split(SECRET, [1, 2, 3, 4, 5], 4, RANDOM)[:3]
    for other in (bytes(32), b"\xff" * 32, RANDOM(32)):
        points = [(0, int.from_bytes(other, "big")), *numbers(few)]
        fourth = Share(9, lagrange(points, 9).to_bytes(33, "big"))
        assert join([*few, fourth], 4) == other


@pytest.mark.parametrize("threshold", [2, 3, 6])
def test_a_polynomial_has_as_many_coefficients_as_the_threshold(threshold: int) -> None:
    shares = split(SECRET, [1, 2, 3, 4, 5, 6, 7], threshold, RANDOM)
    with pytest.raises(UserError, match="expected those of one secret"):
        join(shares, threshold - 1)


def test_a_share_alone_is_uniform() -> None:
    values = [split(SECRET, [1, 2, 3], 2, RANDOM)[1].value for _ in range(4000)]
    counts = np.bincount([value[-1] for value in values], minlength=256)
    chi_square = float(((counts - 4000 / 256) ** 2 / (4000 / 256)).sum())
    assert abs(chi_square - 255) < 5 * (2 * 255) ** 0.5


def test_shares_of_different_secrets_are_refused() -> None:
    rng = np.random.default_rng(1)
    shares = split(SECRET, [1, 2, 3, 4, 5], 3, rng.bytes)
    for wrong in range(5):
        value = int.from_bytes(shares[wrong].value, "big") ^ int(rng.integers(1, 2**60))
        changed = [*shares]
        changed[wrong] = Share(wrong + 1, value.to_bytes(33, "big"))
        for three in itertools.combinations(changed, 4):
            if changed[wrong] in three:
                with pytest.raises(UserError, match="expected those of one secret, got some of"):
                    join(three, 3)


def test_threshold_1_hands_out_the_secret() -> None:
    assert {share.value for share in split(SECRET, [4, 9], 1, RANDOM)} == {b"\0" + SECRET}


@pytest.mark.parametrize("threshold", [0, -1, 3])
def test_a_threshold_out_of_range_is_refused(threshold: int) -> None:
    with pytest.raises(UserError, match=r"^shamir: threshold: expected 1 to 2, the shares"):
        split(SECRET, [1, 2], threshold, RANDOM)


@pytest.mark.parametrize("indices", [[0, 1], [-1, 2], [1, 2**32 + 1], [3, 3]])
def test_an_index_out_of_range_or_twice_is_refused(indices: list[int]) -> None:
    with pytest.raises(UserError, match=r"^shamir: indices"):
        split(SECRET, indices, 1, RANDOM)
    with pytest.raises(UserError, match=r"^shamir: indices"):
        join([Share(index, bytes(33)) for index in indices], 1)


@pytest.mark.parametrize("size", [0, 31, 33])
def test_a_secret_of_another_length_is_refused(size: int) -> None:
    with pytest.raises(UserError, match=r"^shamir: secret: expected 32 bytes"):
        split(bytes(size), [1, 2], 2, RANDOM)


@pytest.mark.parametrize("value", [b"", bytes(32), bytes(34), PRIME.to_bytes(33, "big")])
def test_a_share_that_is_no_element_is_refused(value: bytes) -> None:
    with pytest.raises(UserError, match=r"^shamir: share 2: expected 33 bytes, a number below"):
        join([Share(1, bytes(33)), Share(2, value)], 2)


def test_fewer_shares_than_the_threshold_are_refused() -> None:
    with pytest.raises(UserError, match=r"^shamir: shares: expected at least 3, got 2"):
        join(split(SECRET, [1, 2, 3], 3, RANDOM)[:2], 3)


def test_a_number_that_is_no_secret_is_refused() -> None:
    with pytest.raises(UserError, match="a sum that is no secret"):
        join([Share(1, (PRIME - 1).to_bytes(33, "big"))], 1)


def test_a_flipped_bit_changes_a_secret() -> None:
    shares = split(SECRET, [1, 2], 2, RANDOM)
    value = flip(shares[0].value[:32], np.random.default_rng(0)) + shares[0].value[32:]
    try:
        assert join([Share(1, value), shares[1]], 2) != SECRET
    except UserError as refusal:
        assert "no secret" in str(refusal) or "below 2^256" in str(refusal)
