"""A phone model is taken for one of an export only where every byte of it was signed by the key."""

import hashlib
import json
from pathlib import Path

import pytest

from lepton_jax.checks import UserError
from lepton_jax.export.files import write_all
from lepton_jax.export.manifest import manifest_name, read_verified, sign, verify
from lepton_jax.training import signing

FACTS = {"run": "pets", "params_sha256": "a" * 64, "converter": "jax2tf", "int8": None}
MODEL = bytes(range(256)) * 4


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for name in ("float32.tflite", "int8.tflite"):
        content = MODEL + name.encode()
        write_all(tmp_path, {name: content, manifest_name(name): sign(name, content, FACTS)})
    (tmp_path / "result.json").write_text(json.dumps({"params_sha256": "a" * 64}))
    return tmp_path


def test_what_was_signed_verifies(folder: Path) -> None:
    first, second = verify(folder)
    assert (first.file, second.file) == ("float32.tflite", "int8.tflite")
    assert first.facts == FACTS and first.bytes == len(MODEL) + 14
    assert first.sha256 == hashlib.sha256((folder / first.file).read_bytes()).hexdigest()
    assert read_verified(folder / "int8.tflite") == (folder / "int8.tflite").read_bytes()


def test_the_same_is_signed_the_same_twice() -> None:
    assert sign("a.tflite", MODEL, FACTS) == sign("a.tflite", MODEL, FACTS)
    assert sign("a.tflite", MODEL, FACTS) != sign("b.tflite", MODEL, FACTS)


def test_others_verify_by_the_public_key(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    public = signing.public_key()
    monkeypatch.setenv("LEPTON_KEY_DIR", str(folder / "other"))
    with pytest.raises(UserError, match=r"this user's key, to verify by, got none .*--public-key"):
        verify(folder)
    assert len(verify(folder, public_key=public)) == 2
    signing.signer()
    with pytest.raises(
        UserError, match=r"float32\.tflite\.json: expected the key \w+, got the unknown"
    ):
        verify(folder)


@pytest.mark.parametrize("file", ["int8.tflite", "int8.tflite.json"])
@pytest.mark.parametrize("part", ["first", "last", "more", "less", "none", "empty"])
def test_another_byte_is_refused_and_the_file_named(file: str, part: str, folder: Path) -> None:
    path = folder / file
    content = path.read_bytes()
    path.write_bytes(
        {
            "first": bytes([content[0] ^ 1]) + content[1:],
            "last": content[:-1] + bytes([content[-1] ^ 1]),
            "more": content + b"\n",
            "less": content[:-1],
            "none": content,
            "empty": b"",
        }[part]
    )
    if part == "none":
        path.unlink()
    with pytest.raises(UserError, match=r"int8\.tflite") as caught:
        verify(folder)
    assert "\n" not in str(caught.value)
    with pytest.raises(UserError, match=r"int8\.tflite"):
        read_verified(folder / "int8.tflite")


def test_models_may_not_change_places(folder: Path) -> None:
    for suffix in ("", ".json"):
        (folder / f"int8.tflite{suffix}").write_bytes(
            (folder / f"float32.tflite{suffix}").read_bytes()
        )
    with pytest.raises(UserError, match=r"int8\.tflite: expected a manifest of int8\.tflite, got"):
        verify(folder)


def test_a_model_of_another_run_is_refused(folder: Path) -> None:
    (folder / "result.json").write_text(json.dumps({"params_sha256": "b" * 64}))
    with pytest.raises(
        UserError, match=r"a model of this run's parameters bbbb\w+, got one of aaaa"
    ):
        verify(folder)


@pytest.mark.parametrize("result", ["[]", "{}", '{"params_sha256": 7}', "{"])
def test_a_damaged_result_is_refused(result: str, folder: Path) -> None:
    (folder / "result.json").write_text(result)
    with pytest.raises(UserError, match=r"result\.json"):
        verify(folder)


def test_facts_can_not_be_edited(folder: Path) -> None:
    path = folder / "int8.tflite.json"
    path.write_text(path.read_text().replace("jax2tf", "litert"))
    with pytest.raises(UserError, match=r"int8\.tflite\.json: expected a signature of the key"):
        verify(folder)


@pytest.mark.parametrize("signature", ["", "zz" * 64, "ab" * 64, "AB" * 64, "ab" * 63])
def test_another_signature_is_refused(signature: str, folder: Path) -> None:
    path = folder / "int8.tflite.json"
    signed = json.loads(path.read_text())
    path.write_text(json.dumps({**signed, "signature": signature}, sort_keys=True) + "\n")
    with pytest.raises(UserError, match=r"expected a signature of the key \w+, got another one"):
        verify(folder)


def test_a_signature_of_something_else_is_none_of_a_manifest(folder: Path) -> None:
    path = folder / "int8.tflite.json"
    signed = json.loads(path.read_text())
    message = json.dumps(signed["manifest"], sort_keys=True).encode()
    signed["signature"] = signing.signer().sign(message).hex()
    path.write_text(json.dumps(signed, sort_keys=True) + "\n")
    with pytest.raises(UserError, match="expected a signature of the key"):
        verify(folder)


@pytest.mark.parametrize("content", [b"[" * 100_000, b"\xff", b"{}", b"null", b'{"manifest": 7}'])
def test_hostile_manifests_are_refused(content: bytes, folder: Path) -> None:
    (folder / "int8.tflite.json").write_bytes(content)
    with pytest.raises(UserError, match="a manifest as it was written"):
        verify(folder)


def test_a_folder_without_models_says_so(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="expected phone models, got none; run `lepton export`"):
        verify(tmp_path)
    with pytest.raises(UserError, match="expected a run folder"):
        verify(tmp_path / "none")
