"""The digits' model and its two files, made once."""

import pytest

from tests.lepton_jax.export.web.digit_model import Digits, infer_file, make_digits, training_file

WORDS = {
    "en": ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine"),
    "de": ("null", "eins", "zwei", "drei", "vier", "fünf", "sechs", "sieben", "acht", "neun"),
    "ar": ("صفر", "واحد", "اثنان", "ثلاثة", "أربعة", "خمسة", "ستة", "سبعة", "ثمانية", "تسعة"),
}


@pytest.fixture(scope="package")
def digits() -> Digits:
    return make_digits()


@pytest.fixture(scope="package")
def infer(digits: Digits) -> bytes:
    return infer_file(digits.weights)


@pytest.fixture(scope="package")
def training(digits: Digits) -> bytes:
    return training_file(digits.weights)
