from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from ai_edge_litert.interpreter import Interpreter

from lepton_jax import models
from lepton_jax.checks import UserError
from lepton_jax.config import ConvBlock, Interface, Model
from lepton_jax.export import ops
from lepton_jax.export.convert import CONVERTERS
from lepton_jax.export.interface import phone_model
from lepton_jax.export.quantize import quantize

SHAPE = (16, 16, 3)
CNN = Model(name="cnn", blocks=(ConvBlock(filters=8, pool=2), ConvBlock(filters=8)), dense=(16,))
KINDS = {
    "flatten": CNN,
    "batch norm": Model(name="resnet8", norm="batch"),
    "group norm": Model(name="resnet8", norm="group"),
}
# Those of the model, and the standardization of pixels.
CONVOLUTIONS = {"flatten": 2 + 1, "batch norm": 9 + 1, "group norm": 9 + 1}


def build(kind: str) -> Any:
    model = models.build(KINDS[kind], SHAPE, 10, mean=[0.5] * 3, std=[0.25] * 3)
    rng = np.random.default_rng(0)
    start = jax.tree.map(np.asarray, jax.jit(model.init)(jax.random.key(0)))
    # Off their starting points, where norms would vanish.
    variables = jax.tree.map(lambda x: x + 0.1 * rng.random(x.shape, np.float32), start)
    return lambda pixels: model.apply(variables, pixels)


@pytest.mark.parametrize(
    ("kind", "converter"),
    [
        ("flatten", "jax2tf"),
        *((kind, "litert") for kind in KINDS),
        *(pytest.param(kind, "jax2tf", marks=pytest.mark.slow) for kind in list(KINDS)[1:]),
    ],
)
def test_any_batch_agrees_with_jax_and_the_graph_stays_fused(kind: str, converter: str) -> None:
    apply = build(kind)
    model = phone_model(apply, SHAPE, 10, Interface(batch="dynamic"), converter)
    classify = Interpreter(model_content=model).get_signature_runner("classify")
    images = np.random.default_rng(1).integers(256, size=(32, *SHAPE)).astype(np.uint8)
    expected = jax.jit(lambda pixels: jax.nn.softmax(apply(pixels), axis=-1))(images)
    for number in (1, 2, 5, 32):
        found = classify(image=images[:number])["probabilities"]
        np.testing.assert_allclose(found, expected[:number], atol=1e-5)
    found, single = ops(model), ops(phone_model(apply, SHAPE, 10, Interface(), converter))
    convolutions = sum(found.get(name, 0) for name in ("CONV_2D", "DEPTHWISE_CONV_2D"))
    assert convolutions == CONVOLUTIONS[kind]
    found.pop("RESHAPE", 0), single.pop("RESHAPE", 0)
    assert found == single
    assert not {"BROADCAST_TO", "SLICE", "STRIDED_SLICE", "GATHER"} & set(found)
    if kind != "group norm":
        assert not {"MUL", "SUB"} & set(found)


@pytest.mark.parametrize("converter", CONVERTERS)
@pytest.mark.parametrize("stride", [1, 2])
def test_slices_of_all_images_take_any_number(stride: int, converter: str) -> None:
    weights = np.random.default_rng(2).random((4, 10), np.float32)

    def apply(pixels: Any) -> Any:
        x = pixels.astype(jnp.float32) / 255
        kept = jnp.tanh(x)[:, 1::stride, ::stride]  # a shortcut that drops pixels
        return jnp.pad(kept, ((0, 0), (0, 0), (0, 0), (0, 1))).mean((1, 2)) @ weights

    model = phone_model(apply, SHAPE, 10, Interface(batch="dynamic"), converter)
    assert {"SLICE", "STRIDED_SLICE"} & set(ops(model))
    classify = Interpreter(model_content=model).get_signature_runner("classify")
    images = np.random.default_rng(1).integers(256, size=(32, *SHAPE)).astype(np.uint8)
    expected = jax.nn.softmax(apply(images), axis=-1)
    for number in (1, 2, 5, 32):
        found = classify(image=images[:number])["probabilities"]
        np.testing.assert_allclose(found, expected[:number], atol=1e-5)


