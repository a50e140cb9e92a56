"""`lepton export` and `lepton inspect` from end to end, on a federated run."""

import json
import sys
from pathlib import Path

import msgspec
import pytest

from federated import simulate
from lepton_jax import cli, config_files
from lepton_jax.export.metadata import Metadata, describe
from lepton_jax.export.web.page import BUNDLE
from lepton_jax.training import finish

SETTINGS = [
    "federated.rounds=30",
    "federated.client={kind='sgd', learning_rate=0.1}",
    "model={name='cnn', norm='group', blocks=[{filters=16, pool=2}, {filters=24}]}",
]
EVERY = "infer,train,evaluate,get_weights,set_weights"
FRAME = "export.interface.frame=[16, 16]"


def lepton(monkeypatch: pytest.MonkeyPatch, *words: object) -> int:
    monkeypatch.setattr(sys, "argv", ["lepton", *map(str, words)])
    try:
        cli.main()
    except SystemExit as end:
        return int(end.code or 0)
    return 0


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("runs") / "run"
    settings = config_files.load("digits_federated", SETTINGS)
    checkpoint = msgspec.structs.replace(settings.checkpoint, every=20)
    finish(simulate(msgspec.structs.replace(settings, checkpoint=checkpoint), folder))
    return folder


def test_regions_are_compared_and_files_verified(
    run: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ("export", run, "--quantize", "float32", "int8", "--signatures", "infer,train")
    assert lepton(monkeypatch, *words) == 0
    out = capsys.readouterr().out
    assert "worst region" in out
    assert "training.tflite trains on a phone: classify, infer, train" in out
    assert lepton(monkeypatch, "export", run, "--verify", "--json") == 0
    names = [each["file"] for each in json.loads(capsys.readouterr().out)["files"]]
    assert names == ["float32.tflite", "int8.tflite", "training.tflite"]
    assert lepton(monkeypatch, "inspect", run / "training.tflite") == 0
    out = capsys.readouterr().out
    assert "learning_rate float32 [1]" in out and "locales: en, zh, de" in out
    figures = json.loads((run / "export.json").read_text())
    for each in figures["variants"]:
        assert set(each["groups"]["regions"]) == {"africa", "asia", "europe"}


def test_what_a_file_says_of_itself_does_not_steer_the_terminal(
    run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    steering = "a\x1b]0;b\x07\nversion: 9"
    about = Metadata("pets", author=steering, classes=tuple(f"\x1b[2J{i}" for i in range(10)))
    path = tmp_path / "x.tflite"
    path.write_bytes(describe((run / "training.tflite").read_bytes(), about))
    assert lepton(monkeypatch, "inspect", path) == 0
    out = capsys.readouterr().out
    assert r"author: a\x1b]0;b\x07 version: 9" in out and r"classes: \x1b[2J0, " in out
    assert out.replace("\n", "").isprintable()


@pytest.mark.skipif(not BUNDLE.is_dir(), reason="the page is not built: make web")
def test_a_page_runs_what_was_exported(
    run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ("export", run, "--quantize", "float32", "--signatures", EVERY)
    assert lepton(monkeypatch, *words, "--web", tmp_path / "page") == 0
    assert "python3 -m http.server" in capsys.readouterr().out
    settings = json.loads((tmp_path / "page" / "settings.json").read_text())
    assert settings["training"]["file"] == "training.tflite"
    assert (tmp_path / "page" / "model.tflite").read_bytes() == (
        run / "float32.tflite"
    ).read_bytes()


@pytest.mark.parametrize(
    ("words", "named"),
    [
        (["--verify", "--public-key", "abcd"], "--public-key"),
        (["--quantize", "int8-qat"], "int8-qat"),
        (["--signatures", "infer,tain"], "export.signatures"),
        (["--set", "train.epochs=2"], "a key of export"),
        (["--set", "export.about.locales=['tlh-xx-1']"], "tlh"),
        (["--web", "page", "--set", "export.interface.output=top_k"], "export.interface.output"),
        (["--web", "page", "--set", "export.interface.input=float32"], "uint8, for a page"),
        (["--web", "page", "--set", "export.interface.batch=dynamic"], "1, for a page"),
        (["--web", "page", "--signatures", "infer,train"], "export.signatures"),
        (["--web", "page", "--signatures", EVERY, "--set", FRAME], "export.interface.frame"),
    ],
)
def test_a_mistake_is_one_line_and_changes_nothing(
    run: Path,
    words: list[str],
    named: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    before = {path.name: path.stat().st_mtime_ns for path in run.iterdir() if path.is_file()}
    assert lepton(monkeypatch, "export", run, *words) == 2
    (line,) = [line for line in capsys.readouterr().err.splitlines() if "lepton:" in line]
    assert named in line
    after = {path.name: path.stat().st_mtime_ns for path in run.iterdir() if path.is_file()}
    assert after == before
    assert not Path("page").exists()
