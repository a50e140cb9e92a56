"""What every kind of data set offers before its images are decoded."""

from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

SPLITS = {
    **dict.fromkeys(("train", "training"), "train"),
    **dict.fromkeys(("validation", "val", "valid"), "validation"),
    **dict.fromkeys(("test", "testing"), "test"),
}
"""What data sets call their splits, in lower case, and what those are called here."""


class Record(NamedTuple):
    """One labelled image.

    Attributes:
      place: names it in an error: a file, or a split and a number.
      image: a file, an encoded image, or grayscale bytes [H,W].
      label: position in `Source.classes`.
      region: position in `Source.regions`; 0 where there are none.
    """

    place: str
    image: Path | bytes | np.ndarray
    label: int
    region: int


class Source(NamedTuple):
    """A data set as it lies on the disk; cheap to make, since nothing is decoded.

    Attributes:
      name: the data set's name.
      classes: the class names, in the order of the labels.
      regions: the region names; () where the data name none.
      channels: 1 or 3 where the set declares it; None: as its first image has.
      counts: examples of each split: `train`, and `validation` and `test` where the set has them.
      records: split -> its records, always in the same order.
      identity: plain JSON values that change whenever a pixel or a label may have changed.
    """

    name: str
    classes: tuple[str, ...]
    regions: tuple[str, ...]
    channels: int | None
    counts: Mapping[str, int]
    records: Callable[[str], Iterator[Record]]
    identity: Any
