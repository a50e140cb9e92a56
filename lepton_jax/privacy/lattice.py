"""Noise in whole numbers, drawn exactly: no floating point decides what comes out.

A normal number of a generator in floating point takes few of its values, and which ones it can take
tells of what it was added to (Mironov, 2012). Here the table of a distribution is computed with whole
numbers of 256 bits, and random bits look it up (inversion).

* `rounded_normal`: a normal number, rounded to the nearest whole one. Where x is whole,
  x + round(N) = round(x + N): the Gaussian mechanism, then rounded, so that all that is known of the
  Gaussian mechanism holds of it, Renyi and privacy loss accounting under sampling included.
* `discrete_normal`: P(k) proportional to exp(-k^2 / (2 s^2)) (Canonne, Kamath and Steinke, 2020), for
  noise that many parties add up.

*Guarantee.* Each number's distribution is within a total variation of 2^-128 of the exact one, given
uniform bits; numbers are independent. So whatever holds of n exact numbers with some delta, holds of
n of these with delta + n * 2^-128 * (1 + e^epsilon) at most. How long a draw takes may depend on it.

| edge                                     | result                                             |
|------------------------------------------|----------------------------------------------------|
| n 0                                      | no numbers                                         |
| bits that fall on a boundary of the table| 192 further bits decide                            |
| beyond 13.5 deviations                   | never drawn: less than 2^-135 in all               |
| a deviation below 1/4, above 2^17, NaN   | UserError                                          |
"""

from bisect import bisect_right
from collections.abc import Callable, Iterator
from fractions import Fraction
from functools import lru_cache
from typing import NamedTuple

import numpy as np
from jaxtyping import Int32

from lepton_jax.checks import UserError
from lepton_jax.privacy.entropy import Source, Words

Sampler = Callable[[Source, int], Int32[np.ndarray, "n"]]

LEAST_DEVIATION, MOST_DEVIATION = 2.0**-2, 2.0**17
REACH = 13.5  # deviations; beyond lies less than 2^-135

_BITS = 256  # of a fixed-point number's fraction
_FIRST, _FURTHER = 63, 192  # bits of a draw: those that nearly always decide, and the rest
_INDEX = 20  # bits that a draw's first guess is looked up by
_CHUNK = 2**18  # numbers: words and guesses stay in a core's own cache


class _Table(NamedTuple):
    """The distribution of |k|: P(|k| <= j) for j = 0, 1, ...

    Attributes:
      exact: with 63 + 192 bits.
      first: the first 63 bits of each.
      guess: by the first 20 bits of a draw: its |k| where they decide, else -1.
    """

    exact: list[int]
    first: np.ndarray
    guess: np.ndarray


def rounded_normal(deviation: float) -> Sampler:
    """Normal numbers rounded to the nearest whole one; the *Guarantee* is the module's.

    Args:
      deviation: of the normal distribution, in [1/4, 2^17].

    Returns:
      (source, n) -> n independent numbers, int32.

    Raises:
      UserError: the deviation is out of range.

    >>> from lepton_jax.privacy.entropy import seeded_source
    >>> rounded_normal(100.0)(seeded_source(0), 2).dtype
    dtype('int32')
    """
    _check(deviation)
    return _sampler(_rounded_table(float(deviation)))


def discrete_normal(deviation: float) -> Sampler:
    """Discrete normal numbers, P(k) proportional to exp(-k^2 / (2 deviation^2)).

    Arguments, result and errors as of `rounded_normal`; the *Guarantee* is the module's.

    Source: Canonne, Kamath and Steinke (2020).
    """
    _check(deviation)
    return _sampler(_discrete_table(float(deviation)))


def _check(deviation: float) -> None:
    if not LEAST_DEVIATION <= deviation <= MOST_DEVIATION:  # NaN compares false
        raise UserError("the noise's deviation", "1/4 to 2^17 steps of the grid", deviation)


# --- drawing --------------------------------------------------------------------------------------


def _sampler(table: _Table) -> Sampler:
    def draw(source: Source, n: int) -> np.ndarray:
        out = np.empty(n, np.int32)
        for start in range(0, n, _CHUNK):
            part = out[start : start + _CHUNK]
            part[:] = _signed(table, source.words(len(part)), source)
        return out

    return draw


def _signed(table: _Table, words: Words, source: Source) -> np.ndarray:
    """The lowest bit of a word is the sign, the 63 others look up |k|; a zero has no sign to tell."""
    bits = words >> np.uint64(1)
    k = table.guess[(bits >> np.uint64(_FIRST - _INDEX)).astype(np.intp)]
    open_ = np.flatnonzero(k < 0)
    if len(open_):
        k[open_] = _look_up(table, bits[open_], source)
    negative = (words & np.uint64(1)).astype(np.int32)
    return (k ^ -negative) + negative


