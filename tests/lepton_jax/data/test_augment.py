"""Augmentation keeps shape and range, varies image by image, and does what a slow twin does."""

from functools import lru_cache

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from lepton_jax import config
from lepton_jax.checks import UserError
from lepton_jax.data.augment import Augment, augmenter

EVERY = (
    config.Crop(padding=2),
    config.Flip(),
    config.Shift(pixels=1),
    config.Brightness(max_delta=0.5),
    config.Contrast(lower=0.5, upper=2.0),
    config.Cutout(size=3),
)


def noise(batch: int = 32, low: int = 0, high: int = 256) -> np.ndarray:
    rng = np.random.default_rng(0)
    return rng.integers(low, high, size=(batch, 6, 5, 3)).astype(np.uint8)


@lru_cache
def compiled(augmentations: tuple[config.Augmentation, ...]) -> Augment:
    return jax.jit(augmenter(augmentations))


def vary(images: np.ndarray, *augmentations: config.Augmentation, seed: int = 0) -> np.ndarray:
    augment = compiled(augmentations)
    return np.asarray(augment(jnp.asarray(images), jax.random.key(seed)))


@pytest.mark.parametrize("augmentations", [(), *((each,) for each in EVERY), EVERY], ids=str)
def test_shape_stays_and_pixels_are_floats_on_0_to_255(
    augmentations: tuple[config.Augmentation, ...],
) -> None:
    varied = vary(noise(), *augmentations)
    assert (varied.shape, varied.dtype) == ((32, 6, 5, 3), np.float32)
    assert varied.min() >= 0 and varied.max() <= 255


def test_no_augmentation_only_converts() -> None:
    assert np.array_equal(vary(noise()), noise())


@pytest.mark.parametrize("augmentation", EVERY, ids=str)
def test_the_key_decides_everything(augmentation: config.Augmentation) -> None:
    assert np.array_equal(vary(noise(), augmentation), vary(noise(), augmentation))
    assert not np.array_equal(vary(noise(), augmentation), vary(noise(), augmentation, seed=1))


@pytest.mark.parametrize("augmentation", EVERY, ids=str)
def test_equal_images_of_a_batch_vary_differently(augmentation: config.Augmentation) -> None:
    varied = vary(np.repeat(noise(1), 32, axis=0), augmentation)
    assert len(np.unique(varied.reshape(32, -1), axis=0)) > 1


def test_a_batch_of_clients_is_augmented_as_each_of_them_alone() -> None:
    images = jnp.asarray(np.stack([noise(), noise()[::-1]]))
    keys = jax.random.split(jax.random.key(0), 2)
    together = jax.jit(jax.vmap(augmenter(EVERY)))(images, keys)
    alone = jnp.stack([compiled(EVERY)(*each) for each in zip(images, keys, strict=True)])
    np.testing.assert_allclose(together, alone, atol=1e-3)


def test_flipping_the_same_images_twice_changes_nothing() -> None:
    once = vary(noise(), config.Flip())
    assert np.array_equal(vary(once, config.Flip()), noise())
    mirrored = np.all(once == noise()[:, :, ::-1], axis=(1, 2, 3))
    assert np.array_equal(once[~mirrored], noise()[~mirrored])
    assert 0 < mirrored.sum() < 32


def windows(padded: np.ndarray) -> list[list[float]]:
    """Every place where an image of 6x5 could be cut out of a padded one: the slow twin."""
    down, across = padded.shape[0] - 5, padded.shape[1] - 4
    return [padded[i : i + 6, j : j + 5].tolist() for i in range(down) for j in range(across)]


@pytest.mark.parametrize(
    ("augmentation", "width", "mode"),
    [(config.Crop(padding=2), 2, "reflect"), (config.Shift(pixels=1), 1, "constant")],
)
def test_every_cut_is_a_window_of_the_padded_image_and_all_places_come_up(
    augmentation: config.Augmentation, width: int, mode: str
) -> None:
    places, around = set(), ((0, 0), (width, width), (width, width), (0, 0))
    padded = np.pad(noise(), around, mode=mode)  # type: ignore[call-overload]
    for seed in range(8):
        for image, varied in zip(padded, vary(noise(), augmentation, seed=seed), strict=True):
            places.add(windows(image).index(varied.tolist()))
    assert len(places) == (2 * width + 1) ** 2


def test_shifting_a_blank_image_changes_nothing() -> None:
    blank = np.zeros((4, 6, 5, 3), np.uint8)
    assert np.array_equal(vary(blank, config.Shift(pixels=9)), blank)


def test_brightness_adds_one_number_to_an_image() -> None:
    images = noise(low=100, high=150)
    added = vary(images, config.Brightness(max_delta=0.2)) - images
    assert np.ptp(added.reshape(32, -1), axis=1).max() < 1e-3
    assert np.abs(added).max() <= 51
    assert added.min() < -20 and added.max() > 20


def test_contrast_keeps_an_images_mean_and_scales_the_rest() -> None:
    images = noise(low=100, high=150)
    varied = vary(images, config.Contrast(lower=0.5, upper=2.0))
    axes = (1, 2, 3)
    np.testing.assert_allclose(varied.mean(axes), images.mean(axes), atol=1e-2)
    factors: np.ndarray = varied.std(axes) / images.std(axes)
    assert 0.499 < factors.min() < 0.9 and 1.2 < factors.max() < 2.001


def test_contrast_by_one_changes_nothing() -> None:
    np.testing.assert_allclose(
        vary(noise(), config.Contrast(lower=1.0, upper=1.0)), noise(), atol=1e-3
    )


def test_cutout_blanks_one_square_at_most_and_nothing_else() -> None:
    images = noise(low=1)
    varied = vary(images, config.Cutout(size=3))
    for image, cut in zip(images, varied, strict=True):
        blank = np.all(cut == 0, axis=-1)
        rows, columns = np.flatnonzero(blank.any(1)), np.flatnonzero(blank.any(0))
        assert 2 <= len(rows) <= 3 and 2 <= len(columns) <= 3
        assert blank[np.ix_(rows, columns)].all()
        assert np.array_equal(cut[~blank], image[~blank])


def test_a_crop_wider_than_the_image_is_refused() -> None:
    with pytest.raises(
        UserError, match="padding below the image's sides \\(6x5\\), got padding = 5"
    ):
        vary(noise(), config.Crop(padding=5))
