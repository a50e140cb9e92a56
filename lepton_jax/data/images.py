"""One image of any kind in, bytes [H,W,F] out: upright, 8 bits, grayscale or RGB, one size."""

import io
from collections.abc import Callable
from pathlib import Path

import numpy as np
from jaxtyping import UInt8
from PIL import Image, ImageOps, UnidentifiedImageError

from lepton_jax.checks import UserError
from lepton_jax.data.source import Record
from lepton_jax.untrusted import read_bytes

_FORMATS = ("JPEG", "PNG", "BMP", "WEBP", "GIF")  # none that Pillow gives to other programs
_FILE_BYTES = 2**28
_PIXELS = Image.MAX_IMAGE_PIXELS or 2**26  # Pillow only warns, up to twice as many

Decoded = UInt8[np.ndarray, "H W F"]


def decoder(
    image_size: tuple[int, int] | None, channels: int | None
) -> Callable[[Record], Decoded]:
    """Makes the function that decodes a record's image.

    EXIF orientation is applied, 16 bits are scaled to 8, palettes and CMYK become RGB, and what is
    transparent shows white behind it. Colour becomes gray by luma (ITU-R BT.601). Resizing is
    bilinear with antialiasing and doesn't keep the aspect.

    Args:
      image_size: (height, width) to resize to; None: as stored.
      channels: 1 or 3; None: as stored.

    Returns:
      A function of a record that returns bytes [H,W,F] and raises UserError with the image's place
      where there is no image in it, or one of more than 89 million pixels.
    """

    def decode(record: Record) -> Decoded:
        try:
            image = _open(record.image)
            if image.width * image.height > _PIXELS:
                raise _too_large(record.place)
            image = _plain(image)
        except UserError:
            raise
        except (Image.DecompressionBombError, Image.DecompressionBombWarning):
            raise _too_large(record.place) from None
        except UnidentifiedImageError:
            raise _broken(record.place, "something else") from None
        except Exception as error:  # decoders fail in many ways on damaged bytes
            raise _broken(record.place, f"{type(error).__name__} ({error})") from error
        if channels is not None:
            image = image.convert("L" if channels == 1 else "RGB")
        if image_size is not None and image.size != image_size[::-1]:
            image = image.resize(image_size[::-1], Image.Resampling.BILINEAR)
        return np.asarray(image).reshape(image.height, image.width, -1)

    return decode


def _broken(place: str, got: str) -> UserError:
    return UserError(place, "a readable image", got, "replace or remove it")


def _too_large(place: str) -> UserError:
    return UserError(
        place, f"an image of at most {_PIXELS:,} pixels", "more", "shrink or remove it"
    )


def _open(image: Path | bytes | np.ndarray) -> Image.Image:
    if isinstance(image, np.ndarray):
        return Image.fromarray(image)
    content = read_bytes(image, _FILE_BYTES) if isinstance(image, Path) else image
    return Image.open(io.BytesIO(content), formats=_FORMATS)


def _plain(image: Image.Image) -> Image.Image:
    """The image upright, as 8-bit gray ("L") or colour ("RGB")."""
    image = ImageOps.exif_transpose(image)
    if image.mode.startswith("I"):
        return Image.fromarray(np.rint(np.asarray(image) / 257).astype(np.uint8))
    if image.has_transparency_data:
        return _on_white(image).convert("L" if image.mode in ("L", "LA", "La") else "RGB")
    return image.convert("L" if image.mode in ("1", "L") else "RGB")


def _on_white(image: Image.Image) -> Image.Image:
    layers = image.convert("RGBA")
    return Image.alpha_composite(Image.new("RGBA", image.size, "white"), layers)