def test_a_slice_of_some_images_is_refused() -> None:
    def apply(pixels: Any) -> Any:
        x = pixels.astype(jnp.float32).mean((1, 2))
        return x[: len(x) - 1] @ jnp.ones((3, 10))

    with pytest.raises(UserError, match=r"interface\.batch: expected a model that fits any batch"):
        phone_model(apply, SHAPE, 10, Interface(batch="dynamic"), "litert")


@pytest.mark.slow
def test_a_net_of_padded_shortcuts_takes_any_batch() -> None:
    model = models.build(Model(name="resnet20"), SHAPE, 10, mean=[0.5] * 3, std=[0.25] * 3)
    variables = jax.tree.map(np.asarray, jax.jit(model.init)(jax.random.key(0)))
    apply = partial(model.apply, variables)
    found = phone_model(apply, SHAPE, 10, Interface(batch="dynamic"), "litert")
    single = phone_model(apply, SHAPE, 10, Interface(), "litert")
    assert {**ops(found), "RESHAPE": 0} == {**ops(single), "RESHAPE": 0}
    images = np.random.default_rng(1).integers(256, size=(5, *SHAPE)).astype(np.uint8)
    classify = Interpreter(model_content=found).get_signature_runner("classify")
    expected = jax.nn.softmax(jax.jit(apply)(images), axis=-1)
    np.testing.assert_allclose(classify(image=images)["probabilities"], expected, atol=1e-5)


@pytest.mark.slow
@pytest.mark.parametrize("kind", KINDS)
def test_both_converters_make_the_same_model_up_to_the_form_of_a_mean(kind: str) -> None:
    apply = build(kind)
    made = [phone_model(apply, SHAPE, 10, Interface(), name) for name in CONVERTERS]
    found = [ops(model) for model in made]
    means = [each.pop("SUM", 0) + each.pop("MEAN", 0) for each in found]
    assert found[0] == found[1] and means[0] == means[1]
    image = np.random.default_rng(1).integers(256, size=(1, *SHAPE)).astype(np.uint8)
    first, second = (
        Interpreter(model_content=model).get_signature_runner("classify")(image=image)
        for model in made
    )
    np.testing.assert_allclose(first["probabilities"], second["probabilities"], atol=1e-5)


@pytest.mark.parametrize("variant", ["int8", "dynamic", "float16"])
def test_a_quantized_model_takes_any_batch(variant: str) -> None:
    floats = phone_model(build("flatten"), SHAPE, 10, Interface(batch="dynamic"), "litert")
    images = np.random.default_rng(1).integers(256, size=(12, *SHAPE)).astype(np.uint8)
    interface = Interface(batch="dynamic")
    model = quantize(floats, variant, interface=interface, calibration=images)
    classify = Interpreter(model_content=model).get_signature_runner("classify")
    alone = np.concatenate([classify(image=image[None])["probabilities"] for image in images])
    np.testing.assert_allclose(classify(image=images)["probabilities"], alone, atol=1e-6)


def test_a_fixed_batch_is_as_asked() -> None:
    model = phone_model(build("flatten"), SHAPE, 10, Interface(batch=4), "litert")
    (image,) = Interpreter(model_content=model).get_input_details()
    assert image["shape"].tolist() == [4, *SHAPE] == image["shape_signature"].tolist()


def test_a_graph_of_another_form_for_another_batch_is_refused() -> None:
    def apply(pixels: Any) -> Any:
        x = pixels.astype(jnp.float32).mean((1, 2))
        return x @ jnp.ones((3, 10)) if len(x) == 2 else jnp.tanh(x) @ jnp.ones((3, 10))

    with pytest.raises(UserError, match=r"interface\.batch: expected a model that fits any batch"):
        phone_model(apply, SHAPE, 10, Interface(batch="dynamic"), "litert")


def test_a_constant_that_follows_the_batch_is_refused() -> None:
    def apply(pixels: Any) -> Any:
        x = pixels.astype(jnp.float32).mean((1, 2))
        return x @ jnp.ones((3, 10)) * len(x)

    with pytest.raises(UserError, match=r"interface\.batch: .* got a constant"):
        phone_model(apply, SHAPE, 10, Interface(batch="dynamic"), "litert")
