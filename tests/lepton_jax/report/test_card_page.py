"""The privacy card's page: it stands alone, warns first, and says what the file says."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec
import pytest

from lepton_jax.checks import UserError
from lepton_jax.privacy import card as cards
from lepton_jax.privacy.card import Card
from lepton_jax.privacy.terms import Terms
from lepton_jax.report import report
from lepton_jax.report.card import PAGE, Shown, card_page, read_card

MakeRun = Callable[..., Path]
HOSTILE = "<script>alert('1')</script>"


def make_card(audits: tuple[dict[str, Any], ...] = (), **changes: Any) -> Card:
    fields: dict[str, Any] = {
        "unit": "client",
        "adjacency": "add-remove",
        "mechanism": "gaussian",
        "noise_multiplier": 1.25,
        "clip_norm": 0.75,
        "sampler": "poisson",
        "sampling_rate": 0.0625,
        "delta": 1e-6,
        "budget": 4.0,
        "accountant": "pld",
        "accountant_version": "dp-accounting 0.6.0",
        "randomness": "secure",
        "trust": f"the server {HOSTILE}",
        "covers": ("the model after each round",),
        "not_private": ("training loss of each round",),
    }
    terms = Terms(**{**fields, **changes})
    return Card(
        format=1,
        stamps=cards.stamps(terms),
        model=cards.Subject(
            run="tests",
            kind="simulate",
            architecture="resnet8",
            data="digits",
            library="lepton-jax 0",
            config_sha256="ab" * 32,
            params_sha256="cd" * 32,
            intended_use="digits",
            not_intended="people",
        ),
        guarantee=cards.guarantee(terms, 2.34567, 1234),
        making=cards.making(terms),
        accounting=cards.Accounting(accountant="pld", version="dp-accounting 0.6.0"),
        trust=cards.trust(terms),
        ledger=cards.Evidence(head="ef" * 32, public_key="01" * 32),
        audits=audits,
        utility=cards.Utility(
            test_accuracy=0.8125,
            test_examples=160,
            regions=(
                cards.RegionUtility(region="north", clients=6, examples=9, accuracy=0.625),
                cards.RegionUtility(region=HOSTILE, clients=4, examples=0, accuracy=None),
                cards.RegionUtility(region="withheld", clients=5, examples=None, accuracy=None),
            ),
        ),
        hazards_not_addressed=cards.hazards(terms),
        not_private=terms.not_private,
    )


def write_card(folder: Path, card: Card) -> None:
    tree = {**msgspec.to_builtins(card), "sha256": "23" * 32, "signature": "45" * 64}
    (folder / "privacy_card.json").write_text(json.dumps(tree, indent=1) + "\n")


def test_the_page_says_what_the_card_says() -> None:
    card = make_card(audits=({"audit": "canaries", "epsilon_lower_bound": 0.4321, "passed": True},))
    text = card_page(Shown(card, "23" * 32))
    for said in (
        *("2.346", "1e-06", "1,234", "1.25", "0.75", "0.0625", "poisson", "add-remove"),
        *("dp-accounting 0.6.0", "central", "81.25%", "160 test images", "north", "62.50%"),
        *("canaries", "0.4321", "true", "23" * 32, "ef" * 32, "01" * 32, "ab" * 32, "cd" * 32),
        *("the model after each round", "training loss of each round", "with or without all of a"),
    ):
        assert said in text.replace("&#39;", "'"), said
    for hazard in card.hazards_not_addressed:
        assert hazard in text.replace("&#39;", "'")


def test_the_page_stands_alone_and_takes_text_for_text() -> None:
    text = card_page(Shown(make_card(), "23" * 32))
    assert "<script" not in text and "&lt;script" in text
    assert "default-src 'none'" in text and "http" not in text.replace("http-equiv", "")


def test_a_card_gives_the_same_page_every_time() -> None:
    assert card_page(Shown(make_card(), "a")) == card_page(Shown(make_card(), "a"))


def test_warnings_stand_before_any_figure() -> None:
    text = card_page(Shown(make_card(randomness="reproducible", hypothetical=True), "23" * 32))
    first = text.index('class="tiles"')
    for stamp in (cards.NOT_FOR_RELEASE, cards.HYPOTHETICAL):
        assert 0 < text.index(f'<p class="warning">{stamp}</p>') < first
    assert '<p class="warning">' not in card_page(Shown(make_card(), "23" * 32))


def test_every_hypothetical_epsilon_is_called_so() -> None:
    text = card_page(Shown(make_card(hypothetical=True), "23" * 32))
    assert ">Epsilon<" not in text and text.count(">Hypothetical epsilon<") == 2
    assert "2.346 (hypothetical)" in text


def test_secure_aggregation_tells_its_fractions() -> None:
    card = make_card(mechanism="distributed", dropouts=0.125, colluders=0.25)
    text = card_page(Shown(card, "23" * 32))
    for said in ("12.50% of a round", "25.00% of them", "distributed"):
        assert said in text


def test_a_report_of_a_run_with_a_card_writes_its_page_beside(
    make_run: MakeRun, tmp_path: Path
) -> None:
    folder = make_run()
    report([folder], tmp_path / "a" / "report.html")
    assert not (tmp_path / "a" / PAGE).exists()
    write_card(folder, make_card())
    report([folder], tmp_path / "b" / "report.html")
    shown = read_card(folder)
    assert shown is not None and shown.sha256 == "23" * 32
    assert (tmp_path / "b" / PAGE).read_text(encoding="utf-8") == card_page(shown)


@pytest.mark.parametrize("content", ["", "[]", "{}", "null", '{"sha256": 1, "signature": 2}'])
def test_a_damaged_card_is_named(tmp_path: Path, content: str) -> None:
    (tmp_path / "privacy_card.json").write_text(content)
    with pytest.raises(UserError, match=r"privacy_card\.json: expected a privacy card"):
        read_card(tmp_path)
