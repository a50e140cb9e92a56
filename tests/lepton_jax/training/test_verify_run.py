"""`lepton privacy verify`: a run as it was left passes, and one flipped bit anywhere does not."""

import json
import os
import random
import shutil
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from lepton_jax import cli, config
from lepton_jax.checks import UserError
from lepton_jax.privacy import accounting
from lepton_jax.privacy.terms import Terms
from lepton_jax.training import signing
from lepton_jax.training.card import CARD, add_audit, verify_card
from lepton_jax.training.chain import HEAD, LEDGER
from lepton_jax.training.ledger import verify_ledger
from lepton_jax.training.verify import public_key_of, verify_checkpoint, verify_run
from tests.lepton_jax.training.private_run import begin, end, go_to, make_run, make_terms


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing here asks what a disk keeps when the power fails."""
    monkeypatch.setattr(os, "fsync", lambda file: None)


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Terms]:
    """A finished run; copy before changing."""
    folder = tmp_path_factory.mktemp("finished") / "run"
    return folder, make_run(folder)


@pytest.fixture
def folder(finished: tuple[Path, Terms], tmp_path: Path) -> Path:
    return Path(shutil.copytree(finished[0], tmp_path / "run"))


def edit(path: Path, change: Callable[[Any], Any]) -> None:
    tree = json.loads(path.read_text())
    path.write_text(json.dumps(change(tree), indent=1) + "\n")


def test_a_run_as_it_was_left_passes(finished: tuple[Path, Terms]) -> None:
    folder, terms = finished
    found = verify_run(folder)
    assert (found.entries, found.releases, found.checkpoints) == (5, 3, 2)
    assert found.finished and found.stamps == ()
    assert found.epsilon == accounting.spending(terms)(3) and found.delta == terms.delta
    assert found.head == verify_ledger(folder)[-1].hash
    assert found.public_key == signing.signer().public.hex()


def test_a_run_that_goes_on_passes(tmp_path: Path) -> None:
    terms = make_terms(randomness="reproducible")
    ledger = begin(tmp_path, terms)
    assert verify_run(tmp_path).releases == 0
    go_to(tmp_path, terms, ledger, 2)
    ledger.charge(3, 1)  # and was killed before its record
    found = verify_run(tmp_path)
    assert not found.finished and found.releases == 3
    assert found.stamps == ("reproducible randomness: not for release",)


def test_a_run_that_was_audited_passes(folder: Path) -> None:
    add_audit(folder, {"audit": "canaries"})
    assert verify_run(folder).entries == 6


# --- flipped bits ---------------------------------------------------------------------------------


def _places(folder: Path) -> dict[str, list[Path]]:
    inside = [path for path in sorted(folder.glob("checkpoints/**/*")) if path.is_file()]
    return {
        "checkpoints": [path for path in inside if path.name != "manifest.json"],
        "manifests": [path for path in inside if path.name == "manifest.json"],
        "ledger": [folder / LEDGER],
        "head": [folder / HEAD],
        "card": [folder / CARD],
    }


def _checks(folder: Path, terms: Terms) -> dict[str, Callable[[Path], Any]]:
    """The part of `verify_run` that looks at each kind of file."""
    entries, public = verify_ledger(folder), signing.signer().public
    hashes = {each.hash for each in entries}

    def checkpoint(path: Path) -> None:
        inside = path.relative_to(folder / "checkpoints").parts[0]
        verify_checkpoint(folder / "checkpoints" / inside, terms, hashes)

    return {
        "checkpoints": checkpoint,
        "manifests": checkpoint,
        "ledger": lambda path: verify_ledger(folder),
        "head": lambda path: verify_ledger(folder),
        "card": lambda path: verify_card(folder, entries, public),
    }


def _flipped(path: Path, rng: random.Random) -> bytes:
    """Flips one bit of a file, and returns what it held."""
    before = path.read_bytes()
    spot = rng.randrange(len(before))
    path.write_bytes(
        before[:spot] + bytes([before[spot] ^ 1 << rng.randrange(8)]) + before[spot + 1 :]
    )
    return before


@pytest.mark.parametrize("count", [300, pytest.param(10_000, marks=pytest.mark.slow)])
def test_every_flipped_bit_is_found(finished: tuple[Path, Terms], folder: Path, count: int) -> None:
    checks, places = _checks(folder, finished[1]), _places(folder)
    rng = random.Random(count)
    for i in range(count):
        kind = list(places)[i % len(places)]
        path = rng.choice([each for each in places[kind] if each.stat().st_size])
        before = _flipped(path, rng)
        with pytest.raises(UserError):
            checks[kind](path)
        path.write_bytes(before)
    assert verify_run(folder).entries == 5


def test_the_whole_verification_looks_at_every_kind_of_file(folder: Path) -> None:
    rng = random.Random(0)
    for paths in _places(folder).values():
        for path in rng.sample(paths, min(3, len(paths))):
            if path.stat().st_size:
                before = _flipped(path, rng)
                with pytest.raises(UserError):
                    verify_run(folder)
                path.write_bytes(before)
    verify_run(folder)


# --- other damage ---------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "key", "value", "said"),
    [
        ("result.json", "epsilon", 0.01, "as on the card"),
        ("result.json", "delta", 1e-9, "as on the card"),
        ("result.json", "kind", "train", "as on the card"),
        ("result.json", "noise_multiplier", 15.0, "as on the card"),
        ("result.json", "randomness", "reproducible", "as on the card"),
        ("result.json", "hypothetical", True, "as on the card"),
        ("result.json", "not_private", [], "as on the card"),
        ("result.json", "test_accuracy", 0.99, "as on the card"),
        ("result.json", "params_sha256", "00" * 32, "fingerprint of the checkpoint"),
        ("result.json", "checkpoint", 2, "fingerprint of the checkpoint"),
    ],
)
def test_a_result_that_says_otherwise_is_found(
    folder: Path, name: str, key: str, value: Any, said: str
) -> None:
    edit(folder / name, lambda tree: {**tree, key: value})
    with pytest.raises(UserError, match=said):
        verify_run(folder)


def test_another_config_is_found(folder: Path) -> None:
    text = (folder / "config.toml").read_text()
    (folder / "config.toml").write_text(text.replace("seed = 0", "seed = 1", 1))
    with pytest.raises(UserError, match=r"config\.toml.* that the ledger began with"):
        verify_run(folder)


def _last_record(folder: Path, epsilon: float) -> None:
    *lines, last = (folder / "metrics.jsonl").read_text().splitlines()
    changed = json.dumps({**json.loads(last), "epsilon": epsilon})
    (folder / "metrics.jsonl").write_text("\n".join([*lines, changed]) + "\n")


@pytest.mark.parametrize("factor", [0.5, 0.99, 1.01, 2.0])
def test_an_epsilon_that_the_releases_do_not_give_is_found(
    finished: tuple[Path, Terms], folder: Path, factor: float
) -> None:
    _last_record(folder, factor * accounting.spending(finished[1])(3))
    with pytest.raises(UserError, match=r"metrics\.jsonl, line 3: expected (an )?epsilon"):
        verify_run(folder)


def test_too_large_an_epsilon_is_found_while_a_run_goes_on(tmp_path: Path) -> None:
    terms = make_terms()
    go_to(tmp_path, terms, begin(tmp_path, terms), 2)
    _last_record(tmp_path, 2 * accounting.spending(terms)(2))
    with pytest.raises(UserError, match=r"metrics\.jsonl, line 2: expected epsilon"):
        verify_run(tmp_path)


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("round", True),
        ("round", 2),
        ("round", {}),
        ("round", 4),
        ("epsilon", []),
        ("epsilon", -1.0),
    ],
    ids=str,
)
def test_records_that_no_run_writes_are_found(folder: Path, key: str, value: Any) -> None:
    first, *rest = (folder / "metrics.jsonl").read_text().splitlines()
    changed = json.dumps({**json.loads(first), key: value})
    (folder / "metrics.jsonl").write_text("\n".join([changed, *rest]) + "\n")
    with pytest.raises(UserError, match=r"metrics\.jsonl, line [12]: expected"):
        verify_run(folder)


def test_a_checkpoint_under_anothers_number_is_found(folder: Path) -> None:
    inside = folder / "checkpoints"
    (inside / "2").rename(inside / "1")
    with pytest.raises(UserError, match=r"checkpoints/1: expected checkpoint 1, got that of 2"):
        verify_run(folder)


def test_a_checkpoint_that_lost_its_manifest_is_found(folder: Path) -> None:
    (folder / "checkpoints" / "2" / "manifest.json").unlink()
    with pytest.raises(UserError, match=r"checkpoints/2: expected a finished checkpoint"):
        verify_run(folder)


@pytest.mark.parametrize("name", [LEDGER, HEAD, CARD])
def test_a_pipe_is_not_waited_for(folder: Path, name: str) -> None:
    (folder / name).unlink()
    os.mkfifo(folder / name)
    with pytest.raises(UserError, match="no ordinary file"):
        verify_run(folder)


def test_an_older_copy_of_ledger_and_head_is_found(tmp_path: Path) -> None:
    terms = make_terms()
    ledger = begin(tmp_path, terms)
    before = {path: path.read_bytes() for path in tmp_path.glob("ledger.*")}
    go_to(tmp_path, terms, ledger, 2)
    for path, content in before.items():
        path.write_bytes(content)
    with pytest.raises(UserError, match="the ledger that it was made with"):
        verify_run(tmp_path)
    shutil.rmtree(tmp_path / "checkpoints")
    with pytest.raises(UserError, match=r"metrics\.jsonl, line 1: expected a release"):
        verify_run(tmp_path)


def test_a_missing_card_is_found_with_and_without_a_result(folder: Path) -> None:
    (folder / CARD).unlink()
    for _ in range(2):
        with pytest.raises(UserError, match=r"privacy_card\.json"):
            verify_run(folder)
        (folder / "result.json").unlink(missing_ok=True)


@pytest.mark.parametrize(
    ("terms", "outcome", "said"),
    [
        ({}, {"epsilon": 0.1}, "as the ledger's releases give, got 0.1000"),
        ({"clip_norm": 0.2}, {}, "the terms that the ledger began with"),
        ({"covers": ()}, {}, "the terms that the ledger began with"),
        ({"trust": "nobody"}, {}, "the terms that the ledger began with"),
        ({"hypothetical": True}, {}, "the terms that the ledger began with"),
        ({}, {"run": config.Run(name="private", seed=3)}, "the config that the ledger began with"),
        ({}, {"params_sha256": "00" * 32}, "fingerprint of the checkpoint"),
    ],
)
def test_a_card_that_was_signed_and_is_wrong_is_found(
    tmp_path: Path, terms: dict[str, Any], outcome: dict[str, Any], said: str
) -> None:
    ledger = begin(tmp_path, make_terms())
    go_to(tmp_path, make_terms(), ledger, 3)
    end(tmp_path, make_terms(**terms), ledger, **outcome)
    with pytest.raises(UserError, match=said):
        verify_run(tmp_path)


def test_releases_charged_after_the_end_are_found(folder: Path) -> None:
    ledger = begin(folder, make_terms(), resume=True)
    ledger.charge(3, 1)
    with pytest.raises(UserError, match="expected the 4 releases of the ledger, got 3"):
        verify_run(folder)


def test_the_head_of_another_ledger_on_the_card_is_found(tmp_path: Path) -> None:
    terms = make_terms()
    for name in "ab":
        go_to(tmp_path / name, terms, begin(tmp_path / name, terms), 3)
    other, ledger = (begin(tmp_path / name, terms, resume=True) for name in "ba")
    end(tmp_path / "a", terms, ledger._replace(head=other.head))
    with pytest.raises(UserError, match="the head of this ledger"):
        verify_run(tmp_path / "a")


def test_checkpoints_of_another_run_with_other_terms_are_found(
    folder: Path, tmp_path: Path
) -> None:
    make_run(tmp_path / "other", delta=1e-6)
    shutil.rmtree(folder / "checkpoints")
    shutil.copytree(tmp_path / "other" / "checkpoints", folder / "checkpoints")
    with pytest.raises(UserError, match="a checkpoint of the terms"):
        verify_run(folder)


def test_a_run_without_a_ledger_is_told(folder: Path) -> None:
    for name in (LEDGER, HEAD):
        (folder / name).unlink()
    with pytest.raises(UserError, match=r"ledger\.jsonl"):
        verify_run(folder)


def test_terms_that_are_none_are_told(tmp_path: Path) -> None:
    from lepton_jax import config_files
    from lepton_jax.training.ledger import open_ledger

    run = config_files.load("digits_central")
    (tmp_path / "config.toml").write_text(config_files.dumps(run))
    open_ledger(tmp_path, {"delta": 1e-5}, config_files.fingerprint(run), resume=False)
    with pytest.raises(UserError, match="line 1: expected the terms of a private run"):
        verify_run(tmp_path)


# --- the verb -------------------------------------------------------------------------------------


def lepton(monkeypatch: pytest.MonkeyPatch, *words: str) -> int:
    monkeypatch.setattr(sys, "argv", ["lepton", "privacy", "verify", *words])
    try:
        cli.main()
    except SystemExit as end:
        return int(end.code or 0)
    return 0


def test_the_verb_tells_what_it_verified(
    folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    found = verify_run(folder)
    assert lepton(monkeypatch, str(folder)) == 0
    text = capsys.readouterr().out
    for said in (f"epsilon {found.epsilon:.4f} at delta 1e-05", "3 releases", found.head):
        assert said in text
    assert lepton(monkeypatch, str(folder), "--json", "--public-key", found.public_key) == 0
    told = json.loads(capsys.readouterr().out)
    assert told == {"run": str(folder), **found._asdict(), "stamps": []}


def test_the_verb_ends_with_one_line_on_damage(
    folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    key = verify_run(folder).public_key
    (folder / HEAD).write_bytes(b"")
    assert lepton(monkeypatch, str(folder), "--json") == 2
    shown = capsys.readouterr()
    assert shown.out == "" and shown.err.count("\n") == 1 and HEAD in shown.err
    for bad in ("", "xy", key[:-2], key + "00"):
        assert lepton(monkeypatch, str(folder), "--public-key", bad) == 2
        assert "--public-key: expected 64 hex digits" in capsys.readouterr().err


def test_a_public_key_reads_back() -> None:
    public = signing.signer().public
    assert public_key_of(public.hex()) == public
