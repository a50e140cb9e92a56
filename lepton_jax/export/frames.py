"""Images as a camera would show them, in frames of another size, which the phone model resizes."""

import jax.numpy as jnp
import numpy as np

from lepton_jax.data import Examples
from lepton_jax.export.interface import resize
from lepton_jax.typing import Classifier, Logits, Pixels, Variables

_AT_A_TIME = 256
Frame = tuple[int, int] | None


def framed(examples: Examples, frame: Frame) -> Examples:
    """Examples in frames of (height, width); as they are where that is None."""
    if frame is None:
        return examples
    images = np.zeros((len(examples.images), *frame, examples.images.shape[-1]), np.uint8)
    for start in range(0, len(images), _AT_A_TIME):
        part = slice(start, start + _AT_A_TIME)
        resized = resize(jnp.asarray(examples.images[part], jnp.float32), *frame)
        images[part] = np.asarray(jnp.clip(jnp.round(resized), 0, 255)).astype(np.uint8)
    return examples._replace(images=images)


def behind_frames(model: Classifier, image_shape: tuple[int, int, int], frame: Frame) -> Classifier:
    """A model that is given frames, and resizes them as its phone models do."""
    if frame is None:
        return model
    height, width, _ = image_shape

    def apply(variables: Variables, frames: Pixels) -> Logits:
        return model.apply(variables, resize(frames.astype(jnp.float32), height, width))

    return model._replace(apply=apply)
