"""Signatures of this user: an Ed25519 key on this machine (Bernstein et al., 2012), made at its first use.

*Guarantee*: who doesn't have the key can't make a signature that it verifies. The key lies in a file
that only this user may read, so whatever runs as this user can sign: a signature tells of tampering
by others and of accidents, not of the user.

| key file                           | `signer`           | `public_key` |
|------------------------------------|--------------------|--------------|
| missing                            | makes it           | None         |
| other than 32 bytes                | UserError          | UserError    |
| others of the machine may read it  | UserError          | UserError    |
| made by two processes at once      | one key for both   | that key     |
"""

import os
import secrets
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import platformdirs

from lepton_jax.checks import UserError

PUBLIC_BYTES = 32
_PRIVATE_BYTES = 32
_FILE = "signing.key"


class Signer(NamedTuple):
    """A key to sign with.

    Attributes:
      public: what its signatures are verified by, 32 bytes.
      sign: message -> signature, 64 bytes; the same for the same message.
    """

    public: bytes
    sign: Callable[[bytes], bytes]


def key_folder() -> Path:
    """Where this user's key is kept: `LEPTON_KEY_DIR`, or the system's place for users' data."""
    chosen = os.environ.get("LEPTON_KEY_DIR")
    if chosen:
        return Path(chosen).expanduser()
    return platformdirs.user_data_path("lepton-jax") / "keys"


def signer() -> Signer:
    """The key of this user, made where there is none; *Guarantee* and edge cases as the module's.

    Raises:
      UserError: the key can't be written or read, is damaged or open to others, or the extra
        `privacy` isn't installed.
    """
    ed25519 = _ed25519()
    path = key_folder() / _FILE
    raw = _read(path)
    if raw is None:
        _make(path)
        raw = _read(path)
    if raw is None:
        raise _unusable(path, "nothing")
    key = ed25519.Ed25519PrivateKey.from_private_bytes(raw)
    return Signer(key.public_key().public_bytes_raw(), key.sign)


def public_key() -> bytes | None:
    """What this user's signatures are verified by; None where there is no key yet.

    Raises:
      UserError: as `signer`.
    """
    raw = _read(key_folder() / _FILE)
    if raw is None:
        return None
    return _ed25519().Ed25519PrivateKey.from_private_bytes(raw).public_key().public_bytes_raw()


def verify_signature(public: bytes, signature: bytes, message: bytes) -> bool:
    """Whether a message was signed by the key with this public part.

    Args:
      public: 32 bytes; of any other length, or no point of the curve, nothing was signed by it.
      signature: 64 bytes.
      message: any bytes.

    Raises:
      UserError: the extra `privacy` isn't installed.
    """
    ed25519 = _ed25519()
    from cryptography.exceptions import InvalidSignature

    try:
        ed25519.Ed25519PublicKey.from_public_bytes(public).verify(signature, message)
    except (InvalidSignature, ValueError):
        return False
    return True


def _read(path: Path) -> bytes | None:
    try:
        with path.open("rb") as file:
            mode = os.fstat(file.fileno()).st_mode & 0o777
            raw = file.read(_PRIVATE_BYTES + 1)
    except FileNotFoundError:
        return None
    except OSError as error:
        raise _unusable(path, error.strerror or "an error") from error
    if mode & 0o077:
        expected, got = "a key that only its user may read", f"mode {mode:o}"
        raise UserError(str(path), expected, got, f"chmod 600 {path}")
    if len(raw) != _PRIVATE_BYTES:
        remedy = "restore it, or remove it: what it signed then verifies by --public-key alone"
        raise UserError(str(path), f"a key of {_PRIVATE_BYTES} bytes", "a damaged one", remedy)
    return raw


def _make(path: Path) -> None:
    """Writes a key under another name and links it: it is never seen half, and the first one stays."""
    temporary = path.with_name(f".{path.name}.{secrets.token_hex(8)}")
    try:
        path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        try:
            with open(descriptor, "wb") as file:
                file.write(secrets.token_bytes(_PRIVATE_BYTES))
                file.flush()
                os.fsync(file.fileno())
            os.link(temporary, path)
        finally:
            temporary.unlink()
        _sync(path.parent)
    except FileExistsError:
        return  # another process was first
    except OSError as error:
        raise _unusable(path, error.strerror or "an error") from error


def _sync(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _unusable(path: Path, got: str) -> UserError:
    return UserError(str(path), "a file to keep a key in", got, "set LEPTON_KEY_DIR to a folder")


def _ed25519() -> Any:
    try:
        from cryptography.hazmat.primitives.asymmetric import ed25519
    except ImportError:
        expected, got = "the extra `privacy`", "no cryptography here"
        raise UserError("signatures", expected, got, "pip install 'lepton-jax[privacy]'") from None
    return ed25519
