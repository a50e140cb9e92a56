"""Sources of random bits: uniform, never the same twice, exact choices."""

import os
import sys

import numpy as np
import pytest

from lepton_jax.checks import UserError
from lepton_jax.privacy.entropy import Source, bernoulli, secure_source, seeded_source


def fixed(*words: int) -> Source:
    """Gives these words, and no others."""
    left = list(words)

    def take(n: int) -> np.ndarray:
        return np.array([left.pop(0) for _ in range(n)], np.uint64)

    return Source(take)


def test_secure_words_are_uniform_bits() -> None:
    words = secure_source().words(2**16)
    assert words.dtype == np.uint64 and words.shape == (2**16,)
    bits = np.unpackbits(words.view(np.uint8)).reshape(-1, 64).mean(axis=0)
    assert np.abs(bits - 0.5).max() < 6 * 0.5 / 2**8
    counts = np.bincount(words.view(np.uint8), minlength=256)
    assert ((counts - 2048) ** 2 / 2048).sum() < 255 + 8 * np.sqrt(2 * 255)


def test_no_word_comes_twice_from_one_source_or_two() -> None:
    source = secure_source()
    drawn = [source.words(1000), source.words(1000), secure_source().words(1000)]
    assert len(np.unique(np.concatenate(drawn))) == 3000


def test_a_forked_process_has_words_of_its_own(monkeypatch: pytest.MonkeyPatch) -> None:
    keys: list[bytes] = []

    def entropy(n: int) -> bytes:
        keys.append(bytes([len(keys)]) * n)
        return keys[-1]

    monkeypatch.setattr(os, "urandom", entropy)
    source = secure_source()
    first = source.words(4)
    assert len(keys) == 1 and len(keys[0]) == 32
    monkeypatch.setattr(os, "getpid", lambda: -5)
    assert not (source.words(4) == first).any() and len(keys) == 2


def test_a_key_serves_for_so_many_bytes_and_no_more(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("lepton_jax.privacy.entropy._KEY_BYTES", 80)
    monkeypatch.setattr(os, "urandom", bytes)  # each key the same: so its stream begins anew
    source = secure_source()
    first = source.words(10)
    assert (source.words(10) == first).all()
    assert not (source.words(4) == source.words(4)).any()


def test_without_the_extra_it_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "cryptography.hazmat.primitives.ciphers", None)
    with pytest.raises(UserError, match=r"the extra `privacy`.*pip install"):
        secure_source()


def test_a_seeded_source_goes_on_and_repeats() -> None:
    source = seeded_source(3, 4)
    parts = np.concatenate([source.words(5), source.words(0), source.words(7)])
    assert (parts == seeded_source(3, 4).words(12)).all()
    assert not (parts == seeded_source(4, 3).words(12)).any()


@pytest.mark.parametrize("rate", [0.5, 0.25, 256 / 60000, 2.0**-60, 1 - 2.0**-53])
def test_the_rate_is_exact_to_the_last_word(rate: float) -> None:
    first_out = int(rate * 2**64)  # python's whole numbers and floats compare exactly
    assert rate >= 2.0**-53 or first_out == 2**4
    assert bernoulli(fixed(first_out - 1, first_out, 0), rate, 3).tolist() == [True, False, True]


def test_rates_of_zero_and_one_are_certain() -> None:
    assert not bernoulli(fixed(0, 0), 0.0, 2).any()
    assert bernoulli(fixed(), 1.0, 2).all()
    assert bernoulli(fixed(), 0.3, 0).shape == (0,)


@pytest.mark.parametrize("rate", [np.nan, -0.1, 1.5, np.inf])
def test_a_rate_out_of_range_is_refused(rate: float) -> None:
    with pytest.raises(UserError, match="sampling rate: expected a number in"):
        bernoulli(secure_source(), rate, 1)


def test_the_frequency_is_the_rate() -> None:
    drawn = bernoulli(seeded_source(1), 0.03, 200_000)
    assert abs(drawn.mean() - 0.03) < 5 * np.sqrt(0.03 * 0.97 / 200_000)
