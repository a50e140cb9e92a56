"""Whatever a .tflite file holds, asking it is safe, and none but the one exported verifies."""

import gc
import hashlib
import json
import random
import struct
from collections.abc import Callable
from pathlib import Path

import pytest

from lepton_jax.checks import UserError
from lepton_jax.export import open_model, tables
from lepton_jax.export.inspection import inspect
from lepton_jax.export.manifest import manifest_name, sign, verify
from lepton_jax.export.metadata import Metadata, describe
from lepton_jax.export.outline import read_outline
from tests.lepton_jax.export.tiny_model import images, tiny

ABOUT = Metadata(
    "pets", "d", "1", "a", "MIT", ("a", "b", "c"), {"de": ("x", "y", "z")}, {"c.md": "#"}
)


@pytest.fixture(scope="module")
def model() -> bytes:
    return describe(tiny(), ABOUT)


def test_a_model_tells_what_is_in_it(model: bytes, tmp_path: Path) -> None:
    (tmp_path / "m.tflite").write_bytes(model)
    told = inspect(tmp_path / "m.tflite")
    assert json.loads(json.dumps(told)) == told
    assert told["bytes"] == len(model) and told["sha256"] == hashlib.sha256(model).hexdigest()
    assert told["signatures"] == {
        "classify": {
            "inputs": [{"name": "image", "dtype": "uint8", "shape": [1, 8, 8, 3]}],
            "outputs": [{"name": "probabilities", "dtype": "float32", "shape": [1, 3]}],
        }
    }
    assert told["ops"] == {"CAST": 1, "FULLY_CONNECTED": 1, "SOFTMAX": 1}
    assert told["tensors"] == 5 and told["weight_bytes"] == 4 * 3 * 8 * 8 * 3
    assert told["metadata"]["name"] == "pets" and told["metadata"]["locales"] == ["de"]
    assert list(told["files"]) == ["labels.txt", "labels_de.txt", "c.md"]
    assert list(told["notes"]) == ["TFLITE_METADATA"]


def test_a_model_without_metadata_tells_the_rest(tmp_path: Path) -> None:
    (tmp_path / "m.tflite").write_bytes(tiny())
    assert inspect(tmp_path / "m.tflite")["metadata"] is None


def test_the_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"none\.tflite: expected a \.tflite file, got nothing"):
        inspect(tmp_path / "none.tflite")
    (tmp_path / "m.tflite").write_bytes(b"x" * 100)
    with pytest.raises(UserError, match=r"m\.tflite: expected a sound \.tflite file"):
        inspect(tmp_path / "m.tflite")


def test_tables_that_are_shared_are_not_all_visited(monkeypatch: pytest.MonkeyPatch) -> None:
    """60,000 subgraphs that are one, of 60,000 tensors that are one: 3.6 billion, in 480 kB."""
    many = 60_000
    # root offset, identifier; the model's list of fields (subgraphs alone) and the model
    head = struct.pack("<I4s", 20, b"TFL3") + struct.pack("<HHHHH", 10, 8, 0, 0, 4) + bytes(2)
    start = len(head)
    content = head + struct.pack("<iI", start - 8, 4)
    graph = start + 8 + 4 + 4 * many + 8
    content += struct.pack("<I", many)
    content += b"".join(struct.pack("<I", graph - start - 12 - 4 * i) for i in range(many))
    content += struct.pack("<HHHH", 6, 8, 4, 0)  # a subgraph's list of fields: tensors alone
    content += struct.pack("<iI", 8, 4) + struct.pack("<I", many)
    tensor = graph + 12 + 4 * many + 4
    content += b"".join(struct.pack("<I", tensor - graph - 12 - 4 * i) for i in range(many))
    content += struct.pack("<HHi", 4, 4, 4)
    # A twentieth: every step is type-checked here, and costs thirty times what it does elsewhere.
    monkeypatch.setattr(tables, "VISITS", 50_000)
    with pytest.raises(UserError, match="more in it than its size can hold"):
        read_outline(content)


def changed(model: bytes, rng: random.Random) -> bytes:
    """A model with bits flipped, cut off, spliced with itself, or with more behind it."""
    kind, at = rng.randrange(5), rng.randrange(len(model))
    if kind == 0:
        return model[:at]
    if kind == 1:
        return model + rng.randbytes(rng.choice((1, 100)))
    if kind == 2:
        start, length = rng.randrange(len(model)), rng.choice((4, 64, 500))
        return model[:at] + model[start : start + length] + model[at:]
    content = bytearray(model)
    for _ in range(rng.choice((1, 3, 30))):
        at = rng.randrange(len(model) - 4)
        if kind == 3:
            content[at] ^= 1 << rng.randrange(8)
        else:
            content[at : at + 4] = rng.choice((b"\xff" * 4, bytes(4), b"\xff\xff\xff\x7f"))
    return bytes(content)


def survive(seeds: range, model: bytes, folder: Path, *, opened: int) -> dict[str, int]:
    """Takes changed models through all that reads them; how often each of it took one.

    Only one in `opened` goes to the interpreter, which starts a process each time.
    """
    path = folder / "m.tflite"
    (folder / manifest_name(path.name)).write_bytes(sign(path.name, model, {}))
    outcomes = {"verified": 0, "inspected": 0, "opened": 0}
    for seed in seeds:
        content = changed(model, random.Random(seed))
        if content == model:
            continue
        path.write_bytes(content)
        work: dict[str, Callable[[], object]] = {
            "verified": lambda: verify(folder),
            "inspected": lambda: inspect(path),
            "opened": lambda: open_model(path)(images()),
        }
        for name in list(work)[: 2 if seed % opened else 3]:
            try:
                work[name]()
                outcomes[name] += 1
            except UserError as error:
                assert "\n" not in str(error) and "m.tflite" in str(error)
    gc.collect()
    return outcomes


def test_changed_models_leave_us_alive_and_none_verifies(model: bytes, tmp_path: Path) -> None:
    outcomes = survive(range(1, 26), model, tmp_path, opened=26)  # none: each takes seconds
    assert outcomes["verified"] == 0 and 0 < outcomes["inspected"] < 25


@pytest.mark.slow
def test_1000_changed_models_leave_us_alive_and_none_verifies(model: bytes, tmp_path: Path) -> None:
    outcomes = survive(range(1000), model, tmp_path, opened=1)
    assert outcomes["verified"] == 0
    assert 0 < outcomes["inspected"] < 1000 and 0 < outcomes["opened"] < 1000
