"""A signed manifest beside each phone model: which bytes it has, of which run, made by what.

*Guarantee*: without the signing key (see `lepton_jax.training.signing`) nobody makes a file that
`verify` takes for one of an export. Not covered: whoever has the key may sign what they like, and an
older export of the same run, signed as well, may be put in the place of a newer one.

| folder                                        | `verify`  |
|-----------------------------------------------|-----------|
| no phone model and no manifest                | UserError |
| a model without a manifest, or the other way  | UserError |
| a byte more, fewer or other, in either        | UserError |
| signed by another key, or for another file    | UserError |
| of another run than the folder's              | UserError |
"""

import hashlib
from collections.abc import Mapping
from pathlib import Path
from typing import Literal, NoReturn

import msgspec

from lepton_jax import untrusted
from lepton_jax.checks import UserError
from lepton_jax.training import chain, signing

SUFFIX = ".json"
FORMAT: Literal[1] = 1
_DOMAIN = b"lepton-jax phone model 1\n"  # no other signature of the key is one of a manifest
_RESULT = "result.json"
_MANIFEST_BYTES = 2**20
_AGAIN = "run `lepton export` again"
Fact = str | int | float | bool | None


class Manifest(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What was signed of a phone model.

    Attributes:
      format: of the manifest.
      file: the model's name.
      bytes: its size.
      sha256: of its content.
      facts: further figures, such as `run`, `params_sha256` and versions.
      public_key: whose signature it is, in hex.
    """

    format: Literal[1]
    file: str
    bytes: int
    sha256: str
    facts: dict[str, Fact]
    public_key: str


class _Signed(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    manifest: Manifest
    signature: str


def manifest_name(file: str) -> str:
    """What the manifest of a file is called: `int8.tflite.json`."""
    return f"{file}{SUFFIX}"


def sign(file: str, content: bytes, facts: Mapping[str, Fact]) -> bytes:
    """The manifest of a phone model; the same arguments and key give the same bytes.

    Args:
      file: its name, without a folder.
      content: of the file.
      facts: what else is to be signed; `params_sha256` is compared with the run's.

    Returns:
      What is to be written as `manifest_name(file)`.

    Raises:
      UserError: the key can't be used, or the extra `privacy` isn't installed.
      ValueError: there is a NaN or an infinity among the facts.
    """
    key = signing.signer()
    sha256 = hashlib.sha256(content).hexdigest()
    said = Manifest(FORMAT, file, len(content), sha256, dict(facts), key.public.hex())
    return _text(_Signed(said, key.sign(_message(said)).hex()))


def verify(folder: Path, *, public_key: bytes | None = None) -> tuple[Manifest, ...]:
    """Compares all phone models of a folder with their manifests; *Guarantee* as the module's.

    Args:
      folder: of a run, or any with `.tflite` files.
      public_key: whose signatures are right, 32 bytes; None: this user's.

    Returns:
      The manifests, by file name.

    Raises:
      UserError: it names the first file that is not as it was written, signed and exported here.
    """
    try:
        names = {path.name for path in folder.iterdir()}
    except OSError as error:
        raise UserError(str(folder), "a run folder", error.strerror or error) from error
    models = {name for name in names if name.endswith(".tflite")}
    models |= {name.removesuffix(SUFFIX) for name in names if name.endswith(f".tflite{SUFFIX}")}
    if not models:
        raise UserError(str(folder), "phone models", "none", "run `lepton export`")
    params = _params(folder)
    return tuple(_verified(folder / name, public_key, params)[0] for name in sorted(models))


def read_verified(path: Path, *, public_key: bytes | None = None) -> bytes:
    """A phone model's content, compared with the manifest beside it before anything opens it.

    Args:
      path: of the .tflite file.
      public_key: as of `verify`.

    Raises:
      UserError: as `verify`.
    """
    return _verified(path, public_key, _params(path.parent))[1]


def _verified(path: Path, public_key: bytes | None, params: str | None) -> tuple[Manifest, bytes]:
    key = signing.public_key() if public_key is None else public_key
    if key is None:
        expected, got = "this user's key, to verify by", "none on this machine"
        raise UserError(str(path), expected, got, "give the one it was signed by as --public-key")
    said = _read(path.with_name(manifest_name(path.name)), key)
    if said.file != path.name:
        _refuse(path, f"a manifest of {path.name}", f"one of {said.file}")
    if params is not None and said.facts.get("params_sha256", params) != params:
        got = f"one of {str(said.facts['params_sha256'])[:12]}"
        _refuse(path, f"a model of this run's parameters {params[:12]}", got)
    content = untrusted.read_bytes(path, said.bytes, "the phone model of its manifest")
    if len(content) != said.bytes:
        _refuse(path, f"{said.bytes:,} bytes as its manifest says", f"{len(content):,}")
    found = hashlib.sha256(content).hexdigest()
    if found != said.sha256:
        _refuse(path, f"the SHA-256 of its manifest, {said.sha256[:12]}", found[:12])
    return said, content


def _read(path: Path, key: bytes) -> Manifest:
    raw = untrusted.read_bytes(path, _MANIFEST_BYTES, "the manifest of a phone model")
    try:
        signed = msgspec.json.decode(raw, type=_Signed)
        as_written = raw == _text(signed) and 0 <= signed.manifest.bytes < 2**31
    except (ValueError, RecursionError) as error:  # msgspec's errors are ValueErrors
        raise UserError(str(path), "a manifest as it was written", error, _AGAIN) from error
    if not as_written:
        _refuse(path, "a manifest as it was written", "an edited one")
    said = signed.manifest
    if said.public_key != key.hex():
        expected, got = f"the key {key.hex()[:16]}", f"the unknown key {said.public_key[:16]}"
        raise UserError(str(path), expected, got, "give the right one as --public-key")
    try:
        signature = bytes.fromhex(signed.signature)
    except ValueError:
        signature = b""
    if signature.hex() != signed.signature or not signing.verify_signature(
        key, signature, _message(said)
    ):
        _refuse(path, f"a signature of the key {key.hex()[:16]}", "another one")
    return said


def _params(folder: Path) -> str | None:
    """The fingerprint of the run's parameters; None where the folder is none of a run."""
    path = folder / _RESULT
    if not path.exists():
        return None
    found = untrusted.read_json(path)
    params = found.get("params_sha256") if isinstance(found, dict) else None
    if not isinstance(params, str):
        _refuse(path, "the fingerprint `params_sha256`", "none")
    return params


def _message(said: Manifest) -> bytes:
    return _DOMAIN + chain.canonical(msgspec.to_builtins(said)).encode()


def _text(signed: _Signed) -> bytes:
    tree = msgspec.to_builtins(signed)
    return f"{chain.canonical(tree)}\n".encode()


def _refuse(where: Path, expected: str, got: str) -> NoReturn:
    raise UserError(str(where), expected, got, _AGAIN)
