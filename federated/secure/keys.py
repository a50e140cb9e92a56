"""Keys, seals and commitments, each good for one purpose in one round between one ordered pair.

Key agreement is X25519 (Langley et al., 2016, RFC 7748), derivation HKDF-SHA256 (Krawczyk and
Eronen, 2010, RFC 5869), encryption AES-256-GCM, and a commitment is a SHA-256 digest of a secret of
at least 256 random bits, which in the random oracle model hides it and binds to it.
"""

import hashlib
from collections.abc import Callable
from typing import Literal, NamedTuple

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey, X25519PublicKey
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

from federated.secure.messages import AbortError, Advert, Context, client_name

Random = Callable[[int], bytes]  # number of bytes -> that many random ones, as os.urandom
Purpose = Literal["graph", "pair mask", "self mask", "seal", "seed", "seed share", "key share"]

KEY_BYTES = 32
_PROTOCOL = b"lepton-jax secure aggregation 1"
_NONCE_BYTES = 12


class KeyPair(NamedTuple):
    """An X25519 key pair."""

    private: X25519PrivateKey
    public: bytes


def key_pair(private: bytes) -> KeyPair:
    """The key pair of 32 random bytes.

    >>> key_pair(bytes(32)).public.hex()[:16]
    '2fe57da347cd6243'
    """
    key = X25519PrivateKey.from_private_bytes(private)
    return KeyPair(key, key.public_key().public_bytes_raw())


def agree(mine: KeyPair, theirs: bytes, owner: int) -> bytes:
    """The 32 bytes that two key pairs have in common; not yet a key: `derive` one.

    Args:
      mine: a key pair.
      theirs: another's public key.
      owner: the client that the public key is said to be of.

    Raises:
      AbortError: the key is a point of small order, with which everybody agrees on 0.
    """
    try:
        return mine.private.exchange(X25519PublicKey.from_public_bytes(theirs))
    except ValueError:
        raise AbortError(
            client_name(owner), "public keys", "points of large order", "one of small order"
        ) from None


def label(context: Context, purpose: Purpose, *parts: int | bytes) -> bytes:
    """Says what a key or a digest is for; different arguments never give the same bytes.

    Each part has its length before it, so that none can borrow from the next.

    Args:
      context: the session and round.
      purpose: what for.
      parts: of whom: an ordered pair of clients, say.
    """
    return framed(_PROTOCOL, context.session, context.round, purpose.encode(), *parts)


def framed(*parts: int | bytes) -> bytes:
    """Parts in a row, each with its length before it: different parts never give the same bytes.

    >>> framed(b"ab", b"c") == framed(b"a", b"bc")
    False
    """
    raw = [x.to_bytes(8, "big") if isinstance(x, int) else x for x in parts]
    return b"".join(len(x).to_bytes(4, "big") + x for x in raw)


def derive(secret: bytes, context: Context, purpose: Purpose, first: int, second: int) -> bytes:
    """A key of 32 bytes for one purpose between two clients in one round.

    Args:
      secret: 32 bytes, agreed on or random.
      context: the session and round.
      purpose: what for.
      first: the lower client of a mask's pair, the dealer of a seal's.
      second: the other.
    """
    info = label(context, purpose, first, second)
    return HKDF(hashes.SHA256(), KEY_BYTES, salt=None, info=info).derive(secret)


def pair_mask(mine: KeyPair, me: int, theirs: Advert) -> bytes:
    """The key of the mask that two clients have in common, as either of them derives it.

    Raises:
      AbortError: as `agree`.
    """
    secret = agree(mine, theirs.mask_key, theirs.client)
    return derive(secret, theirs.context, "pair mask", *sorted((me, theirs.client)))


def commit(secret: bytes, context: Context, purpose: Purpose, *whose: int) -> bytes:
    """A digest of 32 bytes that tells nothing of a random secret but whether it is the same.

    Args:
      secret: at least 32 bytes, not to be guessed.
      context: the session and round.
      purpose: what the secret is.
      whose: its dealer, and for a share its holder.
    """
    return hashlib.sha256(label(context, purpose, *whose, secret)).digest()


def seal(shared: bytes, plain: bytes, dealer: Advert, holder: Advert, random: Random) -> bytes:
    """Encrypts what a dealer has for a holder.

    Both clients' public keys are bound in, those of the masks too: if the server has shown either
    side others, the seal doesn't open.

    Args:
      shared: what the two agreed on, by their keys for sealing.
      plain: what to encrypt.
      dealer: the sender's public keys.
      holder: the receiver's.
      random: for the nonce.
    """
    nonce = random(_NONCE_BYTES)
    key, bound = _bindings(shared, dealer, holder)
    return nonce + AESGCM(key).encrypt(nonce, plain, bound)


def unseal(shared: bytes, sealed: bytes, dealer: Advert, holder: Advert) -> bytes:
    """Decrypts what `seal` encrypted.

    Raises:
      AbortError: names the dealer: the bytes are not what it sealed for this holder in this round,
        or one of the two was shown public keys that are not the other's.
    """
    key, bound = _bindings(shared, dealer, holder)
    try:
        return AESGCM(key).decrypt(sealed[:_NONCE_BYTES], sealed[_NONCE_BYTES:], bound)
    except (InvalidTag, ValueError):
        raise AbortError(
            client_name(dealer.client),
            f"sealed shares for {client_name(holder.client)}",
            "what it sealed in this round under the public keys shown",
            "something else",
        ) from None


def _bindings(shared: bytes, dealer: Advert, holder: Advert) -> tuple[bytes, bytes]:
    context, pair = dealer.context, (dealer.client, holder.client)
    keys = (dealer.mask_key, dealer.seal_key, holder.mask_key, holder.seal_key)
    return derive(shared, context, "seal", *pair), label(context, "seal", *pair, *keys)
