"""The privacy card as a page: what privacy_card.json says, to be read by people."""

import json
from pathlib import Path
from typing import Any, NamedTuple

import msgspec

from lepton_jax.checks import UserError
from lepton_jax.privacy.card import Card
from lepton_jax.report import blocks, page
from lepton_jax.report.blocks import Block, Page, Points, Prose, Section, Table, Tile, Tiles

CARD, PAGE = "privacy_card.json", "privacy_card.html"


class Shown(NamedTuple):
    """A card and the hash that stands for it."""

    card: Card
    sha256: str


def read_card(folder: Path) -> Shown | None:
    """A run's card as it stands there, unverified; None where there is none.

    Raises:
      UserError: the file is damaged.
    """
    path = folder / CARD
    if not path.is_file():
        return None
    try:
        tree = json.loads(path.read_bytes())
        sha256 = str(tree.pop("sha256"))
        del tree["signature"]
        return Shown(msgspec.convert(tree, Card), sha256)
    except (ValueError, KeyError, AttributeError, TypeError, RecursionError) as error:
        raise UserError(str(path), "a privacy card", str(error), "restore the file") from error


def card_page(shown: Shown) -> str:
    """A card as a self-contained HTML document; the same card gives the same bytes.

    Args:
      shown: the card, and the hash by which the page names it.
    """
    card = shown.card
    sections = (
        _promise(card),
        _making(card),
        _trust(card),
        _utility(card),
        _audits(card),
        _limits(card),
        _model(card),
        _evidence(shown),
    )
    lead = f"What {card.model.run} reveals at most about {_whom(card)} it learned from."
    made = Page(f"Privacy card: {card.model.run}", lead, Tiles(_tiles(card)), sections, card.stamps)
    return page.render(made)


def epsilon_label(card: Card) -> str:
    """What the card's epsilon has to be called wherever it is shown."""
    return "Hypothetical epsilon" if card.guarantee.epsilon_is == "hypothetical" else "Epsilon"


def _whom(card: Card) -> str:
    return "each client" if card.guarantee.unit == "client" else "each training example"


def _tiles(card: Card) -> tuple[Tile, ...]:
    told, how = card.guarantee, card.making
    return (
        Tile(epsilon_label(card), _value(told.epsilon), f"for {_whom(card)}"),
        Tile("Delta", f"{told.delta:g}", "the chance that epsilon fails"),
        Tile("Releases", f"{told.releases:,}", "that epsilon covers"),
        Tile("Noise multiplier", f"{how.noise_multiplier:g}", f"{how.randomness} randomness"),
        Tile("Test accuracy", blocks.percent(card.utility.test_accuracy), "no part of the promise"),
    )


def _promise(card: Card) -> Section:
    told = card.guarantee
    said = (
        f"{told.definition}: {told.neighbours}, no outcome's probability changes by more than a "
        "factor of exp(epsilon), but for a probability of delta."
    )
    rows = (
        ("Protected unit", told.unit),
        ("Neighbours", f"{told.adjacency}: {told.neighbours}"),
        (epsilon_label(card), f"{_value(told.epsilon)} ({told.epsilon_is})"),
        ("Delta", f"{told.delta:g}"),
        ("Budget", _value(told.budget)),
        ("Releases charged", f"{told.releases:,}"),
        ("Accountant", f"{card.accounting.accountant}, {card.accounting.version}"),
    )
    covers = Points("What epsilon covers", told.covers)
    return _section("guarantee", "Guarantee", Prose(said), _facts("The claim", rows), covers)


def _making(card: Card) -> Section:
    rows = tuple(
        (name.replace("_", " ").capitalize(), _value(value))
        for name, value in msgspec.to_builtins(card.making).items()
        if value is not None
    )
    return _section("mechanism", "Mechanism", _facts("How it is kept", rows))


def _trust(card: Card) -> Section:
    rows: list[tuple[str, str]] = [("Trust model", card.trust.model)]
    secure = card.trust.secure_aggregation
    if secure is not None:
        rows += [
            ("May drop out", f"{blocks.percent(secure.dropouts)} of a round's clients"),
            ("May collude with the server", f"{blocks.percent(secure.colluders)} of them"),
        ]
    table = _facts("Who has to be trusted", tuple(rows))
    return _section("trust", "Trust", Prose(card.trust.statement), table)


def _utility(card: Card) -> Section:
    told = card.utility
    images = blocks.plural(told.test_examples, "test image")
    content: list[Block] = [
        Prose(
            f"Accuracy {blocks.percent(told.test_accuracy)} on {images}. These figures are measured "
            "on raw data: epsilon does not cover them."
        )
    ]
    if told.regions:
        rows = tuple(
            (
                each.region,
                f"{each.clients:,}",
                blocks.number(each.examples),
                blocks.rated(each.accuracy),
            )
            for each in told.regions
        )
        header = ("region", "clients", "examples", "accuracy")
        content.append(Table("How each region is served", header, rows))
    return _section("utility", "Utility", *content)


def _audits(card: Card) -> Section:
    if not card.audits:
        return _section(
            "audits", "Audits", Prose("None was made: lepton privacy audit makes some.")
        )
    tables = [
        _facts(f"Audit {number}", tuple((name, _value(each[name])) for name in each))
        for number, each in enumerate(card.audits, start=1)
    ]
    return _section("audits", "Audits", *tables)


def _limits(card: Card) -> Section:
    return _section(
        "limits",
        "What is not covered",
        Points("Hazards not addressed", card.hazards_not_addressed),
        Points("Not private, in the run folder", card.not_private),
    )


def _model(card: Card) -> Section:
    about = card.model
    rows = (
        ("Architecture", about.architecture),
        ("Trained on", f"{about.data}, by lepton {about.kind}"),
        ("Intended use", about.intended_use),
        ("Not intended", about.not_intended),
        ("Made by", about.library),
        ("SHA-256 of the config", about.config_sha256),
        ("SHA-256 of the parameters", about.params_sha256),
    )
    return _section("model", "Model", _facts("What the card is of", rows))


def _evidence(shown: Shown) -> Section:
    card = shown.card
    rows = (
        ("SHA-256 of the card", shown.sha256),
        ("Ledger's head, before its end", card.ledger.head),
        ("Public key", card.ledger.public_key),
    )
    said = (
        f"This page shows {CARD} and proves nothing itself: `lepton privacy verify` holds that file "
        "against the ledger, the checkpoints and the accountant."
    )
    return _section("evidence", "Evidence", Prose(said), _facts("To verify by", rows))


def _section(id: str, title: str, *content: Block) -> Section:
    return Section(id, title, content)


def _facts(caption: str, rows: tuple[tuple[str, str], ...]) -> Table:
    return Table(caption, ("what", "is"), rows, texts=2)


def _value(value: Any) -> str:
    if value is None:
        return "none"
    if isinstance(value, str):
        return value
    if isinstance(value, bool) or not isinstance(value, int | float):
        return json.dumps(value)
    return blocks.number(value)
