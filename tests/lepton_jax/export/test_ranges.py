import jax.numpy as jnp
import numpy as np
import pytest

from lepton_jax.checks import UserError
from lepton_jax.config import Interface
from lepton_jax.export.interface import phone_model
from lepton_jax.export.ranges import measure
from tests.lepton_jax.export.conftest import CLASSES, SHAPE, Net


@pytest.fixture(scope="module")
def model(net: Net) -> bytes:
    return phone_model(net.apply, SHAPE, CLASSES, Interface(output="logits"), "litert")


def test_ranges_are_exact_minima_and_maxima(model: bytes, net: Net) -> None:
    logits = np.asarray(net.apply(jnp.asarray(net.images)))
    np.testing.assert_allclose(
        measure(model, net.images)["logits"], (logits.min(), logits.max()), atol=1e-4
    )


@pytest.mark.parametrize("percentile", [float("nan"), 10.0, 101.0])
def test_what_is_no_percentile_is_refused(model: bytes, net: Net, percentile: float) -> None:
    with pytest.raises(UserError, match=r"percentile: expected above 50, at most 100, got"):
        measure(model, net.images, percentile=percentile)


def test_a_percentile_leaves_out_as_much_at_both_ends(model: bytes, net: Net) -> None:
    logits = np.sort(np.asarray(net.apply(jnp.asarray(net.images))).reshape(-1))
    out = logits.size // 10
    found = measure(model, net.images, percentile=90.0)["logits"]
    np.testing.assert_allclose(found, (logits[out], logits[-1 - out]), atol=1e-4)


def test_the_order_and_the_batch_change_nothing(model: bytes, net: Net) -> None:
    interface = Interface(output="logits", batch=3)  # doesn't divide the number of images
    batched = measure(phone_model(net.apply, SHAPE, CLASSES, interface, "litert"), net.images)
    for found in (measure(model, net.images[::-1]), batched):
        np.testing.assert_allclose(found["logits"], measure(model, net.images)["logits"], atol=1e-5)


def test_the_input_may_be_anything(model: bytes, net: Net) -> None:
    dark = net.images // 8
    assert measure(model, dark)["image"] == (0, 255)
    floats = phone_model(net.apply, SHAPE, CLASSES, Interface(input="float32"), "litert")
    assert measure(floats, dark)["image"] == (0, 1)


@pytest.mark.parametrize(
    ("images", "got"),
    [
        (None, "none"),
        (np.zeros((9, *SHAPE), np.uint8), r"uint8 \[9, 8, 8, 3\]"),
        (np.zeros((20, 8, 8, 1), np.uint8), r"uint8 \[20, 8, 8, 1\]"),
        (np.zeros((20, *SHAPE), np.float32), r"float32 \[20, 8, 8, 3\]"),
    ],
)
def test_images_that_wont_do_are_refused(model: bytes, images: np.ndarray | None, got: str) -> None:
    expected = rf"calibration: expected at least 10 images, uint8 \[N, 8, 8, 3\], got {got}"
    with pytest.raises(UserError, match=expected):
        measure(model, images)
