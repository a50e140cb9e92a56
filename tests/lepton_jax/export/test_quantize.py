from typing import Any

import numpy as np
import pytest
from ai_edge_litert.interpreter import Interpreter

from lepton_jax.checks import UserError
from lepton_jax.config import Interface
from lepton_jax.export import ops
from lepton_jax.export.answers import answers
from lepton_jax.export.convert import CONVERTERS, Entry, convert
from lepton_jax.export.interface import phone_model
from lepton_jax.export.quantize import quantize
from lepton_jax.export.ranges import measure
from lepton_jax.typing import Logits, Pixels
from tests.lepton_jax.export.conftest import CLASSES, SHAPE, Net
from tests.lepton_jax.export.test_convert import spec

VARIANTS = ("float16", "dynamic", "weight-only", "int8", "16x8", "int4")
# Largest difference of a probability: a tiny net of random weights has wide ones.
NEAR = {"float16": 0.005, "dynamic": 0.05, "weight-only": 0.02, "int8": 0.05, "16x8": 0.02}


@pytest.fixture(scope="module", params=CONVERTERS)
def floats(net: Net, request: pytest.FixtureRequest) -> bytes:
    return phone_model(net.apply, SHAPE, CLASSES, Interface(), request.param)


def make(model: bytes, net: Net, variant: str, **changes: Any) -> bytes:
    options: dict[str, Any] = {"interface": Interface(), "calibration": net.images} | changes
    return quantize(model, variant, **options)


@pytest.mark.parametrize("variant", VARIANTS)
def test_every_variant_takes_bytes_and_comes_near_jax(
    floats: bytes, net: Net, variant: str
) -> None:
    model = make(floats, net, variant)
    classify = Interpreter(model_content=model).get_signature_runner("classify")
    (image,), (given,) = (
        classify.get_input_details().values(),
        classify.get_output_details().values(),
    )
    assert image["dtype"] == np.uint8 and given["dtype"] == np.float32
    found = answers(model, net.images).scores
    np.testing.assert_allclose(found.sum(-1), 1, atol=1e-5)
    np.testing.assert_allclose(found, net.probabilities, atol=NEAR.get(variant, 0.25))


@pytest.mark.parametrize("variant", VARIANTS)
def test_the_same_model_gives_the_same_bytes(floats: bytes, net: Net, variant: str) -> None:
    assert make(floats, net, variant) == make(floats, net, variant)


def test_float32_is_given_back(floats: bytes, net: Net) -> None:
    assert make(floats, net, "float32", calibration=None) is floats


def test_int8_is_integers_from_the_bytes_to_the_logits(floats: bytes, net: Net) -> None:
    model = make(floats, net, "int8")
    found = ops(model)
    assert found.pop("SUM", 0) + found.pop("MEAN", 0) == 1
    body = {"DEPTHWISE_CONV_2D": 1, "CONV_2D": 2, "MAX_POOL_2D": 1, "FULLY_CONNECTED": 1}
    assert found == {"QUANTIZE": 1, **body, "DEQUANTIZE": 1, "SOFTMAX": 1}
    assert next(iter(ops(model))) == "QUANTIZE" and list(ops(model))[-2:] == [
        "DEQUANTIZE",
        "SOFTMAX",
    ]
    (image,) = Interpreter(model_content=model).get_input_details()
    assert image["quantization"] == (1.0, 0)


def test_shortcuts_without_weights_are_integers_too(net: Net) -> None:
    import jax.numpy as jnp
    from jax import lax

    def apply(pixels: Pixels) -> Logits:
        x = pixels.astype(jnp.float32) / 255
        kept = jnp.pad(x[:, ::2, ::2], ((0, 0), (0, 0), (0, 0), (0, 1)))
        x = halved(x) + kept
        return x.mean((1, 2)) @ jnp.ones((4, CLASSES))

    def halved(x: Any) -> Any:
        axes, kernel = ("NHWC", "HWIO", "NHWC"), jnp.ones((3, 3, 3, 4)) / 27
        return lax.conv_general_dilated(x, kernel, (2, 2), "SAME", dimension_numbers=axes)

    floats = phone_model(apply, SHAPE, CLASSES, Interface(), "litert")
    model = make(floats, net, "int8")
    found = ops(model)
    assert (found["STRIDED_SLICE"], found["QUANTIZE"], found["DEQUANTIZE"]) == (1, 1, 1)
    near = answers(model, net.images).scores
    np.testing.assert_allclose(near, answers(floats, net.images).scores, atol=0.05)


def test_weights_of_int8_have_a_scale_for_each_channel(floats: bytes, net: Net) -> None:
    details = Interpreter(model_content=make(floats, net, "int8")).get_tensor_details()
    kernels = [each for each in details if len(each["quantization_parameters"]["scales"]) > 1]
    assert sorted(tuple(each["shape"]) for each in kernels if each["dtype"] is np.int8) == [
        (1, 1, 1, 3),
        (3, 8),
        (4, 3, 3, 3),
        (8, 3, 3, 4),
    ]


