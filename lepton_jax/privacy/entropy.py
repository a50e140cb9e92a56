"""Random bits that nobody can guess: the operating system's entropy, stretched by AES.

JAX's generators are made for repeating an experiment: a key holds 64 bits of which a seed fills 32,
and whoever knows or guesses the seed takes the noise away again. What privacy rests on comes from
here: AES-256 in counter mode under a key from `os.urandom`, which is kept nowhere.

*Guarantee.* To whoever doesn't know the key, the words can't be told from independent uniform ones
by any feasible computation, as far as AES-256 is a pseudorandom permutation: after the 2^28 blocks
at most that a key serves for, the advantage is below 2^-73 besides that. It says nothing about a
machine that was taken over, or whose operating system has no entropy.

| edge                                      | result                                     |
|-------------------------------------------|--------------------------------------------|
| n 0                                       | no words; `bernoulli`: no booleans         |
| the process forked                        | each goes on with a key of its own         |
| `bernoulli`'s rate 0; rate 1              | all False; all True                        |
| a rate below 2^-11                        | that rate, less up to 2^-64                |
| rate NaN, negative or above 1             | UserError                                  |
"""

import os
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Bool, UInt64

from lepton_jax.checks import UserError

Words = UInt64[np.ndarray, "n"]

_KEY_BYTES = 2**32  # of a key's stream, after which another key takes over


class Source(NamedTuple):
    """Where random bits come from; one thread at a time.

    Attributes:
      words: n -> n words of 64 independent uniform bits, other ones at each call.
    """

    words: Callable[[int], Words]


def secure_source() -> Source:
    """A source for noise and sampling that privacy rests on; the *Guarantee* is the module's.

    Raises:
      UserError: the extra `privacy` isn't installed.

    >>> source = secure_source()
    >>> bool((source.words(4) != source.words(4)).any())
    True
    """
    new_stream = _streams()
    stream: Any = None
    owner, left = -1, 0

    def words(n: int) -> Words:
        nonlocal stream, owner, left
        if owner != os.getpid() or left < 8 * n:  # a fork would share its parent's noise
            stream, owner, left = new_stream(), os.getpid(), max(_KEY_BYTES, 8 * n)
        left -= 8 * n
        return np.frombuffer(stream.update(bytes(8 * n)), np.uint64)

    return Source(words)


def seeded_source(*seed: int) -> Source:
    """A source that whoever knows the seed can repeat: for reproducible runs, never for privacy.

    Args:
      *seed: whole numbers of at least 0, such as a run's seed and a round.

    >>> seeded_source(1, 2).words(2).tolist() == seeded_source(1, 2).words(2).tolist()
    True
    """
    generator = np.random.PCG64(seed)
    return Source(lambda n: generator.random_raw(n))


def bernoulli(source: Source, rate: float, n: int) -> Bool[np.ndarray, "n"]:
    """Independent choices, each True with the probability `rate`.

    *Guarantee.* The probability is `rate` exactly, or for a rate below 2^-11 less by up to 2^-64:
    never more than what is accounted for.

    Args:
      source: of the bits, a word each.
      rate: in [0, 1].
      n: how many.

    Raises:
      UserError: the rate is out of range.

    >>> bernoulli(seeded_source(0), 1.0, 3).tolist()
    [True, True, True]
    """
    if not 0 <= rate <= 1:  # NaN compares false
        raise UserError("sampling rate", "a number in [0, 1]", rate)
    if rate == 1:
        return np.ones(n, bool)
    return source.words(n) < np.uint64(int(rate * 2.0**64))  # a power of two scales exactly


def _streams() -> Callable[[], Any]:
    """() -> an AES stream under a fresh key; no (key, counter) ever comes twice."""
    try:
        from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes
    except ImportError:
        raise UserError(
            "secure noise",
            "the extra `privacy`",
            "no cryptography here",
            "pip install 'lepton-jax[privacy]'",
        ) from None
    return lambda: Cipher(algorithms.AES(os.urandom(32)), modes.CTR(bytes(16))).encryptor()
