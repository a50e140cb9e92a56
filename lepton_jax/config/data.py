"""Which images, how they are split, and how they are varied while training."""

from typing import Annotated, Literal

from msgspec import Meta, Struct

from lepton_jax.config.kinds import STRICT, Count, Fraction, Name, Positive, Seed
from lepton_jax.config.locales import check_labels


class Crop(Struct, tag_field="kind", tag="crop", **STRICT):
    """Pads by reflection, then crops back at a random place."""

    padding: Count = 4


class Flip(Struct, tag_field="kind", tag="flip", **STRICT):
    """Mirrors left and right, half of the time; not for digits or text."""


class Shift(Struct, tag_field="kind", tag="shift", **STRICT):
    """Moves by up to `pixels` in both directions; what comes in is black."""

    pixels: Count = 2


class Brightness(Struct, tag_field="kind", tag="brightness", **STRICT):
    """Adds up to `max_delta` of the pixel range, the same for a whole image."""

    max_delta: Annotated[float, Meta(gt=0, le=1)] = 0.2


class Contrast(Struct, tag_field="kind", tag="contrast", **STRICT):
    """Scales the distance to the image's mean by a factor in [lower, upper]."""

    lower: Positive = 0.8
    upper: Positive = 1.2

    def __post_init__(self) -> None:
        if self.lower > self.upper:
            raise ValueError(f"expected lower <= upper, got {self.lower} > {self.upper}")


class Cutout(Struct, tag_field="kind", tag="cutout", **STRICT):
    """Blanks a square of `size` pixels at a random place (DeVries and Taylor, 2017)."""

    size: Count = 8


Augmentation = Crop | Flip | Shift | Brightness | Contrast | Cutout


class Data(Struct, **STRICT):
    """Which images, how they are split, and how they are varied while training."""

    name: Name = "digits"
    """`digits` (embedded), `folder` (your own images), or any TFDS image classification set."""
    path: str | None = None
    """The image folder's root, or the TFDS `data_dir` (else `TFDS_DATA_DIR`, else TFDS' default).

    An image folder may come as a .zip, .tar or .tar.gz. It is unpacked into the cache, and refused
    where a member leads outside, is a link or a device, stands there twice, or is a bomb. Files
    other than images are left in it, archives too.
    """
    image_size: tuple[Count, Count] | None = None
    """(height, width) to resize to; needed where a folder's images differ in size."""
    channels: Literal[1, 3] | None = None
    """1: grayscale, 3: RGB, unset: as stored."""
    test_fraction: Annotated[float, Meta(gt=0, lt=1)] = 0.2
    """The part kept for testing; used only where the set has no test split of its own."""
    validation_fraction: Fraction = 0.1
    """The part of the training split kept for validation."""
    split_seed: Seed = 0
    normalization: Literal["standard", "unit"] = "standard"
    """`standard`: by each channel's mean and deviation over the training split; `unit`: to [0, 1]."""
    augment: tuple[Augmentation, ...] = ()
    labels: dict[str, tuple[str, ...]] = {}
    """Names of the classes by locale, such as `de = ["null", "eins"]`, beside those that come along."""

    def __post_init__(self) -> None:
        if self.name == "folder" and self.path is None:
            raise ValueError("name 'folder' needs `path`, the root of the image folder")
        check_labels(self.labels)
