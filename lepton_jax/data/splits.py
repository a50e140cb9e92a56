"""The splits of an image data set, and what is in them."""

from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Int32, UInt8


class Examples(NamedTuple):
    """Labelled images.

    Attributes:
      images: [N,H,W,F] bytes; may be backed by a file, so index it rather than copy it.
      labels: [N] positions in `DatasetInfo.classes`.
      regions: [N] positions in `DatasetInfo.regions`; None where the data name none.
    """

    images: UInt8[np.ndarray, "N H W F"]
    labels: Int32[np.ndarray, "N"]
    regions: Int32[np.ndarray, "N"] | None


class DatasetInfo(NamedTuple):
    """What a data set calls things, and how its pixels are normalized.

    Attributes:
      name: the data set's name.
      classes: the K class names.
      regions: the region names; () where the data name none.
      mean: of each channel of the training split, pixels scaled to [0, 1].
      std: the same pixels' standard deviation.
    """

    name: str
    classes: tuple[str, ...]
    regions: tuple[str, ...]
    mean: tuple[float, ...]
    std: tuple[float, ...]


class Splits(NamedTuple):
    """A data set, divided; `validation` may hold no examples."""

    train: Examples
    validation: Examples
    test: Examples
    info: DatasetInfo


def describe(splits: Splits) -> dict[str, Any]:
    """Counts a data set's examples, by split, class and region.

    Returns:
      `name`, `image_shape` [H,W,F], `classes`, `regions`, and `splits`: for each of train, validation
      and test its `examples`, the counts `per_class` and, where there are regions, `per_region`.
    """
    info = splits.info
    parts = {"train": splits.train, "validation": splits.validation, "test": splits.test}
    return {
        "name": info.name,
        "image_shape": list(splits.train.images.shape[1:]),
        "classes": list(info.classes),
        "regions": list(info.regions),
        "splits": {name: _count(part, info) for name, part in parts.items()},
    }


def _count(examples: Examples, info: DatasetInfo) -> dict[str, Any]:
    counted: dict[str, Any] = {
        "examples": len(examples.labels),
        "per_class": _histogram(examples.labels, info.classes),
    }
    if examples.regions is not None:
        counted["per_region"] = _histogram(examples.regions, info.regions)
    return counted


def _histogram(positions: np.ndarray, names: tuple[str, ...]) -> dict[str, int]:
    counts = np.bincount(positions, minlength=len(names))
    return {name: int(count) for name, count in zip(names, counts, strict=True)}
