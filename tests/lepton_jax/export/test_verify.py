import jax.numpy as jnp
import numpy as np
import pytest

from lepton_jax.export import verify
from lepton_jax.export.verify import by_group
from tests.lepton_jax.export.conftest import Net
from tests.lepton_jax.export.made import variant


@pytest.fixture(scope="module")
def model(net: Net) -> bytes:
    return variant(net, "float32")


@pytest.fixture(scope="module")
def logits(net: Net) -> np.ndarray:
    return np.asarray(net.apply(jnp.asarray(net.images)))


def test_a_faithful_model_agrees(model: bytes, net: Net, logits: np.ndarray) -> None:
    labels = net.probabilities.argmax(-1).astype(np.int32)
    labels[:10] = (labels[:10] + 1) % 3
    found = verify(model, net.images, labels, logits)
    assert (found.bytes, found.images) == (len(model), 40)
    assert found.max_abs_diff < 1e-5
    assert found.logit_diff is not None and found.logit_diff < 1e-5
    assert found.top1_agreement == 1
    assert found.accuracy == found.jax_accuracy == 0.75
    assert 0 < found.latency_ms["median"] <= found.latency_ms["p95"]
    assert found.ops["SOFTMAX"] == 1


def test_a_difference_is_found(model: bytes, net: Net, logits: np.ndarray) -> None:
    expected = logits.copy()
    expected[7] = np.roll(expected[7], 1)
    labels = net.probabilities.argmax(-1).astype(np.int32)
    found = verify(model, net.images, labels, expected)
    assert found.top1_agreement == found.jax_accuracy == 39 / 40
    assert found.accuracy == 1
    assert found.max_abs_diff > 0.01
    assert found.logit_diff is not None and found.logit_diff > 0.01


def test_a_difference_that_no_probability_shows_is_found_in_the_logits(
    model: bytes, net: Net, logits: np.ndarray
) -> None:
    found = verify(model, net.images, np.zeros(40, np.int32), logits + 1)
    assert found.max_abs_diff < 1e-5
    assert found.logit_diff == pytest.approx(1 / (np.abs(logits + 1).max()), rel=1e-3)


def test_equally_probable_classes_agree(model: bytes, net: Net, logits: np.ndarray) -> None:
    expected = logits.copy()
    best = expected[0].argmax()
    expected[0, best - 1] = expected[0, best] + np.float32(1e-6)
    found = verify(model, net.images, np.zeros(40, np.int32), expected)
    assert found.top1_agreement == 1


# --- groups ---------------------------------------------------------------------------------------


def test_groups_are_counted_by_hand() -> None:
    labels = np.array([0, 1, 2, 0, 1, 2])
    jax_choices = np.array([0, 1, 2, 0, 0, 0])
    phone_choices = np.array([0, 1, 0, 1, 1, 0])
    groups = {"a": np.array([0, 1, 2]), "b": np.array([3, 4, 5]), "nobody": np.array([], int)}
    found = by_group(labels, jax_choices, phone_choices, groups)
    assert list(found) == ["a", "b"]
    assert found["a"] == (3, 2 / 3, 1.0, 1 / 3, 2 / 3)
    assert found["b"] == (3, 1 / 3, 1 / 3, 0.0, 1 / 3)


def test_groups_that_split_the_images_add_up_to_the_whole() -> None:
    rng = np.random.default_rng(0)
    labels, ours, theirs = rng.integers(4, size=(3, 500))
    owner = rng.integers(7, size=500)
    split = {str(i): np.flatnonzero(owner == i) for i in range(7)}
    parts = by_group(labels, ours, theirs, split).values()
    (whole,) = by_group(labels, ours, theirs, {"all": np.arange(500)}).values()
    for name in ("accuracy", "jax_accuracy", "loss", "agreement"):
        total = sum(each.images * getattr(each, name) for each in parts)
        assert total / 500 == pytest.approx(getattr(whole, name))
