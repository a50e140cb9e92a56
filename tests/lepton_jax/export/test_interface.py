from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from ai_edge_litert.interpreter import Interpreter

from lepton_jax.checks import UserError
from lepton_jax.config import Interface
from lepton_jax.export import ops
from lepton_jax.export.convert import CONVERTERS
from lepton_jax.export.interface import phone_model, resize
from tests.lepton_jax.export.conftest import CLASSES, SHAPE, Net


def ask(model: bytes, image: np.ndarray) -> dict[str, np.ndarray]:
    return Interpreter(model_content=model).get_signature_runner("classify")(image=image)


@pytest.fixture(scope="module", params=CONVERTERS)
def converter(request: pytest.FixtureRequest) -> str:
    return request.param


def test_bytes_and_floats_give_the_same_probabilities(net: Net, converter: str) -> None:
    floats = (Interface(input="float32"), net.images[:1] / np.float32(255))
    for interface, image in ((Interface(), net.images[:1]), floats):
        model = phone_model(net.apply, SHAPE, CLASSES, interface, converter)
        found = ask(model, image)["probabilities"]
        np.testing.assert_allclose(found, net.probabilities[:1], atol=1e-5)


def test_the_graph_is_fused(net: Net, converter: str) -> None:
    found = ops(phone_model(net.apply, SHAPE, CLASSES, Interface(), converter))
    assert found.pop("SUM", 0) + found.pop("MEAN", 0) == 1
    body = {"CONV_2D": 2, "MAX_POOL_2D": 1, "FULLY_CONNECTED": 1, "SOFTMAX": 1}
    assert found == {"CAST": 1, "DEPTHWISE_CONV_2D": 1, **body}


def test_logits_are_those_of_jax(net: Net, converter: str) -> None:
    model = phone_model(net.apply, SHAPE, CLASSES, Interface(output="logits"), converter)
    expected = net.apply(jnp.asarray(net.images[:1]))
    np.testing.assert_allclose(ask(model, net.images[:1])["logits"], expected, atol=1e-4)
    assert "SOFTMAX" not in ops(model)


def test_top_k_gives_the_largest_first(net: Net, converter: str) -> None:
    interface = Interface(output="top_k", top_k=2)
    model = phone_model(net.apply, SHAPE, CLASSES, interface, converter)
    assert ops(model)["TOPK_V2"] == 1
    for image, probabilities in zip(net.images[:5], net.probabilities[:5], strict=True):
        found = ask(model, image[None])
        order = np.argsort(-probabilities)[:2]
        assert found["classes"].dtype == np.int32 and found["classes"].tolist() == [order.tolist()]
        np.testing.assert_allclose(found["scores"], probabilities[None, order], atol=1e-5)


def test_more_than_all_classes_are_refused(net: Net) -> None:
    with pytest.raises(UserError, match=r"interface\.top_k: expected at most 3, got 4"):
        phone_model(net.apply, SHAPE, CLASSES, Interface(output="top_k", top_k=4))


@pytest.mark.parametrize("size", [(32, 32), (5, 100), (100, 7), (17, 23)])
def test_resizing_is_that_of_jax_image(size: tuple[int, int]) -> None:
    frames = np.random.default_rng(0).random((2, 41, 29, 3), np.float32)
    expected = jax.image.resize(frames, (2, *size, 3), "bilinear")
    np.testing.assert_allclose(resize(jnp.asarray(frames), *size), expected, atol=1e-5)


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("batch", [1, 2])
def test_frames_are_resized_inside(converter: str, channels: int, batch: int) -> None:
    weights = np.random.default_rng(0).normal(size=(64 * channels, 5)).astype(np.float32) / 1000

    def apply(pixels: Any) -> Any:
        return pixels.astype(jnp.float32).reshape(len(pixels), -1) @ weights

    interface = Interface(frame=(20, 30), output="logits", batch=batch)
    model = phone_model(apply, (8, 8, channels), 5, interface, converter)
    shape = (batch, 20, 30, channels)
    frames = np.random.default_rng(1).integers(256, size=shape).astype(np.uint8)
    small = jax.image.resize(jnp.asarray(frames, jnp.float32), (batch, 8, 8, channels), "bilinear")
    np.testing.assert_allclose(ask(model, frames)["logits"], apply(small), atol=1e-4)
    assert not {"GATHER", "GATHER_ND"} & set(ops(model))


def test_a_loop_is_refused(converter: str) -> None:
    def apply(pixels: jax.Array) -> jax.Array:
        means = pixels.astype(jnp.float32).mean((1, 2))
        return jax.lax.fori_loop(0, 3, lambda _, x: x * 2, means)

    with pytest.raises(UserError, match=r"^model: expected .*, got (WHILE|stablehlo\.while)$"):
        phone_model(apply, SHAPE, CLASSES, Interface(), converter)