@pytest.mark.parametrize("output", ["probabilities", "logits"])
@pytest.mark.parametrize("kind", ["uint8", "int8", "float32"])
@pytest.mark.parametrize("output_type", ["float32", "int8", "uint8"])
def test_int8_takes_and_gives_what_it_is_told_to(
    net: Net, kind: Any, output: Any, output_type: Any
) -> None:
    interface = Interface(input=kind, output=output, output_type=output_type)
    floats = phone_model(net.apply, SHAPE, CLASSES, interface, "litert")
    model = quantize(floats, "int8", interface=interface, calibration=net.images)
    classify = Interpreter(model_content=model).get_signature_runner("classify")
    (image,), (given,) = (
        classify.get_input_details().values(),
        classify.get_output_details().values(),
    )
    assert (image["dtype"], given["dtype"]) == (np.dtype(kind).type, np.dtype(output_type).type)
    pixels = {
        "uint8": net.images,
        "int8": (net.images.astype(np.int16) - 128).astype(np.int8),
        "float32": net.images / np.float32(255),
    }[kind]
    whole = np.concatenate([classify(image=each[None])[output] for each in pixels])
    scale, zero = given["quantization"] if output_type != "float32" else (1, 0)
    found = (whole.astype(np.float32) - zero) * scale
    expected = net.probabilities if output == "probabilities" else _logits(net)
    atol = 0.05 if output == "probabilities" else 0.05 * np.ptp(expected)
    np.testing.assert_allclose(found, expected, atol=atol)
    if kind == "int8":
        assert image["quantization"] == (1.0, -128) and next(iter(ops(model))) != "QUANTIZE"
    assert ("DEQUANTIZE" in ops(model)) == (output_type == "float32")


def _logits(net: Net) -> np.ndarray:
    import jax.numpy as jnp

    return np.asarray(net.apply(jnp.asarray(net.images)))


def test_the_range_of_bytes_is_whole_whatever_the_calibration_shows(
    net: Net, floats: bytes
) -> None:
    model = make(floats, net, "int8", calibration=net.images // 8)
    (image,) = Interpreter(model_content=model).get_input_details()
    assert image["quantization"] == (1.0, 0)


def test_measured_ranges_do_in_place_of_images(floats: bytes, net: Net) -> None:
    ranges = measure(floats, net.images)
    assert make(floats, net, "int8", calibration=None, ranges=ranges) == make(floats, net, "int8")


def test_a_percentile_narrows_the_ranges(floats: bytes, net: Net) -> None:
    scales = []
    for percentile in (100.0, 90.0):
        model = make(floats, net, "int8", percentile=percentile)
        details = Interpreter(model_content=model).get_tensor_details()
        scales.append(sum(each["quantization"][0] for each in details if each["dtype"] is np.int8))
    assert scales[1] < scales[0]


def test_four_bits_are_packed_two_in_a_byte() -> None:
    weights = np.random.default_rng(0).normal(size=(64, 64)).astype(np.float32)

    def apply(pixels: Any) -> Any:
        return pixels.astype(np.float32).reshape(1, 64) @ weights

    floats = phone_model(apply, (8, 8, 1), 64, Interface(output="logits"), "litert")
    interface = Interface(output="logits")
    sizes = [len(quantize(floats, each, interface=interface)) for each in ("dynamic", "int4")]
    assert sizes[0] - sizes[1] == pytest.approx(64 * 64 / 2, abs=64)


def test_norms_keep_their_vectors_in_floats() -> None:
    import jax
    import jax.numpy as jnp

    from lepton_jax import models
    from lepton_jax.config import Model

    model = models.build(
        Model(name="resnet8", norm="group"), SHAPE, 10, mean=[0.5] * 3, std=[0.2] * 3
    )
    variables = jax.tree.map(np.asarray, jax.jit(model.init)(jax.random.key(0)))
    images = np.random.default_rng(0).integers(256, size=(16, *SHAPE)).astype(np.uint8)
    expected = jax.nn.softmax(jax.jit(model.apply)(variables, jnp.asarray(images)), axis=-1)
    floats = phone_model(lambda x: model.apply(variables, x), SHAPE, 10, Interface(), "litert")
    found = answers(
        quantize(floats, "int8", interface=Interface(), calibration=images), images
    ).scores
    np.testing.assert_allclose(found, expected, atol=0.05)


def test_16x8_warns_of_its_pace(floats: bytes, net: Net, caplog: pytest.LogCaptureFixture) -> None:
    make(floats, net, "16x8")
    assert "16x8: about 100 times slower" in caplog.text


def test_an_unknown_variant_is_refused(floats: bytes, net: Net) -> None:
    with pytest.raises(UserError, match=r"variant: expected one of float32, .*, got 'int2'"):
        make(floats, net, "int2")


@pytest.mark.parametrize("variant", ["float32", "float16", "16x8", "int4"])
def test_bytes_less_128_are_for_int8_alone(floats: bytes, net: Net, variant: str) -> None:
    with pytest.raises(
        UserError, match=rf"interface\.input: expected uint8 or float32 for {variant}"
    ):
        make(floats, net, variant, interface=Interface(input="int8"))


def test_a_model_of_several_signatures_is_refused() -> None:
    entries = [Entry(name, lambda x: {"y": x + 1}, {"x": spec(3)}) for name in ("one", "two")]
    with pytest.raises(UserError, match="int4: expected a model with one signature, got 2"):
        quantize(convert(entries, "litert"), "int4", interface=Interface())


@pytest.mark.parametrize("variant", ["int8", "16x8"])
def test_integers_need_images(floats: bytes, net: Net, variant: str) -> None:
    for images in (None, net.images[:9], net.images[..., :1]):
        with pytest.raises(UserError, match="calibration: expected at least 10 images"):
            make(floats, net, variant, calibration=images)
