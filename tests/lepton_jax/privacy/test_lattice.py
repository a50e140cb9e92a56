"""Integer noise: exactly the distribution that was said, to the last bit of a boundary."""

import math
from collections.abc import Callable

import numpy as np
import pytest

from lepton_jax.checks import UserError
from lepton_jax.privacy import lattice
from lepton_jax.privacy.entropy import Source, secure_source, seeded_source
from lepton_jax.privacy.lattice import Sampler, discrete_normal, rounded_normal

BOTH = pytest.mark.parametrize("make", [rounded_normal, discrete_normal])
Make = Callable[[float], Sampler]


def below(k: float, deviation: float) -> float:
    """P(|N| <= k) of a normal number."""
    return math.erf(k / (deviation * math.sqrt(2)))


def slow_twin(make: Make, deviation: float) -> np.ndarray:
    """P(|K| = k), k = 0, 1, ..., by the definition and in floats."""
    last = math.ceil(9 * deviation) + 2
    if make is rounded_normal:
        ends = np.array([0.0, *(below(k + 0.5, deviation) for k in range(last))])
        return np.diff(ends)
    weights = np.exp(-(np.arange(last) ** 2) / (2 * deviation**2))
    weights[1:] *= 2
    return weights / weights.sum()


def table(make: Make, deviation: float) -> lattice._Table:
    build = lattice._rounded_table if make is rounded_normal else lattice._discrete_table
    return build(deviation)


@BOTH
@pytest.mark.parametrize("deviation", [0.25, 0.3, 0.5, 1.0, 3.7, 40.0, 1000.5])
def test_the_table_is_that_of_the_definition(make: Make, deviation: float) -> None:
    exact = table(make, deviation).exact
    expected = np.cumsum(slow_twin(make, deviation))
    found = np.array([total / 2**255 for total in exact[: len(expected)]])
    np.testing.assert_allclose(found, expected[: len(found)], atol=1e-13)
    assert exact == sorted(exact)
    assert 2**255 - 2**20 < exact[-1] < 2**255  # nothing is left over, nothing too much


def test_known_probabilities_of_small_deviations() -> None:
    half = discrete_normal(0.5), table(discrete_normal, 0.5)
    expected = 1 / (1 + 2 * math.exp(-2) + 2 * math.exp(-8) + 2 * math.exp(-18))
    assert half[1].exact[0] / 2**255 == pytest.approx(expected, rel=1e-13)
    assert table(rounded_normal, 1.0).exact[0] / 2**255 == pytest.approx(0.38292492254802624)
    assert table(rounded_normal, 0.25).exact[0] / 2**255 == pytest.approx(0.9544997361036416)


