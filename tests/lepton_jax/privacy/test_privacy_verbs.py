"""`lepton privacy epsilon` and `noise`: the published figure, the answer's fields, one-line refusals."""

import json

import pytest

from lepton_jax import cli
from lepton_jax.privacy import accounting

ASKED = ("--sampling-rate", "0.01", "--steps", "1000", "--delta", "1e-5")


def lepton(monkeypatch: pytest.MonkeyPatch, *words: str) -> int:
    """Runs a verb; its exit code."""
    monkeypatch.setattr("sys.argv", ["lepton", "privacy", *words])
    try:
        cli.main()
    except SystemExit as end:
        return int(end.code or 0)
    return 0


def test_the_epsilon_of_a_replaced_client_is_told(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ("epsilon", *ASKED, "--noise-multiplier", "1.0", "--adjacency", "replace-one", "--json")
    assert lepton(monkeypatch, *words) == 0
    assert json.loads(capsys.readouterr().out) == {
        "epsilon": pytest.approx(2.8434, rel=1e-3),
        "noise_multiplier": 1.0,
        "sampling_rate": 0.01,
        "steps": 1000,
        "delta": 1e-5,
        "accountant": "pld",
        "adjacency": "replace-one",
    }


def test_the_noise_for_a_replaced_client_is_told_and_is_enough(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ("noise", *ASKED, "--epsilon", "2.0", "--adjacency", "replace-one", "--json")
    assert lepton(monkeypatch, *words) == 0
    told = json.loads(capsys.readouterr().out)
    assert told.pop("epsilon") == 2.0
    assert told["adjacency"] == "replace-one"
    assert 1.99 < accounting.epsilon(**told) <= 2.0


def test_two_neighbours_differ_by_one_client_more_unless_told_otherwise(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ("epsilon", *ASKED, "--noise-multiplier", "1.0", "--accountant", "rdp", "--json")
    assert lepton(monkeypatch, *words) == 0
    told = json.loads(capsys.readouterr().out)
    assert told["adjacency"] == "add-remove"
    assert told["epsilon"] == pytest.approx(2.1014, abs=1e-3)


@pytest.mark.parametrize("verb", [("epsilon", "--noise-multiplier"), ("noise", "--epsilon")])
def test_what_rdp_cannot_account_for_is_refused_in_one_line(
    verb: tuple[str, str], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    words = (verb[0], *ASKED, verb[1], "1", "--accountant", "rdp", "--adjacency", "replace-one")
    assert lepton(monkeypatch, *words) == 2
    told = capsys.readouterr()
    assert told.out == ""
    assert told.err.startswith("lepton: adjacency: expected add-remove for Poisson sampling")
    assert told.err.count("\n") == 1
