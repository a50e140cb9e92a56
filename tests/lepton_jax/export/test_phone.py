from pathlib import Path

import numpy as np
import pytest

from lepton_jax.checks import UserError
from lepton_jax.export import convert, open_model
from tests.lepton_jax.export.conftest import SHAPE, Net


@pytest.fixture(scope="module")
def path(net: Net, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("phone") / "float32.tflite"
    path.write_bytes(convert(net.apply, SHAPE, "float32"))
    return path


def test_an_opened_model_classifies_images(path: Path, net: Net) -> None:
    classify = open_model(path)
    np.testing.assert_allclose(classify(net.images), net.probabilities, atol=1e-5)
    np.testing.assert_array_equal(classify(net.images[3:5]), classify(net.images)[3:5])


def test_no_images_give_no_probabilities(path: Path, net: Net) -> None:
    assert open_model(path)(net.images[:0]).shape == (0, net.probabilities.shape[1])


@pytest.mark.parametrize(
    "images", [np.zeros((1, *SHAPE), np.float32), np.zeros((1, 9, 9, 3), np.uint8)]
)
def test_other_images_are_refused(path: Path, images: np.ndarray) -> None:
    with pytest.raises(UserError, match=r"images: expected uint8 \[N, 8, 8, 3\], got"):
        open_model(path)(images)


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"none\.tflite: expected a \.tflite file"):
        open_model(tmp_path / "none.tflite")


def test_a_damaged_file_is_named(path: Path, tmp_path: Path) -> None:
    damaged = tmp_path / "damaged.tflite"
    damaged.write_bytes(path.read_bytes()[:100])
    with pytest.raises(UserError, match=r"damaged\.tflite: expected a model with the signature"):
        open_model(damaged)
