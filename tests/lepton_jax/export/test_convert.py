import jax.numpy as jnp
import numpy as np
import pytest
from ai_edge_litert import schema_py_generated as schema
from ai_edge_litert.interpreter import Interpreter

from lepton_jax.checks import UserError
from lepton_jax.export import convert, ops
from lepton_jax.export.flatbuffer import add_notes, notes
from lepton_jax.export.phone import run
from lepton_jax.typing import Logits, Pixels
from tests.lepton_jax.export.conftest import SHAPE, Net

VARIANTS = ("float32", "int8")


@pytest.fixture(scope="module")
def models(net: Net) -> dict[str, bytes]:
    return {name: convert(net.apply, SHAPE, name, net.images) for name in VARIANTS}


@pytest.mark.parametrize("variant", VARIANTS)
def test_the_signature_takes_bytes_and_gives_probabilities(
    models: dict[str, bytes], net: Net, variant: str
) -> None:
    interpreter = Interpreter(model_content=models[variant])
    classify = interpreter.get_signature_runner("classify")
    (image,) = classify.get_input_details().items()
    (output,) = classify.get_output_details().items()
    assert (image[0], image[1]["dtype"], tuple(image[1]["shape"])) == (
        "image",
        np.uint8,
        (1, *SHAPE),
    )
    assert (output[0], output[1]["dtype"]) == ("probabilities", np.float32)
    probabilities = classify(image=net.images[:1])["probabilities"]
    np.testing.assert_allclose(probabilities.sum(), 1, atol=0.02)


@pytest.mark.parametrize("variant", VARIANTS)
def test_notes_are_read_back_and_change_no_answer(
    models: dict[str, bytes], net: Net, variant: str
) -> None:
    noted = add_notes(add_notes(models[variant], {"first": "a" * 64}), {"second": "ä"})
    assert "first" not in notes(models[variant])
    found = notes(noted)
    assert (found["first"], found["second"].decode()) == (b"a" * 64, "ä")
    before, after = (run(model, net.images)[0] for model in (models[variant], noted))
    np.testing.assert_array_equal(before, after)
    assert len(noted) - len(models[variant]) < 512


def test_float32_equals_jax(models: dict[str, bytes], net: Net) -> None:
    np.testing.assert_allclose(run(models["float32"], net.images)[0], net.probabilities, atol=1e-5)


def test_int8_comes_near_jax(models: dict[str, bytes], net: Net) -> None:
    np.testing.assert_allclose(run(models["int8"], net.images)[0], net.probabilities, atol=0.05)


def test_int8_takes_bytes_as_they_are(models: dict[str, bytes]) -> None:
    interpreter = Interpreter(model_content=models["int8"])
    (image,) = interpreter.get_input_details()
    assert image["quantization"] == (1.0, 0)


def test_norms_fold_and_activations_fuse(models: dict[str, bytes]) -> None:
    body = {"CONV_2D": 2, "MAX_POOL_2D": 1, "FULLY_CONNECTED": 1, "SOFTMAX": 1}
    normalization = {"SUB": 1, "MUL": 1}
    found = ops(models["float32"])
    assert found.pop("SUM", 0) + found.pop("MEAN", 0) == 1
    assert found == {"CAST": 1, **normalization, **body}
    found = ops(models["int8"])
    assert found.pop("SUM", 0) + found.pop("MEAN", 0) == 1
    assert found == {"QUANTIZE": 1, **normalization, **body, "DEQUANTIZE": 1}


@pytest.mark.parametrize("variant", VARIANTS)
def test_the_same_model_gives_the_same_bytes(
    models: dict[str, bytes], net: Net, variant: str
) -> None:
    assert convert(net.apply, SHAPE, variant, net.images) == models[variant]


def test_conversion_says_nothing(net: Net, capfd: pytest.CaptureFixture[str]) -> None:
    run(convert(net.apply, SHAPE, "int8", net.images[:2]), net.images[:1])
    assert capfd.readouterr() == ("", "")


def test_an_op_that_phones_lack_is_named() -> None:
    def apply(pixels: Pixels) -> Logits:
        return jnp.sort(pixels.astype(jnp.float32).reshape(1, -1))

    with pytest.raises(UserError, match=r"model: expected only ops that TFLite has, got .*sort"):
        convert(apply, SHAPE, "float32")


def test_an_unknown_variant_is_refused(net: Net) -> None:
    with pytest.raises(UserError, match="variant: expected one of float32, int8, got 'int4'"):
        convert(net.apply, SHAPE, "int4")


@pytest.mark.parametrize("calibration", [None, np.zeros((0, *SHAPE), np.uint8)])
def test_int8_needs_images(net: Net, calibration: np.ndarray | None) -> None:
    with pytest.raises(UserError, match="calibration: expected at least one image"):
        convert(net.apply, SHAPE, "int8", calibration)


def test_tensors_are_aligned_as_the_schema_asks(models: dict[str, bytes]) -> None:
    for content in models.values():
        model = schema.Model.GetRootAs(content, 0)
        buffers = [model.Buffers(i) for i in range(model.BuffersLength())]
        starts = [each._tab.Vector(each._tab.Offset(4)) for each in buffers if each.DataLength()]
        assert len(starts) > 5
        assert all(start % 16 == 0 for start in starts)


def test_tensors_have_short_names(models: dict[str, bytes]) -> None:
    details = Interpreter(model_content=models["float32"]).get_tensor_details()
    names = {each["name"] for each in details}
    assert {"image", "probabilities"} < names
    assert all(name.isdecimal() for name in names - {"image", "probabilities"})
