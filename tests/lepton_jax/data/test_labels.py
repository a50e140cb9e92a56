"""Names of the classes: one for each class in every locale, the user's before those that come along."""

from pathlib import Path

import pytest

from lepton_jax import config_files
from lepton_jax.checks import UserError
from lepton_jax.config import Data
from lepton_jax.config.export import About
from lepton_jax.config.locales import check_labels, check_locale
from lepton_jax.data.labels import labels, shipped

DIGITS = tuple(str(digit) for digit in range(10))
CIFAR10 = ["airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck"]
LOCALES = ["en", "zh", "de", "es", "fr", "ar", "hi", "pt", "ja"]


@pytest.mark.parametrize(
    ("name", "classes"), [("digits", DIGITS), ("mnist", DIGITS), ("cifar10", CIFAR10)]
)
def test_nine_locales_come_along(name: str, classes: list[str]) -> None:
    found = shipped(name, classes)
    assert list(found) == LOCALES
    check_labels(found)
    assert {len(names) for names in found.values()} == {10}
    assert len(set(found.values())) == 9


def test_what_comes_along_is_for_its_own_classes_alone() -> None:
    assert shipped("cifar10", CIFAR10[::-1]) == {}
    assert shipped("folder", DIGITS) == {}


def test_those_wanted_come_in_the_order_wanted() -> None:
    assert list(labels(Data(), DIGITS, ["zh", "de"])) == ["zh", "de"]
    assert list(labels(Data(), DIGITS)) == LOCALES


def test_the_users_own_stand_first() -> None:
    own = tuple("abcdefghij")
    found = labels(Data(labels={"de": own, "it": own}), DIGITS)
    assert found["de"] == found["it"] == own
    assert found["fr"][1] == "un"


def test_data_without_labels_have_none() -> None:
    assert labels(Data(name="folder", path="x"), ["cat", "dog"]) == {}


def test_a_locale_without_labels_is_named() -> None:
    expected = r"export\.about\.locales: expected locales with labels \(en, zh, .*\), got it; add"
    with pytest.raises(UserError, match=expected):
        labels(Data(), DIGITS, ["de", "it"])


def test_a_list_unlike_the_classes_is_named() -> None:
    expected = r"data\.labels\.de: expected 3 labels, one for each class of folder, got 2; name"
    with pytest.raises(UserError, match=expected):
        labels(Data(name="folder", path="x", labels={"de": ("a", "b")}), ["x", "y", "z"])


@pytest.mark.parametrize("tag", ["de", "pt-BR", "zh-Hant", "zh-Hant-TW", "es-419", "haw", "fil"])
def test_locales_that_there_are(tag: str) -> None:
    check_locale(tag)


UNKNOWN = ["", "xx", "qq-DE", "deu", "DE", "de-de", "de-QX", "zh-hant", "zh-Xxxx", "de_DE", "de-"]
TOO_MUCH = ["de-DE-1996", "en-US-u-nu-latn", "root", "und"]


@pytest.mark.parametrize("tag", UNKNOWN + TOO_MUCH)
def test_locales_that_there_are_not(tag: str) -> None:
    with pytest.raises(
        ValueError, match=r"^expected a language|^expected a (script|region)|^expected language"
    ):
        check_locale(tag)


@pytest.mark.parametrize(
    ("labels", "message"),
    [
        ({"de": ["a", "b"], "en": ["a"]}, "as many labels in 'en' as in 'de', 2, got 1"),
        ({"xx": ["a"]}, "a language of ISO 639 for a locale, got 'xx'"),
        ({"de": ["a", ""]}, "a label of one line, got '' for class 1 in 'de'"),
        ({"de": ["a", "b\nc"]}, "a label of one line, got 'b\\\\nc' for class 1"),
        ({"de": ["a", " b"]}, "a label of one line"),
        ({"de": ["a", "b\u2028c"]}, "a label of one line"),
        ({"de": ["a", "b\x07"]}, "a label of one line"),
        ({"de": ["a", "b", "a"]}, "a label of its own for each class, got 'a' twice in 'de'"),
    ],
)
def test_labels_that_no_app_can_show(labels: dict[str, list[str]], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        check_labels(labels)


def test_joiners_are_part_of_a_script() -> None:
    check_labels({"fa": ["می‌رود", "ab"]})


def test_bad_labels_are_refused_where_the_config_is_read(tmp_path: Path) -> None:
    path = tmp_path / "c.toml"
    path.write_text('name = "x"\n[data.labels]\nxx = ["a"]\n')
    with pytest.raises(
        UserError, match=r"c\.toml: data: expected a language of ISO 639 .* got 'xx'"
    ):
        config_files.load(path)
    path.write_text('name = "x"\n[export.about]\nlocales = ["de", "zz"]\n')
    with pytest.raises(UserError, match=r"c\.toml: export\.about: expected a language .* got 'zz'"):
        config_files.load(path)
    with pytest.raises(ValueError, match="language"):
        About(locales=("zz",))
