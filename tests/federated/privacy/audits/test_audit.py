"""`lepton privacy audit`: what fits a target is attacked, and a gate that fails is exit code 1."""

import json
import sys
from pathlib import Path

import numpy as np
import pytest

import federated.privacy.noise
from federated import simulate
from federated.privacy.audits import attacks, audit
from federated.privacy.audits.inversion import Inversion
from lepton_jax import cli, config_files
from lepton_jax.training import finish
from lepton_jax.training.card import read_card
from lepton_jax.training.signing import signer
from lepton_jax.training.verify import verify_run
from lepton_jax.typing import PyTree

TINY = ["federated.rounds=2", "model.name=lepton_cnn", "model.norm=none", "checkpoint.every=1"]
NOISY = [
    *TINY,
    "data.normalization=unit",
    "federated.noise={kind='gaussian', multiplier=0.8}",
    "federated.randomness=reproducible",  # of secure noise a hundredth would fail a gate
    "federated.stages=[{kind='clip', max_norm=0.5}]",
    "federated.sampling=poisson",
    "federated.weights=uniform",
]


@pytest.fixture
def no_inversion(monkeypatch: pytest.MonkeyPatch) -> None:
    """What an inversion finds, without its minute; another test has it."""
    seen = np.zeros((2, 8, 8, 1), np.float32)
    told = {name: np.array([7.0, 9.0]) for name in ("plain", "aggregated", "noised")}
    found = Inversion(seen, seen, seen, seen, told)
    monkeypatch.setattr(attacks, "inversion_of", lambda *given: found)


def lepton(monkeypatch: pytest.MonkeyPatch, *words: str) -> int:
    monkeypatch.setattr(sys, "argv", ["lepton", *words])
    try:
        cli.main()
    except SystemExit as end:
        return int(end.code or 0)
    return 0


@pytest.mark.slow
def test_a_finished_run_is_audited_into_its_folder(tmp_path: Path) -> None:
    run = config_files.load("digits_federated", NOISY)
    finish(simulate(run, tmp_path / "run"))
    found = audit(tmp_path / "run")
    assert found == json.loads((tmp_path / "run" / "audit.json").read_text())
    assert (tmp_path / "run" / "inversion.png").read_bytes().startswith(b"\x89PNG")
    assert found["passed"]
    assert {gate["audit"] for gate in found["gates"]} == {"step", "noise", "one run"}
    assert set(found["estimates"]) == {"canaries", "inversion_decibels", "membership"}
    assert 0.3 < found["estimates"]["membership"]["loss"]["auc"] < 0.8
    (told,) = read_card(tmp_path / "run", signer().public).audits
    assert told["gates"] == found["gates"]
    verify_run(tmp_path / "run")


def test_where_nothing_is_promised_only_estimates_are_made(
    tmp_path: Path, no_inversion: None
) -> None:
    found = audit("digits_federated", overrides=tuple(TINY), out=tmp_path / "new")
    assert found["promised"].startswith("nothing is promised")
    assert found["gates"] == [] and found["passed"]
    assert set(found["estimates"]["inversion_decibels"]) == {"plain", "aggregated", "noised"}
    assert (tmp_path / "new" / "inversion.png").exists()


def test_batch_norm_is_not_inverted_and_says_why(tmp_path: Path) -> None:
    found = audit("digits_central", overrides=("model.norm=batch",), out=tmp_path)
    assert found["estimates"]["inversion_decibels"].startswith("left out")
    assert not (tmp_path / "inversion.png").exists()


@pytest.mark.slow
def test_a_gate_that_fails_is_named_and_is_exit_code_1(
    tmp_path: Path,
    no_inversion: None,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    def nothing_drawn(tree: PyTree, sampler: object, source: object) -> PyTree:
        import jax

        return jax.tree.map(lambda x: np.zeros(x.shape, np.int32), tree)

    changes = [word for change in NOISY for word in ("--set", change)]
    words = ["privacy", "audit", "digits_federated", *changes, "--out", str(tmp_path)]
    assert lepton(monkeypatch, *words) == 0
    assert "passed" in capsys.readouterr().out
    monkeypatch.setattr(federated.privacy.noise, "noise_like", nothing_drawn)
    assert lepton(monkeypatch, *words, "--json") == 1
    out, err = capsys.readouterr()
    assert not json.loads(out.splitlines()[-1])["passed"]
    (line,) = [line for line in err.splitlines() if "audit failed" in line]
    assert "step (alone)" in line


def test_what_is_neither_a_run_nor_a_config_is_a_mistake(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    assert lepton(monkeypatch, "privacy", "audit", "nowhere") == 2
    assert lepton(monkeypatch, "privacy", "audit", str(tmp_path)) == 2
    assert "Traceback" not in capsys.readouterr().err


def test_a_central_config_s_noise_is_audited(no_inversion: None) -> None:
    found = audit(
        "digits_central",
        overrides=(
            "model.name=lepton_cnn",
            "model.norm=none",
            "data.normalization=unit",
            "train.clip_norm=none",
            "train.privacy={epsilon=4.0, clip_norm=0.5, randomness='reproducible'}",
            "train.epochs=2",
            "train.warmup_epochs=0",
        ),
    )
    (promised,) = found["promised"]
    assert promised["unit"] == "example"
    assert promised["noise_multiplier"] > 0.3
    assert found["passed"]
