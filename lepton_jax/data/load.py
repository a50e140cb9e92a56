"""From a config to splits that are ready to train on."""

import math
from pathlib import Path

import numpy as np

from lepton_jax.checks import UserError
from lepton_jax.config import Data
from lepton_jax.data import digits, folder, tfds
from lepton_jax.data.decoded import Part, decoded
from lepton_jax.data.source import Source
from lepton_jax.data.splits import DatasetInfo, Examples, Splits


def load(config: Data) -> Splits:
    """Loads a data set, divides it and measures its training split.

    The first time it is decoded into the cache; after that it is only mapped. A test or validation
    split of the set's own is used as it is; what is missing is taken off the training split, at
    random by `split_seed`, first the test part, then the validation part.

    Args:
      config: which data, and how.

    Returns:
      Train, validation and test, and what they are called. Validation is empty where the set has
      none of its own and `validation_fraction` is 0.

    Raises:
      UserError: the data are missing, broken or unfit; one line that names the place.

    >>> splits = load(Data(name="digits", validation_fraction=0.0))
    >>> splits.train.images.shape, splits.test.images.shape, splits.info.classes[:3]
    ((1438, 8, 8, 1), (359, 8, 8, 1), ('0', '1', '2'))
    """
    source = _source(config)
    parts = decoded(
        source,
        image_size=config.image_size,
        channels=config.channels,
        seed=config.split_seed,
    )
    train, validation, test = _divide(parts, config)
    if len(np.unique(train.examples.labels)) < 2:
        raise UserError(_place(config), "at least 2 classes in the training split", "1")
    info = DatasetInfo(source.name, source.classes, source.regions, *_statistics(train, config))
    return Splits(train.examples, validation.examples, test.examples, info)


def _place(config: Data) -> str:
    return str(Path(config.path)) if config.name == "folder" and config.path else config.name


def _source(config: Data) -> Source:
    if config.name == "folder" and config.path is not None:
        return folder.source(config.path)
    if config.name == "digits":
        if config.path is not None:
            remedy = "remove it, or set data.name=folder"
            raise UserError("data.path", "none for the embedded digits", config.path, remedy)
        return digits.source()
    return tfds.source(config.name, config.path)


# --- dividing -------------------------------------------------------------------------------------


def _divide(parts: dict[str, Part], config: Data) -> tuple[Part, Part, Part]:
    """Train, validation, test. The stored training split is shuffled: its first rows are a sample."""
    rest, test, validation = parts["train"], parts.get("test"), parts.get("validation")
    if test is None:
        test, rest = _take_off(rest, "test_fraction", config.test_fraction)
    if validation is None:
        validation, rest = _take_off(rest, "validation_fraction", config.validation_fraction)
    return rest, validation, test


def _take_off(part: Part, key: str, fraction: float) -> tuple[Part, Part]:
    total = len(part.examples.labels)
    count = round(fraction * total)
    if fraction > 0 and not 0 < count < total:
        got = f"{fraction} of {total} examples"
        raise UserError(f"data.{key}", "a part that leaves examples on both sides", got)
    return _rows(part, slice(count)), _rows(part, slice(count, None))


def _rows(part: Part, rows: slice) -> Part:
    images, labels, regions = part.examples
    cut = Examples(images[rows], labels[rows], None if regions is None else regions[rows])
    return Part(cut, part.moments[rows])


# --- measuring ------------------------------------------------------------------------------------


def _statistics(part: Part, config: Data) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Each channel's mean and standard deviation, on [0, 1]; exact sums, so of any order."""
    height, width, channels = part.examples.images.shape[1:]
    if config.normalization == "unit":
        return (0.0,) * channels, (1.0,) * channels
    count = len(part.examples.labels) * height * width
    sums, squares = (part.moments.sum(axis=0)).tolist()
    means = [total / count for total in sums]
    variances = [square / count - mean**2 for square, mean in zip(squares, means, strict=True)]
    if min(variances) <= 0:
        channel = variances.index(min(variances))
        got = f"channel {channel} constant over the training split"
        remedy = "set data.normalization=unit"
        raise UserError("data.normalization", "pixels that vary, to standardize", got, remedy)
    return tuple(m / 255 for m in means), tuple(math.sqrt(v) / 255 for v in variances)