def _look_up(table: _Table, bits: np.ndarray, source: Source) -> np.ndarray:
    """How many boundaries are at most the draw; where 63 bits can't tell, further ones do."""
    k = np.searchsorted(table.first, bits, side="right")
    tied = np.flatnonzero((k > 0) & (table.first[np.maximum(k, 1) - 1] == bits))
    for i in tied:
        further = int.from_bytes(source.words(_FURTHER // 64).tobytes(), "little")
        k[i] = bisect_right(table.exact, (int(bits[i]) << _FURTHER) | further)
    return k.astype(np.int32)


# --- tables ---------------------------------------------------------------------------------------


@lru_cache(maxsize=4)
def _rounded_table(deviation: float) -> _Table:
    """P(k) is the normal density's integral over [k - 1/2, k + 1/2].

    Which is the density at k times the mean of exp(-x t - t^2 / 2) over t in [-h, h], where
    x = k / deviation and h = 1 / (2 deviation): a series of Hermite polynomials.
    """
    terms = _terms(deviation)
    bits = _BITS + 8 * len(terms)  # Horner's rule in x^2 < 2^8 loses as many
    square = int((1 << bits) / Fraction(deviation) ** 2)
    factors = [int(term * (1 << bits)) for term in reversed(terms)]

    def weights() -> Iterator[int]:
        for k, density in enumerate(_density(deviation)):
            x2, mean = k * k * square, 0
            for factor in factors:
                mean = (mean * x2 >> bits) + factor
            yield density * mean >> bits

    return _tabulate(weights())


@lru_cache(maxsize=4)
def _discrete_table(deviation: float) -> _Table:
    return _tabulate(_density(deviation))


def _density(deviation: float) -> Iterator[int]:
    """exp(-k^2 / (2 s^2)) for k = 0, 1, ..., each from the one before it, in fixed point."""
    exponent = 1 / Fraction(deviation) ** 2
    value, ratio, factor = 1 << _BITS, _exp(-exponent / 2), _exp(-exponent)
    for _ in range(int(REACH * deviation) + 2):
        yield value
        value = value * ratio >> _BITS
        ratio = ratio * factor >> _BITS


def _tabulate(weights: Iterator[int]) -> _Table:
    """The table of |k|, where both signs of k > 0 have the weight given."""
    sums = [next(weights)]
    for weight in weights:
        sums.append(sums[-1] + 2 * weight)
    scale = (1 << (_FIRST + _FURTHER + _BITS)) // sums[-1]
    exact = [total * scale >> _BITS for total in sums]
    first = np.array([total >> _FURTHER for total in exact], np.uint64)
    ends = np.arange(2**_INDEX + 1, dtype=np.uint64) << np.uint64(_FIRST - _INDEX)
    below = np.searchsorted(first, ends)
    guess = np.where(below[:-1] == below[1:], below[:-1], -1).astype(np.int32)
    return _Table(exact, first, guess)


def _terms(deviation: float) -> list[Fraction]:
    """By the power of x^2: the factors of sum_n He_2n(x) h^2n / (2n + 1)!, as many n as matter.

    He_2n(x) = sum_m (-1)^(n-m) (2n)! / ((2m)! (n-m)! 2^(n-m)) x^2m.
    """
    h2 = 1 / (2 * Fraction(deviation)) ** 2
    count = _count(float(h2) ** 0.5)
    terms = [Fraction(0)] * count
    for n in range(count):
        factor = h2**n / (2 * n + 1)  # of x^2m, m = n, over (2m)!
        for m in range(n, -1, -1):
            terms[m] += factor
            factor *= Fraction(-1, 2) / (n - m + 1)
    factorial = 1
    for m in range(1, count):
        factorial *= (2 * m) * (2 * m - 1)
        terms[m] /= factorial
    return terms


def _count(h: float) -> int:
    """Terms until what is left is below 2^-140, whatever x <= 14: |He_n(x)| <= |He_n(i x)|."""
    before, now, n = 1.0, 14 * h / 2, 1  # |He_n(14 i)| h^n / (n + 1)!
    while n < 14 * h or max(before, now) > 2.0**-142:
        after = (14 * h * now + n * h * h * before / (n + 1)) / (n + 2)
        before, now, n = now, after, n + 1
    return n // 2 + 1


def _exp(x: Fraction) -> int:
    """exp(x) for x <= 0, in fixed point, truncated."""
    halvings, bits = 8, _BITS + 64
    reduced = int(x * (1 << bits)) >> halvings
    term = total = 1 << bits
    n = 0
    while term not in (0, -1):  # shifting a negative number right ends at -1
        n += 1
        term = (term * reduced >> bits) // n
        total += term
    for _ in range(halvings):
        total = total * total >> bits
    return total >> 64
