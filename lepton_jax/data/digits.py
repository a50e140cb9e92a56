"""The embedded default: 1,797 real handwritten digits of 8x8 pixels, which need no network.

They come with scikit-learn: the test part of Alpaydin and Kaynak's "Optical Recognition of
Handwritten Digits" (UCI, 1998), 4x4 blocks of scanned digits counted into 0..16.
"""

from collections.abc import Iterator

import numpy as np

from lepton_jax.data.source import Record, Source

COUNT = 1797


def source() -> Source:
    """The digits as a source; its only split is `train`."""
    return Source(
        name="digits",
        classes=tuple(str(digit) for digit in range(10)),
        regions=(),
        channels=1,
        counts={"train": COUNT},
        records=_records,
        identity="scikit-learn digits, 0..16 to 0..255",
    )


def _records(split: str) -> Iterator[Record]:
    from sklearn.datasets import load_digits

    digits = load_digits()
    images = np.rint(digits.images * (255 / 16)).astype(np.uint8)
    for i, (image, label) in enumerate(zip(images, digits.target, strict=True)):
        yield Record(f"digits, {split} example {i}", image, int(label), 0)
