"""What a run's files don't hold and its data do: class names, model size, the images of samples."""

import base64
from io import BytesIO
from typing import NamedTuple

import numpy as np
from jaxtyping import UInt8
from PIL import Image

from lepton_jax import data, models
from lepton_jax.checks import UserError
from lepton_jax.data.splits import Splits
from lepton_jax.report.contents import Sample
from lepton_jax.report.files import RunFiles, class_count

_PIXELS = 160  # no image is shown larger, so none is stored larger


class Lookup(NamedTuple):
    """Found out about a run.

    Attributes:
      classes: names, numbers where the names can't be had.
      parameters: of the model; None where the image shape can't be had.
      samples: a data URI for each sample of evaluation.json, or none at all.
      missing: why there are no samples; empty where there are.
    """

    classes: tuple[str, ...]
    parameters: int | None
    samples: tuple[str, ...]
    missing: str


def look_up(files: RunFiles) -> Lookup:
    """Loads the run's data, and does without where they are gone or have changed."""
    try:
        splits = data.load(files.config.data)
        _check(splits, files)
    except (UserError, OSError) as error:
        return _without_data(files, str(error))
    classes = splits.info.classes
    height, width, channels = splits.test.images.shape[1:]
    samples = files.evaluation.samples if files.evaluation else []
    uris = tuple(data_uri(splits.test.images[sample.index]) for sample in samples)
    return Lookup(classes, _parameters(files, (height, width, channels), len(classes)), uris, "")


def data_uri(image: UInt8[np.ndarray, "H W F"]) -> str:
    """An image as a PNG that stands in the page itself."""
    drawn = Image.fromarray(
        np.ascontiguousarray(image.squeeze(-1) if image.shape[-1] == 1 else image)
    )
    drawn.thumbnail((_PIXELS, _PIXELS))
    buffer = BytesIO()
    drawn.save(buffer, format="PNG", optimize=True)
    return f"data:image/png;base64,{base64.b64encode(buffer.getvalue()).decode()}"


def _check(splits: Splits, files: RunFiles) -> None:
    """Refuses data that are not those that the run was evaluated on."""
    count = class_count(files)
    if count is not None and len(splits.info.classes) != count:
        raise UserError(files.config.data.name, f"{count} classes", len(splits.info.classes))
    samples: list[Sample] = files.evaluation.samples if files.evaluation else []
    for sample in samples:
        known = sample.index < len(splits.test.labels)
        if not known or int(splits.test.labels[sample.index]) != sample.label:
            raise UserError(
                files.config.data.name,
                f"test image {sample.index} of class {sample.label}",
                "data that changed since",
            )


def _without_data(files: RunFiles, why: str) -> Lookup:
    count = class_count(files) or 0
    if files.export and len(files.export.classes) == count:
        classes = tuple(files.export.classes)
        parameters = _parameters(files, files.export.input.shape[1:], count)
        return Lookup(classes, parameters, (), why)
    return Lookup(tuple(f"class {i}" for i in range(count)), None, (), why)


def _parameters(files: RunFiles, shape: tuple[int, int, int], classes: int) -> int:
    return models.summary(files.config.model, shape, classes).parameters
