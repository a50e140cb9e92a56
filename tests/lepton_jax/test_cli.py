"""The command line: help on one screen, one line for a mistake, one JSON object at the end."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from lepton_jax import cli


def lepton(monkeypatch: pytest.MonkeyPatch, *words: str) -> int:
    """Runs the command line in this process and returns its exit code."""
    monkeypatch.setattr(sys, "argv", ["lepton", *words])
    try:
        cli.main()
    except SystemExit as end:
        return int(end.code or 0)
    return 0


def test_help_needs_neither_jax_nor_tensorflow() -> None:
    code = (
        "import sys; sys.argv = ['lepton', '--help']; import lepton_jax.cli as c; c.main(); "
        "sys.exit(bool({'jax', 'tensorflow', 'numpy'} & set(sys.modules)))"
    )
    assert subprocess.run([sys.executable, "-c", code], stdout=subprocess.DEVNULL).returncode == 0


def test_help_fits_one_screen_and_shows_an_example(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert lepton(monkeypatch, "--help") == 0
    text = capsys.readouterr().out
    assert len(text.splitlines()) <= 24
    assert "Example: lepton" in text
    assert all(verb in text for verb in cli.VERBS)


@pytest.mark.parametrize("words", [["--help"], ["train", "--help"], ["models"]])
def test_nobody_reading_on_ends_it_in_silence(words: list[str]) -> None:
    command = [sys.executable, "-m", "lepton_jax.cli", *words]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        assert process.stdout is not None
        process.stdout.close()
        _, told = process.communicate()
    assert (process.returncode, told) == (141, b"")


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="no device that is always full")
def test_a_full_disk_under_the_output_is_one_line() -> None:
    command = [sys.executable, "-m", "lepton_jax.cli", "--help"]
    with Path("/dev/full").open("w") as full:
        ended = subprocess.run(command, stdout=full, stderr=subprocess.PIPE, text=True)
    assert ended.returncode == 2
    assert ended.stderr.startswith("lepton: stdout: ") and ended.stderr.count("\n") == 1


@pytest.mark.parametrize("verb", cli.VERBS)
def test_every_verbs_help_fits_one_screen_and_shows_an_example(
    verb: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    assert lepton(monkeypatch, *verb.split(), "--help") == 0
    text = capsys.readouterr().out
    assert len(text.splitlines()) <= 24
    assert f"Example: lepton {verb}" in text
    assert "--json" in text


@pytest.mark.parametrize(
    ("words", "named"),
    [
        (["trian"], "did you mean train"),
        (["data"], "data prepare"),
        (["train", "digits_centrl"], "did you mean digits_central"),
        (["train", "digits_central", "--set", "train.epohcs=1"], "did you mean epochs"),
        (["train", "digits_central", "--set", "model.name=resnet9"], "model.name"),
        (["train", "digits_central", "--set", "model.stem=imagenet"], "model.stem"),
        (["train", "digits_central", "--set", "data.name=digitz"], "data.name"),
        (["train", "digits_central", "--target-accuracy", "99"], "--target-accuracy"),
        (["simulate", "digits_federated", "--set", "federated.clients=5000"], "federated.clients"),
        (["evaluate", "nowhere"], "nowhere"),
        (["export", "nowhere"], "nowhere"),
        (["report", "nowhere"], "nowhere"),
        (["models", "resnet9"], "resnet9"),
        (["data", "prepare", "mnits"], "mnist"),
        (["train"], "CONFIG"),
        (
            ["privacy", "noise", "--epsilon", "1", "--sampling-rate", "1", "--steps", "1e3"],
            "--steps",
        ),
        (["privacy", "epsilon", "--accountant", "zcdp"], "Expected one of ('pld', 'rdp')"),
        (["models", "--delat", "1"], "--delat"),
    ],
)
def test_a_mistake_is_one_line_and_exit_code_2(
    words: list[str],
    named: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    assert lepton(monkeypatch, *words) == 2
    err = capsys.readouterr().err
    (line,) = [line for line in err.splitlines() if "lepton:" in line]
    assert named in line
    assert "Traceback" not in err and "╭" not in err
    assert not list(tmp_path.glob("runs/*/*.json*"))


def test_models_are_listed_with_their_parameters(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert lepton(monkeypatch, "models", "--json") == 0
    listed = json.loads(capsys.readouterr().out.splitlines()[-1])["models"]
    assert {"lepton_cnn", "keras_cnn", "fedavg_cnn", "resnet8"} <= {each["name"] for each in listed}
    assert lepton(monkeypatch, "models", "resnet8", "--json") == 0
    shown = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert shown["parameters"] == 78_186


def test_epsilon_and_noise_are_each_others_inverse(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    common = ("--sampling-rate", "0.01", "--steps", "1000", "--accountant", "rdp", "--json")
    assert lepton(monkeypatch, "privacy", "epsilon", "--noise-multiplier", "1", *common) == 0
    epsilon = json.loads(capsys.readouterr().out)["epsilon"]
    assert epsilon == pytest.approx(2.1014, abs=1e-3)
    assert lepton(monkeypatch, "privacy", "noise", "--epsilon", str(epsilon), *common) == 0
    assert json.loads(capsys.readouterr().out)["noise_multiplier"] == pytest.approx(1.0, abs=1e-2)


def test_what_each_client_holds_is_shown_by_counts_alone(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert lepton(monkeypatch, "data", "partition", "digits_federated", "--json") == 0
    clients = json.loads(capsys.readouterr().out.splitlines()[-1])["clients"]
    assert len(clients) == 30
    assert len({client["region"] for client in clients}) == 3
    assert len({client["examples"] for client in clients}) > 5
