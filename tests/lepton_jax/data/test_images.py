"""Any image of a phone or a scanner becomes upright bytes of the asked size and channels."""

import io
import zlib
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from lepton_jax.checks import UserError
from lepton_jax.data.images import decoder
from lepton_jax.data.source import Record


def encoded(image: Image.Image, kind: str = "PNG", **options: object) -> bytes:
    stream = io.BytesIO()
    image.save(stream, kind, **options)
    return stream.getvalue()


def decode(
    image: Path | bytes | np.ndarray,
    size: tuple[int, int] | None = None,
    channels: int | None = None,
) -> np.ndarray:
    return decoder(size, channels)(Record("here", image, 0, 0))


def ramp(*shape: int) -> np.ndarray:
    return (np.arange(np.prod(shape)) * 7 % 256).astype(np.uint8).reshape(shape)


@pytest.mark.parametrize("shape", [(4, 3), (4, 3, 3)])
def test_a_lossless_image_comes_back_as_it_was(shape: tuple[int, ...]) -> None:
    pixels = ramp(*shape)
    assert np.array_equal(decode(encoded(Image.fromarray(pixels))), pixels.reshape(4, 3, -1))


def test_a_file_bytes_and_an_array_give_the_same(tmp_path: Path) -> None:
    pixels = ramp(4, 3)
    (tmp_path / "a.png").write_bytes(encoded(Image.fromarray(pixels)))
    assert np.array_equal(decode(tmp_path / "a.png"), decode(pixels))
    assert np.array_equal(decode(encoded(Image.fromarray(pixels))), decode(pixels))


def test_gray_in_colour_is_three_equal_channels_and_back_again_the_same() -> None:
    colour = decode(ramp(4, 3), channels=3)
    assert np.array_equal(colour, np.repeat(ramp(4, 3)[:, :, None], 3, axis=2))
    assert np.array_equal(decode(encoded(Image.fromarray(colour)), channels=1)[:, :, 0], ramp(4, 3))


def test_size_is_height_by_width() -> None:
    assert decode(ramp(4, 3), size=(8, 5)).shape == (8, 5, 1)


def test_resizing_a_flat_image_keeps_it_flat() -> None:
    assert np.all(decode(np.full((9, 7), 77, np.uint8), size=(3, 4)) == 77)


def test_exif_orientation_is_applied() -> None:
    image = Image.fromarray(ramp(4, 3))
    exif = image.getexif()
    exif[0x0112] = 6  # turned to the left: show it turned to the right
    assert np.array_equal(decode(encoded(image, exif=exif))[:, :, 0], np.rot90(ramp(4, 3), -1))


def test_sixteen_bits_are_scaled_to_eight() -> None:
    deep = (ramp(4, 3).astype(np.uint16)) * np.uint16(257)
    assert np.array_equal(decode(encoded(Image.fromarray(deep)))[:, :, 0], ramp(4, 3))


def test_a_palette_becomes_its_colours() -> None:
    image = Image.fromarray(np.array([[0, 1]], np.uint8)).convert("P")
    image.putpalette([10, 20, 30, 40, 50, 60])
    image.putdata([0, 1])
    assert decode(encoded(image)).tolist() == [[[10, 20, 30], [40, 50, 60]]]


def test_black_and_white_becomes_0_and_255() -> None:
    assert decode(encoded(Image.new("1", (2, 1), 1))).tolist() == [[[255], [255]]]


@pytest.mark.parametrize(
    ("mode", "colour", "seen"),
    [
        ("RGBA", (9, 8, 7, 0), [255, 255, 255]),
        ("RGBA", (9, 8, 7, 255), [9, 8, 7]),
        ("LA", (9, 0), [255]),
        ("LA", (9, 255), [9]),
    ],
)
def test_what_is_transparent_shows_white(
    mode: str, colour: tuple[int, ...], seen: list[int]
) -> None:
    assert decode(encoded(Image.new(mode, (1, 1), colour))).tolist() == [[seen]]


def test_cmyk_jpegs_become_rgb() -> None:
    pixels = decode(encoded(Image.new("CMYK", (8, 8), (0, 255, 255, 0)), "JPEG"))
    assert np.abs(pixels.astype(int) - [255, 0, 0]).max() < 8


@pytest.mark.parametrize("kept", [0, 30, 60])
def test_a_broken_image_names_its_file(tmp_path: Path, kept: int) -> None:
    file = tmp_path / "broken.png"
    file.write_bytes(encoded(Image.fromarray(ramp(40, 30)))[:kept])
    with pytest.raises(
        UserError, match=r"here: expected a readable image, got .*; replace"
    ) as error:
        decode(file)
    assert "\n" not in str(error.value)


@pytest.mark.filterwarnings("ignore::PIL.Image.DecompressionBombWarning")
@pytest.mark.parametrize("side", [9_460, 14_000, 20_000])
def test_an_image_that_would_fill_the_memory_is_refused_undecoded(
    side: int, tmp_path: Path
) -> None:
    file = tmp_path / "bomb.png"
    with Image.new("1", (1, 1)) as image:
        image.save(file)
    whole = bytearray(file.read_bytes())
    whole[16:24] = 2 * side.to_bytes(4, "big")
    whole[29:33] = zlib.crc32(whole[12:29]).to_bytes(4, "big")
    file.write_bytes(whole)
    with pytest.raises(UserError, match=r"bomb\.png: expected an image of at most 89,478,485 pix"):
        decoder(None, None)(Record(str(file), file, 0, 0))


@pytest.mark.parametrize("length", [0, 10, 40, 50])
def test_a_truncated_image_is_named(length: int, tmp_path: Path) -> None:
    file = tmp_path / "cut.png"
    Image.fromarray(np.arange(64, dtype=np.uint8).reshape(8, 8)).save(file)
    file.write_bytes(file.read_bytes()[:length])
    with pytest.raises(UserError, match=r"cut\.png: expected a readable image"):
        decoder(None, None)(Record(str(file), file, 0, 0))


def test_what_pillow_would_hand_to_another_program_is_not_opened(tmp_path: Path) -> None:
    file = tmp_path / "cat.jpg"
    file.write_bytes(b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 8 8\n%%EndComments\nshowpage\n")
    with pytest.raises(UserError, match=r"cat\.jpg: expected a readable image, got something else"):
        decoder(None, None)(Record(str(file), file, 0, 0))


def test_a_file_that_is_no_ordinary_one_is_not_read(tmp_path: Path) -> None:
    (tmp_path / "zero.png").symlink_to("/dev/zero")
    file = tmp_path / "zero.png"
    with pytest.raises(UserError, match=r"zero\.png: expected a file, got no ordinary file"):
        decoder(None, None)(Record(str(file), file, 0, 0))