def test_the_boundaries_hold_to_more_digits_than_floats_have() -> None:
    mpmath = pytest.importorskip("mpmath")
    with mpmath.workprec(400):
        for deviation in (0.3, 12.0, 300.0):
            exact = table(rounded_normal, deviation).exact
            for k in (0, 1, len(exact) // 2, len(exact) - 3):
                truth = mpmath.erf((k + mpmath.mpf(0.5)) / (deviation * mpmath.sqrt(2)))
                assert abs(mpmath.mpf(exact[k]) / 2**255 - truth) < mpmath.mpf(2) ** -132
        weights = [mpmath.exp(-mpmath.mpf(k * k) / 288) for k in range(400)]
        total = weights[0] + 2 * sum(weights[1:])
        exact = table(discrete_normal, 12.0).exact
        for k in (0, 1, 30, 100):
            truth = (weights[0] + 2 * sum(weights[1 : k + 1])) / total
            assert abs(mpmath.mpf(exact[k]) / 2**255 - truth) < mpmath.mpf(2) ** -132


@BOTH
@pytest.mark.parametrize("deviation", [0.3, 1.0, 6.5])
def test_frequencies_are_the_probabilities(make: Make, deviation: float) -> None:
    count = 400_000
    drawn = make(deviation)(seeded_source(7), count)
    weights = slow_twin(make, deviation)
    two_sided = np.concatenate([weights[:0:-1] / 2, weights[:1], weights[1:] / 2])
    reach = len(weights) - 1
    seen = np.bincount(drawn + reach, minlength=2 * reach + 1)
    often = two_sided * count > 10
    expected = two_sided[often] * count
    chi = ((seen[often] - expected) ** 2 / expected).sum()
    assert chi < often.sum() + 5 * math.sqrt(2 * often.sum())
    assert seen[~often].sum() <= 20 + 10 * two_sided[~often].sum() * count


@BOTH
def test_moments_of_fine_noise(make: Make) -> None:
    deviation, count = 2.0**12, 1_000_000
    drawn = make(deviation)(seeded_source(8), count) / deviation
    assert abs(drawn.mean()) < 5 / math.sqrt(count)
    assert abs((drawn**2).mean() - 1) < 5 * math.sqrt(2 / count)
    assert abs((drawn**4).mean() - 3) < 5 * math.sqrt(96 / count)
    assert abs(np.corrcoef(drawn[:-1], drawn[1:])[0, 1]) < 5 / math.sqrt(count)
    assert np.max(drawn) > 4 and np.min(drawn) < -4


def given(bits: int, sign: int, further: int = 0) -> Source:
    """One word of 63 bits and a sign, then three further ones."""
    mask = 2**64 - 1
    words = [2 * bits + sign, *(further >> shift & mask for shift in (0, 64, 128))]

    def take(n: int) -> np.ndarray:
        return np.array([words.pop(0) for _ in range(n)], np.uint64)

    return Source(take)


@BOTH
@pytest.mark.parametrize("k", [0, 1, 50, 400, 1000])
def test_further_bits_decide_at_a_boundary(make: Make, k: int) -> None:
    sampler, exact = make(100.0), table(make, 100.0).exact
    bits, rest = exact[k] >> 192, exact[k] % 2**192
    assert sampler(given(bits, 0, rest - 1), 1) == [k]
    assert sampler(given(bits, 0, rest), 1) == [k + 1]
    assert sampler(given(bits, 1, rest - 1), 1) == [-k]
    if k < 1000:  # there, others share the 63 bits
        assert sampler(given(bits - 1, 0), 1) == [k]
        assert sampler(given(bits + 1, 1), 1) == [-k - 1]


def test_a_first_guess_is_right_or_left_open() -> None:
    of = table(rounded_normal, 2.0**10)
    bits = np.random.default_rng(0).integers(2**63, size=100_000, dtype=np.uint64)
    bits[:2000] = np.repeat(of.first[:1000], 2) - np.tile(np.array([0, 1], np.uint64), 1000)
    guess = of.guess[(bits >> np.uint64(63 - lattice._INDEX)).astype(int)]
    truth = np.searchsorted(of.first, bits, side="right")
    assert (guess[guess >= 0] == truth[guess >= 0]).all()
    assert (guess >= 0).mean() > 0.9


@BOTH
def test_a_flipped_sign_bit_flips_the_number(make: Make) -> None:
    words = seeded_source(9).words(5000)
    plus = make(3.0)(Source(lambda n: words[:n]), 5000)
    minus = make(3.0)(Source(lambda n: words[:n] ^ np.uint64(1)), 5000)
    assert (plus == -minus).all() and (plus != 0).any()


def test_chunks_have_numbers_of_their_own(monkeypatch: pytest.MonkeyPatch) -> None:
    whole = rounded_normal(2.0**14)(seeded_source(10), 1000)
    monkeypatch.setattr(lattice, "_CHUNK", 300)
    parts = rounded_normal(2.0**14)(seeded_source(10), 1000)
    assert (whole == parts).all() and len(np.unique(parts)) > 950


@BOTH
def test_no_numbers_are_none(make: Make) -> None:
    drawn = make(5.0)(secure_source(), 0)
    assert drawn.shape == (0,) and drawn.dtype == np.int32


def test_the_farthest_number_is_within_the_reach() -> None:
    sampler = rounded_normal(100.0)
    assert 1350 <= sampler(given(2**63 - 1, 0, 2**192 - 2**100), 1)[0] <= 1352


@BOTH
@pytest.mark.parametrize("deviation", [0.0, -1.0, 0.2, 2.0**17.1, math.inf, math.nan])
def test_a_deviation_out_of_range_is_refused(make: Make, deviation: float) -> None:
    with pytest.raises(UserError, match="the noise's deviation: expected 1/4 to"):
        make(deviation)


def test_whole_numbers_plus_rounded_noise_are_the_rounded_sum() -> None:
    """The law that carries the Gaussian mechanism's accounting over: x + round(N) = round(x + N)."""
    deviation, x = 0.8, 3
    weights = slow_twin(rounded_normal, deviation)
    for j in range(-2, 9):
        by_noise = weights[abs(j - x)] / (1 if j == x else 2)
        ends = [math.erf((j + half - x) / (deviation * math.sqrt(2))) for half in (-0.5, 0.5)]
        assert by_noise == pytest.approx((ends[1] - ends[0]) / 2, abs=1e-15)
