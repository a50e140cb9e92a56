"""Which images fix the ranges of integers."""

from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest

from lepton_jax import config, data
from lepton_jax.checks import UserError
from lepton_jax.data import Examples, Splits
from lepton_jax.export.calibration import calibration_images
from lepton_jax.training import SavedRun
from lepton_jax.typing import Variables
from tests.lepton_jax.export.test_run import tiny


def split(images: int, value: int) -> Examples:
    return Examples(np.full((images, 8, 8, 1), value, np.uint8), np.zeros(images, np.int32), None)


PRIVATE: dict[str, dict[str, Any]] = {
    "clients": {
        "stages": (config.Clip(max_norm=1.0),),
        "noise": config.Gaussian(multiplier=1.0),
        "weights": "uniform",
        "sampling": "poisson",
    },
    "clients' examples": {
        "example_privacy": config.ClientPrivacy(noise_multiplier=1.0),
        "weights": "uniform",
    },
}


def private_run(kind: str) -> SavedRun:
    if kind == "examples":
        examples = config.Train(privacy=config.Privacy(noise_multiplier=1.0))
        changed = msgspec.structs.replace(tiny(), train=examples)
        return SavedRun(Path(), changed, "train", {}, Variables({}, {}))
    federated = config.Federated(**PRIVATE.get(kind, {}))
    changed = msgspec.structs.replace(tiny(), federated=federated)
    return SavedRun(Path(), changed, "simulate", {}, Variables({}, {}))


@pytest.mark.parametrize("kind", [*PRIVATE, "examples", "no noise"])
@pytest.mark.parametrize(("validation", "name", "value"), [(9, "validation", 1), (0, "test", 2)])
def test_images_of_clients_and_of_the_protected_calibrate_nothing(
    kind: str, validation: int, name: str, value: int
) -> None:
    info = data.load(tiny().data).info
    splits = Splits(split(9, 0), split(validation, 1), split(9, 2), info)
    chosen, images = calibration_images(private_run(kind), splits)
    assert chosen == name
    assert (images == value).all()


def test_each_class_gives_as_many_images() -> None:
    splits = data.load(tiny().data)
    saved = SavedRun(Path(), tiny(), "train", {}, Variables({}, {}))
    name, images = calibration_images(saved, splits)
    rows = [int(np.flatnonzero((splits.train.images == each).all((1, 2, 3)))[0]) for each in images]
    assert name == "train"
    assert np.bincount(splits.train.labels[rows]).tolist() == [7] * 10
    np.testing.assert_array_equal(images, calibration_images(saved, splits)[1])


def test_no_images_are_a_mistake() -> None:
    info = data.load(tiny().data).info
    saved = SavedRun(Path(), tiny(), "train", {}, Variables({}, {}))
    with pytest.raises(UserError, match=r"export\.calibration: expected images in the train split"):
        calibration_images(saved, Splits(split(0, 0), split(0, 0), split(1, 0), info))
