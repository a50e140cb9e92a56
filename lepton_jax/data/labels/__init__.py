"""The classes' names by locale: those that come along, and the user's own."""

import tomllib
from collections.abc import Sequence
from importlib.resources import files

from lepton_jax.checks import UserError, suggestion
from lepton_jax.config import Data

_FILES = {"digits": "digits.toml", "mnist": "digits.toml", "cifar10": "cifar10.toml"}


def labels(
    config: Data, classes: Sequence[str], locales: Sequence[str] = ()
) -> dict[str, tuple[str, ...]]:
    """The classes' names in each locale, for people; a user's own stand in place of those shipped.

    Args:
      config: which data; its `labels` are the user's own.
      classes: the class names of the data, in the order of the labels.
      locales: those wanted, in the order wanted; none: all there are.

    Returns:
      K names by locale; empty where none are wanted and there are none.

    Raises:
      UserError: the user's lists are longer or shorter than the classes, or a locale that is wanted
        has no labels.

    >>> labels(Data(), [str(digit) for digit in range(10)], ["de", "fr"])["de"][:3]
    ('null', 'eins', 'zwei')
    """
    for locale, names in config.labels.items():
        if len(names) != len(classes):
            expected = f"{len(classes)} labels, one for each class of {config.name}"
            remedy = f"name them in the order {', '.join(classes[:3])} ..."
            raise UserError(f"data.labels.{locale}", expected, len(names), remedy)
    found = {**shipped(config.name, classes), **config.labels}
    for locale in locales:
        if locale not in found:
            there = ", ".join(found) or "none"
            remedy = suggestion(locale, found, f"add them as data.labels.{locale}")
            raise UserError(
                "export.about.locales", f"locales with labels ({there})", locale, remedy
            )
    return {locale: found[locale] for locale in locales or found}


def shipped(name: str, classes: Sequence[str]) -> dict[str, tuple[str, ...]]:
    """Those that come along for a data set; none where its classes are others.

    Args:
      name: of the data set.
      classes: its class names.
    """
    if name not in _FILES:
        return {}
    content = tomllib.loads((files(__package__) / _FILES[name]).read_text(encoding="utf-8"))
    if content["classes"] != list(classes):
        return {}
    return {locale: tuple(names) for locale, names in content["labels"].items()}
