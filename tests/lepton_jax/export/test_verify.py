import numpy as np
import pytest

from lepton_jax.checks import UserError
from lepton_jax.export import Agreement, convert, verify
from lepton_jax.export.verify import judge
from tests.lepton_jax.export.conftest import SHAPE, Net


@pytest.fixture(scope="module")
def model(net: Net) -> bytes:
    return convert(net.apply, SHAPE, "float32")


def agreement(difference: float = 0.0, top1: float = 1.0, accuracy: float = 0.9) -> Agreement:
    latency = {"median": 0.1, "p95": 0.2}
    return Agreement(1000, difference, top1, accuracy, 0.9, latency, {"SOFTMAX": 1})


def test_a_faithful_model_agrees(model: bytes, net: Net) -> None:
    labels = net.probabilities.argmax(-1).astype(np.int32)
    labels[:10] = (labels[:10] + 1) % 3
    found = verify(model, net.images, labels, net.probabilities)
    assert found.bytes == len(model)
    assert found.max_abs_diff < 1e-5
    assert found.top1_agreement == 1
    assert found.accuracy == found.jax_accuracy == 0.75
    assert 0 < found.latency_ms["median"] <= found.latency_ms["p95"]
    assert found.ops["SOFTMAX"] == 1


def test_a_difference_is_found(model: bytes, net: Net) -> None:
    expected = net.probabilities.copy()
    expected[7] = np.roll(expected[7], 1)
    labels = net.probabilities.argmax(-1).astype(np.int32)
    found = verify(model, net.images, labels, expected)
    assert found.top1_agreement == found.jax_accuracy == 39 / 40
    assert found.accuracy == 1
    assert found.max_abs_diff > 0.01


def test_equally_probable_classes_agree(model: bytes, net: Net) -> None:
    expected = net.probabilities.copy()
    best = expected[0].argmax()
    expected[0, best - 1] = expected[0, best] + np.float32(1e-7)
    found = verify(model, net.images, np.zeros(40, np.int32), expected)
    assert found.top1_agreement == 1


def test_float32_may_differ_by_rounding_only() -> None:
    assert judge("float32", agreement(difference=1e-6))
    for wrong in (agreement(top1=0.999), agreement(difference=2e-3), agreement(difference=np.nan)):
        with pytest.raises(UserError, match="float32: expected JAX's classes on all test images"):
            judge("float32", wrong)


def test_int8_may_lose_one_point() -> None:
    assert judge("int8", agreement(difference=0.2, top1=0.95, accuracy=0.89))
    assert not judge("int8", agreement(accuracy=0.889))
