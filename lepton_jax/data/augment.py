"""Random variation of training images, on the device and inside the compiled step.

Each image of a batch varies on its own. Windows are cut by one dynamic slice an image: on a CPU
XLA runs that faster than gathers, one-hot products or selects over all places.
"""

from collections.abc import Callable
from functools import partial

import jax
import jax.numpy as jnp
from jaxtyping import Array, Int32

from lepton_jax import config
from lepton_jax.checks import UserError
from lepton_jax.typing import Pixels, PRNGKey

Augment = Callable[[Pixels, PRNGKey], Pixels]


def augmenter(augmentations: tuple[config.Augmentation, ...]) -> Augment:
    """Chains augmentations into one pure function.

    Args:
      augmentations: applied in this order; none only converts.

    Returns:
      (images uint8 [B,H,W,F], key) -> float32 pixels of the same shape, clipped to 0..255. The same
      key gives the same pixels.

    >>> augment = augmenter((config.Flip(), config.Brightness(max_delta=0.1)))
    >>> augment(jnp.zeros((2, 4, 4, 1), jnp.uint8), jax.random.key(0)).dtype.name
    'float32'
    """
    stages = tuple(_stage(augmentation) for augmentation in augmentations)

    def augment(images: Pixels, key: PRNGKey) -> Pixels:
        pixels = images
        for i, stage in enumerate(stages):
            pixels = stage(pixels, jax.random.fold_in(key, i))
        return jnp.clip(pixels.astype(jnp.float32), 0, 255)

    return augment


def _stage(augmentation: config.Augmentation) -> Augment:
    match augmentation:
        case config.Crop(padding=padding):
            return partial(_crop, padding=padding)
        case config.Flip():
            return _flip
        case config.Shift(pixels=reach):
            return partial(_shift, reach=reach)
        case config.Brightness(max_delta=max_delta):
            return partial(_brightness, max_delta=max_delta)
        case config.Contrast(lower=lower, upper=upper):
            return partial(_contrast, lower=lower, upper=upper)
        case config.Cutout(size=size):
            return partial(_cutout, size=size)


# --- where the pixels are: bytes stay bytes -------------------------------------------------------


def _crop(pixels: Pixels, key: PRNGKey, *, padding: int) -> Pixels:
    if padding >= min(pixels.shape[1:3]):
        height, width = pixels.shape[1:3]
        raise UserError(
            "data.augment",
            f"a crop with padding below the image's sides ({height}x{width})",
            f"padding = {padding}",
            "lower it",
        )
    return _window(pixels, key, width=padding, mode="reflect")


def _shift(pixels: Pixels, key: PRNGKey, *, reach: int) -> Pixels:
    return _window(pixels, key, width=reach, mode="constant")


def _flip(pixels: Pixels, key: PRNGKey) -> Pixels:
    mirrored = jax.random.bernoulli(key, 0.5, (pixels.shape[0],))
    return jnp.where(mirrored[:, None, None, None], pixels[:, :, ::-1], pixels)


def _window(pixels: Pixels, key: PRNGKey, *, width: int, mode: str) -> Pixels:
    """Pads by `width` and cuts a window of the old size, every place as likely."""
    around = (width, width)
    padded = jnp.pad(pixels, ((0, 0), around, around, (0, 0)), mode=mode)
    corners = jax.random.randint(key, (pixels.shape[0], 2), 0, 2 * width + 1)

    def cut(image: Array, corner: Int32[Array, "2"]) -> Array:
        return jax.lax.dynamic_slice(image, (corner[0], corner[1], 0), pixels.shape[1:])

    return jax.vmap(cut)(padded, corners)


# --- what the pixels are: floats, clipped once at the end -----------------------------------------


def _brightness(pixels: Pixels, key: PRNGKey, *, max_delta: float) -> Pixels:
    reach = 255 * max_delta
    delta = jax.random.uniform(key, (pixels.shape[0], 1, 1, 1), minval=-reach, maxval=reach)
    return pixels.astype(jnp.float32) + delta


def _contrast(pixels: Pixels, key: PRNGKey, *, lower: float, upper: float) -> Pixels:
    floats = pixels.astype(jnp.float32)
    mean = jnp.mean(floats, axis=(1, 2, 3), keepdims=True)
    factor = jax.random.uniform(key, (pixels.shape[0], 1, 1, 1), minval=lower, maxval=upper)
    return mean + (floats - mean) * factor


def _cutout(pixels: Pixels, key: PRNGKey, *, size: int) -> Pixels:
    """The square's centre may be any pixel, so that part of it may lie outside."""
    batch, height, width, _ = pixels.shape
    down, across = jax.random.split(key)
    rows = _near(jax.random.randint(down, (batch, 1), 0, height), height, size)
    columns = _near(jax.random.randint(across, (batch, 1), 0, width), width, size)
    square = rows[:, :, None, None] & columns[:, None, :, None]
    return jnp.where(square, 0, pixels).astype(pixels.dtype)


def _near(centre: Array, length: int, size: int) -> Array:
    """Which of `length` places lie in the stretch of `size` around each centre: [B, length]."""
    first = centre - size // 2
    places = jnp.arange(length)[None, :]
    return (places >= first) & (places < first + size)
