"""Signatures: one key a user, kept from others, and nothing verifies but what it signed."""

import os
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from lepton_jax.checks import UserError
from lepton_jax.training import signing


@pytest.fixture
def keys(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    folder = tmp_path / "keys"
    monkeypatch.setenv("LEPTON_KEY_DIR", str(folder))
    return folder


def test_what_the_key_signed_verifies_and_nothing_else_does(keys: Path) -> None:
    mine = signing.signer()
    signature = mine.sign(b"message")
    assert signing.verify_signature(mine.public, signature, b"message")
    assert not signing.verify_signature(mine.public, signature, b"massage")
    assert not signing.verify_signature(mine.public, signature[:-1] + b"\0", b"message")
    for public in (b"", bytes(32), mine.public[:-1], bytes([mine.public[0] ^ 1]) + mine.public[1:]):
        assert not signing.verify_signature(public, signature, b"message")
    assert not signing.verify_signature(mine.public, b"", b"message")


def test_the_key_stays_the_same_and_only_its_user_may_read_it(keys: Path) -> None:
    assert signing.public_key() is None
    first = signing.signer()
    assert signing.signer().public == first.public == signing.public_key()
    (file,) = keys.iterdir()
    assert file.stat().st_mode & 0o777 == 0o600 and keys.stat().st_mode & 0o777 == 0o700
    assert len(file.read_bytes()) == 32


def test_a_key_that_others_may_read_is_refused(keys: Path) -> None:
    signing.signer()
    (keys / "signing.key").chmod(0o640)
    for read in (signing.signer, signing.public_key):
        with pytest.raises(UserError, match="only its user may read, got mode 640; chmod 600"):
            read()


@pytest.mark.parametrize("size", [0, 31, 33, 1000])
def test_a_damaged_key_is_refused_and_not_replaced(keys: Path, size: int) -> None:
    signing.signer()
    (keys / "signing.key").write_bytes(bytes(size))
    with pytest.raises(UserError, match="a key of 32 bytes, got a damaged one"):
        signing.signer()
    assert (keys / "signing.key").stat().st_size == size


def test_a_folder_that_cant_be_written_is_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").touch()
    monkeypatch.setenv("LEPTON_KEY_DIR", str(tmp_path / "file"))
    with pytest.raises(UserError, match="set LEPTON_KEY_DIR"):
        signing.signer()


def test_whoever_make_a_key_at_once_end_with_one(
    keys: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    together = threading.Barrier(8)

    def draw(size: int) -> bytes:
        together.wait()  # each has seen that there is no key
        return os.urandom(size)

    monkeypatch.setattr(signing.secrets, "token_bytes", draw)
    with ThreadPoolExecutor(8) as racers:
        found = {
            each.public for each in racers.map(lambda _: signing.signer(), range(8), timeout=60)
        }
    assert found == {signing.public_key()}
    assert [path.name for path in keys.iterdir()] == ["signing.key"]


def test_without_the_extra_one_line_says_what_to_install(
    keys: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "cryptography.hazmat.primitives.asymmetric", None)
    with pytest.raises(UserError, match="lepton-jax\\[privacy\\]"):
        signing.signer()
