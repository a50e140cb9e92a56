"""The card inside a phone model tells what the export measured, and nothing that changes with the file."""

from lepton_jax.config import Run
from lepton_jax.config.export import About, Export
from lepton_jax.export.metadata import model_card

FIGURES = {
    "params_sha256": "f" * 64,
    "input": {"dtype": "uint8", "shape": [1, 8, 8, 3]},
    "classes": ["cat", "dog", "mouse"],
    "test_images": 100,
    "calibration": {"split": "train", "images": 78},
    "variants": [
        {
            "name": "float32",
            "accuracy": 0.9,
            "jax_accuracy": 0.9,
            "top1_agreement": 1.0,
            "bytes": 7,
        },
        {"name": "int8", "accuracy": 0.89, "jax_accuracy": 0.9, "top1_agreement": 0.97, "bytes": 7},
    ],
}


def test_the_card_tells_what_the_figures_say() -> None:
    about = About(author="A. Author", licence="MIT", version="7")
    card = model_card(FIGURES, Run(name="pets", export=Export(about=about)), "train")
    for text in ("# pets", "MIT", "A. Author", "version: 7", "| int8 | 89.00% | 97.00% |", "78"):
        assert text in card
    assert "no noise was added" in card and len(card.encode()) < 1500


def test_the_card_names_the_privacy_card() -> None:
    card = model_card({**FIGURES, "privacy_card_sha256": "ab" * 32}, Run(), "simulate")
    assert "privacy_card.json" in card and "abab" in card and "clients" in card


def test_the_card_holds_no_size_of_the_file_that_it_is_in() -> None:
    other = {**FIGURES, "variants": [{**each, "bytes": 9} for each in FIGURES["variants"]]}  # type: ignore[attr-defined]
    assert model_card(other, Run(), "train") == model_card(FIGURES, Run(), "train")
