"""Secrets in shares, of which any `threshold` give them back and fewer tell nothing (Shamir, 1979).

The field is that of the integers modulo 2^256 + 297, the least prime above 2^256: every secret of
32 bytes is an element, none has to be rejected or folded, and a share takes 33 bytes where the
nearest Mersenne prime, 2^521 - 1, would take 66.

*Guarantee.* Fewer than `threshold` shares are jointly uniform, up to 2^-240, whatever the secret.

| edge                                            | result                   |
|-------------------------------------------------|--------------------------|
| threshold below 1 or above the number of shares | UserError                |
| an index below 1 or above 2^32, or twice        | UserError                |
| a secret that isn't 32 bytes                    | UserError                |
| a share that isn't 33 bytes, or not below p     | UserError                |
| fewer shares than the threshold                 | UserError                |
| shares on no common polynomial                  | UserError                |
| shares of a number that is no secret            | UserError                |
| threshold 1                                     | each share is the secret |
"""

import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from federated.secure.keys import Random
from lepton_jax.checks import UserError

PRIME = 2**256 + 297
SECRET_BYTES, SHARE_BYTES = 32, 33
_COEFFICIENT_BYTES = 64  # modulo a prime of 257 bits they are uniform up to 2^-255
_MOST_INDEX = 2**32


class Share(NamedTuple):
    """The value, 33 bytes, of a secret's polynomial at an index, which is at least 1."""

    at: int
    value: bytes


def split(secret: bytes, indices: Sequence[int], threshold: int, random: Random) -> list[Share]:
    """Deals a secret.

    Args:
      secret: 32 bytes.
      indices: where the shares are to be, different whole numbers of at least 1.
      threshold: how many shares give the secret back.
      random: where the polynomial comes from.

    Raises:
      UserError: as in the module's table.

    >>> import os
    >>> shares = split(b"a secret of just thirty-two bytes"[:32], [1, 2, 7], 2, os.urandom)
    >>> join(shares[1:], 2)
    b'a secret of just thirty-two byte'
    """
    _check_indices(indices)
    if len(secret) != SECRET_BYTES:
        raise UserError("shamir: secret", f"{SECRET_BYTES} bytes", len(secret))
    if not 1 <= threshold <= len(indices):
        raise UserError("shamir: threshold", f"1 to {len(indices)}, the shares", threshold)
    at = np.array(indices, object)
    values = np.zeros(len(indices), object)
    for _ in range(threshold - 1):
        values = (values + int.from_bytes(random(_COEFFICIENT_BYTES), "big")) * at % PRIME
    values = (values + int.from_bytes(secret, "big")) % PRIME
    each = zip(indices, values, strict=True)
    return [Share(index, int(value).to_bytes(SHARE_BYTES, "big")) for index, value in each]


def join(shares: Sequence[Share], threshold: int) -> bytes:
    """Gives a secret back.

    Args:
      shares: at least `threshold`; all of them must lie on one polynomial.
      threshold: as it was dealt.

    Returns:
      The secret, 32 bytes.

    Raises:
      UserError: as in the module's table.
    """
    _check_indices([share.at for share in shares])
    if not 1 <= threshold <= len(shares):
        raise UserError("shamir: shares", f"at least {threshold}", len(shares))
    at = np.array([share.at for share in shares], object)
    weighted = _weights(at) * np.array([_value(share) for share in shares], object) % PRIME
    _check_consistent(at, weighted, threshold)
    # Lagrange at 0: the sum of value * weight * product of all other (-index).
    others = math.prod(-index for index in at) // -at
    secret = int((weighted * others).sum() % PRIME)
    if secret >= 2 ** (8 * SECRET_BYTES):
        raise UserError("shamir: shares", "those of one secret", "a sum that is no secret")
    return secret.to_bytes(SECRET_BYTES, "big")


def _check_indices(indices: Sequence[int]) -> None:
    if len(set(indices)) < len(indices):
        raise UserError("shamir: indices", "each once", "one twice")
    for index in indices:
        if not 1 <= index <= _MOST_INDEX:
            raise UserError("shamir: indices", f"1 to {_MOST_INDEX}", index)


def _value(share: Share) -> int:
    value = int.from_bytes(share.value, "big")
    if len(share.value) != SHARE_BYTES or value >= PRIME:
        raise UserError(
            f"shamir: share {share.at}",
            f"{SHARE_BYTES} bytes, a number below 2^256 + 297",
            f"{len(share.value)} bytes" if len(share.value) != SHARE_BYTES else "a larger one",
        )
    return value


def _weights(at: np.ndarray) -> np.ndarray:
    """The barycentric weights: 1 / product of all other (index - other)."""
    # One inverse an index: the products are of small integers, and are reduced only then.
    products = (math.prod(int(x) - int(other) for other in at if other != x) for x in at)
    return np.array([pow(product, -1, PRIME) for product in products], object)


def _check_consistent(at: np.ndarray, weighted: np.ndarray, threshold: int) -> None:
    """Refuses more than `threshold` values that no polynomial of so few coefficients takes.

    The weighted sum of a polynomial's values is its divided difference over all indices, which is
    0 just for those of a lower degree; times index^j, for each degree that there may not be.
    """
    for _ in range(len(at) - threshold):
        if weighted.sum() % PRIME:
            raise UserError("shamir: shares", "those of one secret", "some of another")
        weighted = weighted * at % PRIME
