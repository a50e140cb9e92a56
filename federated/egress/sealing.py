"""A seal from one sender to one receiver, bound to what it is of.

As the authenticated mode of HPKE (Barnes et al., 2022, RFC 9180): X25519 between a key made for
this one seal and the receiver's, and between the sender's own and the receiver's; HKDF-SHA256 over
both secrets makes the key and nonce of AES-256-GCM. So a key is never used twice. The layout is
not HPKE's own: nothing but this library opens it.

*Guarantee.* Nobody without the receiver's private key learns more than the length, and nobody
without the sender's or the receiver's makes a seal that opens as the sender's. Whoever gets hold of
the receiver's private key later can open what was sealed before.
"""

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PublicKey
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

from federated.secure.keys import KEY_BYTES, KeyPair, Random, framed, key_pair

_PURPOSE = b"lepton-jax egress 1"
_NONCE_BYTES = 12


def public_key(private: bytes) -> bytes:
    """The public key of 32 random bytes."""
    return key_pair(private).public


def seal(plain: bytes, bound: bytes, sender: bytes, receiver: bytes, random: Random) -> bytes:
    """Encrypts for one receiver.

    Args:
      plain: what to encrypt.
      bound: what the seal is of; it must be the same when it is opened.
      sender: the sender's private key.
      receiver: the receiver's public key.
      random: number of bytes -> random bytes, for the key made for this seal.

    Returns:
      The one-time public key, and what was encrypted.

    Raises:
      ValueError: the receiver's public key is none, or a point of small order.

    >>> sealed = seal(b"sum", b"round 1", bytes(32), public_key(b"r" * 32), lambda n: b"o" * n)
    >>> unseal(sealed, b"round 1", public_key(bytes(32)), b"r" * 32)
    b'sum'
    """
    once, own = key_pair(random(KEY_BYTES)), key_pair(sender)
    secrets = _agree(once, receiver) + _agree(own, receiver)
    cipher, nonce = _derive(secrets, once.public, own.public, receiver, bound)
    return once.public + cipher.encrypt(nonce, plain, bound)


def unseal(sealed: bytes, bound: bytes, sender: bytes, receiver: bytes) -> bytes | None:
    """Decrypts what `seal` encrypted.

    Args:
      sealed: what `seal` returned.
      bound: as it was given to `seal`.
      sender: the sender's public key.
      receiver: the receiver's private key.

    Returns:
      What was encrypted; None where it is not what this sender sealed for this receiver and purpose.
    """
    once, own = sealed[:KEY_BYTES], key_pair(receiver)
    try:
        secrets = _agree(own, once) + _agree(own, sender)
        cipher, nonce = _derive(secrets, once, sender, own.public, bound)
        return cipher.decrypt(nonce, sealed[KEY_BYTES:], bound)
    except (InvalidTag, ValueError):
        return None


def _agree(mine: KeyPair, theirs: bytes) -> bytes:
    return mine.private.exchange(X25519PublicKey.from_public_bytes(theirs))


def _derive(secrets: bytes, *of: bytes) -> tuple[AESGCM, bytes]:
    info = framed(_PURPOSE, *of)
    both = HKDF(hashes.SHA256(), KEY_BYTES + _NONCE_BYTES, salt=None, info=info).derive(secrets)
    return AESGCM(both[:KEY_BYTES]), both[KEY_BYTES:]
