"""Which images fix the ranges of integers: so many of each class, and whose they may be."""

import numpy as np
from jaxtyping import UInt8

from lepton_jax.checks import UserError
from lepton_jax.data import Examples, Splits
from lepton_jax.export.frames import framed
from lepton_jax.training.runs import SavedRun

Images = UInt8[np.ndarray, "N H W F"]


def calibration_images(saved: SavedRun, splits: Splits) -> tuple[str, Images]:
    """The name of the split that fixes the ranges, and images drawn from it, so many of each class.

    Ranges taken from those whom a private run protects are covered by no epsilon, and the clients
    of a federated one keep their images: there they come from images of the server's own,
    validation or else test. Otherwise they come from training images.

    Args:
      saved: the run; its `export.calibration` says how many.
      splits: its data.

    Returns:
      The split's name and uint8 [N,H,W,F], in the split's order and in frames as the phone takes
      them; the same for the same run.

    Raises:
      UserError: no images there.
    """
    protected = saved.kind == "simulate" or saved.config.train.privacy is not None
    name, examples = "train", splits.train
    if protected:
        has_validation = len(splits.validation.images) > 0
        name = "validation" if has_validation else "test"
        examples = splits.validation if has_validation else splits.test
    rows = _rows(examples, saved.config.export.calibration.images_per_class, saved.config.seed)
    if not len(rows):
        raise UserError("export.calibration", f"images in the {name} split", "none")
    chosen = Examples(examples.images[rows], examples.labels[rows], None)
    return name, framed(chosen, saved.config.export.interface.frame).images


def _rows(examples: Examples, each: int, seed: int) -> np.ndarray:
    order = np.random.default_rng(seed).permutation(len(examples.labels))
    labels = examples.labels[order]
    chosen = [order[labels == label][:each] for label in np.unique(labels)]
    return np.sort(np.concatenate(chosen or [order]))
