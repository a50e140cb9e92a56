"""The privacy card: it says what the terms, the ledger and the figures say, and can't be edited unseen."""

import json
import os
from pathlib import Path
from typing import Any

import pytest

from lepton_jax.checks import UserError
from lepton_jax.privacy import accounting
from lepton_jax.privacy import card as cards
from lepton_jax.training import signing
from lepton_jax.training.card import (
    CARD,
    add_audit,
    card_sha256,
    check_marks,
    checkpoint_marks,
    read_card,
    terms_sha256,
    verify_card,
)
from lepton_jax.training.ledger import verify_ledger
from lepton_jax.training.runs import held
from tests.lepton_jax.training.private_run import (
    EVALUATION,
    begin,
    end,
    go_to,
    make_run,
    make_terms,
)


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing here asks what a disk keeps when the power fails."""
    monkeypatch.setattr(os, "fsync", lambda file: None)


def test_the_card_says_what_the_terms_and_the_ledger_say(tmp_path: Path) -> None:
    terms = make_run(tmp_path)
    entries = verify_ledger(tmp_path)
    card = verify_card(tmp_path, entries, signing.signer().public)
    told = card.guarantee
    assert told.epsilon == accounting.spending(terms)(3) and told.releases == 3
    assert (told.unit, told.adjacency, told.delta) == ("client", "add-remove", 1e-5)
    assert told.neighbours == "with or without all of a client's examples"
    assert told.covers == terms.covers and card.not_private == terms.not_private
    assert (card.making.noise_multiplier, card.making.clip_norm) == (1.5, 0.1)
    assert (card.making.sampler, card.making.sampling_rate) == ("poisson", 0.2)
    assert card.accounting.version == terms.accountant_version
    assert card.ledger.head == entries[-2].hash and entries[-1].kind == "end"
    assert entries[-1].body["card"] == card_sha256(card)
    assert entries[-1].body["params_sha256"] == card.model.params_sha256
    assert card.utility.test_accuracy == 0.75 and card.audits == ()
    north, south = card.utility.regions
    assert (north.region, north.accuracy, south.accuracy) == ("north", 0.8, None)


def test_the_file_carries_the_hash_that_the_ledger_holds(tmp_path: Path) -> None:
    terms = make_terms()
    ledger = begin(tmp_path, terms)
    go_to(tmp_path, terms, ledger, 3)
    sha256 = end(tmp_path, terms, ledger)
    assert json.loads((tmp_path / CARD).read_text())["sha256"] == sha256
    assert verify_ledger(tmp_path)[-1].body["card"] == sha256


def test_releases_of_killed_tries_are_on_the_card(tmp_path: Path) -> None:
    terms = make_terms()
    begin(tmp_path, terms).charge(1, 1)
    ledger = begin(tmp_path, terms, resume=True)
    go_to(tmp_path, terms, ledger, 3)
    end(tmp_path, terms, ledger)
    card = read_card(tmp_path, signing.signer().public)
    assert card.guarantee.releases == 4
    assert card.guarantee.epsilon == accounting.spending(terms)(4)


def test_a_run_without_regions_has_a_card(tmp_path: Path) -> None:
    terms = make_terms(unit="example", adjacency="replace-one", accountant="pld")
    ledger = begin(tmp_path, terms)
    ledger.charge(1, 1)
    end(tmp_path, terms, ledger, evaluation={"test": EVALUATION["test"]})
    card = read_card(tmp_path, signing.signer().public)
    assert card.utility.regions == ()
    assert card.guarantee.neighbours == "one training example replaced by any other"


# --- what has to be seen --------------------------------------------------------------------------


def test_reproducible_randomness_is_stamped_and_named_among_the_hazards() -> None:
    secure, open_ = make_terms(), make_terms(randomness="reproducible")
    assert cards.stamps(secure) == ()
    assert cards.stamps(open_) == ("reproducible randomness: not for release",)
    assert not any("seed" in hazard for hazard in cards.hazards(secure))
    assert any("seed" in hazard for hazard in cards.hazards(open_))


def test_a_hypothetical_epsilon_is_called_so() -> None:
    terms = make_terms(hypothetical=True)
    assert cards.guarantee(terms, 1.0, 3).epsilon_is == "hypothetical"
    assert cards.guarantee(make_terms(), 1.0, 3).epsilon_is == "proven"
    assert any("hypothetical" in stamp for stamp in cards.stamps(terms))
    assert any("larger" in hazard for hazard in cards.hazards(terms))


@pytest.mark.parametrize("epsilon", [float("inf"), float("nan")])
def test_an_epsilon_that_is_no_bound_is_called_unbounded(epsilon: float) -> None:
    assert cards.guarantee(make_terms(), epsilon, 1).epsilon == "unbounded"


@pytest.mark.parametrize(
    ("changes", "model", "hazard"),
    [
        ({}, "central", "The server, which sees each client's update"),
        ({"unit": "example"}, "central", "Whoever trains"),
        ({"mechanism": "local"}, "local", "Whoever trains"),
        (
            {"dropouts": 0.1, "colluders": 0.2},
            "central, sums by secure aggregation",
            "The server, which sees each round's sum",
        ),
        (
            {"mechanism": "distributed", "dropouts": 0.1, "colluders": 0.2},
            "distributed",
            "More dropouts or colluders",
        ),
    ],
)
def test_the_trust_model_and_its_hazard_follow_the_mechanism(
    changes: dict, model: str, hazard: str
) -> None:
    terms = make_terms(**changes)
    told = cards.trust(terms)
    assert told.model == model and told.statement == terms.trust
    assert any(each.startswith(hazard) for each in cards.hazards(terms))
    if "dropouts" in changes:
        assert told.secure_aggregation == cards.SecureAggregation(dropouts=0.1, colluders=0.2)
    else:
        assert told.secure_aggregation is None


# --- fingerprints ---------------------------------------------------------------------------------


def test_terms_have_one_fingerprint_each() -> None:
    assert terms_sha256(make_terms()) == terms_sha256(make_terms())
    others: list[dict[str, Any]] = [
        {"delta": 1e-6},
        {"covers": ()},
        {"hypothetical": True},
        {"bands": 2},
    ]
    found = {terms_sha256(make_terms(**each)) for each in [{}, *others]}
    assert len(found) == 5
    assert terms_sha256(make_terms(clip_norm=1)) == terms_sha256(make_terms(clip_norm=1.0))


def test_a_checkpoint_of_other_terms_or_of_a_newer_ledger_is_refused(tmp_path: Path) -> None:
    terms = make_terms()
    ledger = begin(tmp_path, terms)
    before = {path: path.read_bytes() for path in tmp_path.glob("ledger.*")}
    ledger.charge(1, 1)
    marks = checkpoint_marks(terms, ledger)
    check_marks(tmp_path, marks, terms, ledger)
    with pytest.raises(UserError, match="a checkpoint of the terms"):
        check_marks(tmp_path, marks, make_terms(delta=1e-6), ledger)
    with pytest.raises(UserError, match="got None"):
        check_marks(tmp_path, {}, terms, ledger)
    for path, content in before.items():  # an older copy, put back
        path.write_bytes(content)
    older = begin(tmp_path, terms, resume=True)
    with pytest.raises(UserError, match="a ledger without its entry"):
        check_marks(tmp_path, marks, terms, older)


# --- audits ---------------------------------------------------------------------------------------


def test_an_audit_is_added_and_the_ledger_holds_the_new_card(tmp_path: Path) -> None:
    make_run(tmp_path)
    for number in (1, 2):
        sha256 = add_audit(tmp_path, {"audit": "canaries", "number": number, "at": (1, 2)})
        entries = verify_ledger(tmp_path)
        card = verify_card(tmp_path, entries, signing.signer().public)
        assert entries[-1].kind == "card" and entries[-1].body == {"card": sha256}
        assert [each["number"] for each in card.audits] == list(range(1, number + 1))


def test_an_audit_of_a_run_without_a_card_leaves_nothing(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="privacy_card"):
        add_audit(tmp_path / "nowhere", {})
    assert not (tmp_path / "nowhere").exists()


def test_an_audit_waits_for_whoever_is_in_the_folder(tmp_path: Path) -> None:
    make_run(tmp_path)
    with held(tmp_path), pytest.raises(UserError, match="a run folder that is free"):
        add_audit(tmp_path, {})


def test_an_edited_card_gets_no_audit(tmp_path: Path) -> None:
    make_run(tmp_path)
    text = (tmp_path / CARD).read_text()
    (tmp_path / CARD).write_text(text.replace('"delta": 1e-05', '"delta": 1e-06'))
    with pytest.raises(UserError, match="got an edited one"):
        add_audit(tmp_path, {})
    assert verify_ledger(tmp_path)[-1].kind == "end"


# --- edits ----------------------------------------------------------------------------------------


def test_the_card_of_another_run_is_found(tmp_path: Path) -> None:
    for name in ("a", "b"):
        make_run(tmp_path / name)
    (tmp_path / "a" / CARD).write_bytes((tmp_path / "b" / CARD).read_bytes())
    with pytest.raises(UserError, match="of the ledger's last entry"):
        verify_card(tmp_path / "a", verify_ledger(tmp_path / "a"), signing.signer().public)


def test_a_card_that_another_key_signed_is_told_as_such(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    make_run(tmp_path / "run")
    monkeypatch.setenv("LEPTON_KEY_DIR", str(tmp_path / "another"))
    with pytest.raises(UserError, match="the unknown key"):
        read_card(tmp_path / "run", signing.signer().public)


@pytest.mark.parametrize("content", [b"", b"{}", b"[]", b"null", b"\xff", b"[" * 10**5])
def test_what_is_no_card_is_refused(tmp_path: Path, content: bytes) -> None:
    (tmp_path / CARD).write_bytes(content)
    with pytest.raises(UserError, match="a privacy card as it was written"):
        read_card(tmp_path, signing.signer().public)


@pytest.mark.parametrize("number", ["NaN", "Infinity", "1e999", "-1", '"0.75"', "[]"])
def test_a_card_with_what_is_no_figure_is_refused(tmp_path: Path, number: str) -> None:
    make_run(tmp_path)
    text = (tmp_path / CARD).read_text()
    (tmp_path / CARD).write_text(
        text.replace('"test_accuracy": 0.75', f'"test_accuracy": {number}')
    )
    with pytest.raises(UserError, match="a privacy card as it was written"):
        read_card(tmp_path, signing.signer().public)


def test_the_card_before_an_audit_is_not_taken_for_the_one_after(tmp_path: Path) -> None:
    make_run(tmp_path)
    first = (tmp_path / CARD).read_bytes()
    add_audit(tmp_path, {"audit": "x"})
    (tmp_path / CARD).write_bytes(first)  # the card before the audit, put back
    with pytest.raises(UserError, match="of the ledger's last entry"):
        verify_card(tmp_path, verify_ledger(tmp_path), signing.signer().public)
