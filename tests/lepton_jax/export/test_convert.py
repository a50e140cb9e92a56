import logging
from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from ai_edge_litert.interpreter import Interpreter

from lepton_jax.checks import UserError
from lepton_jax.export import ops
from lepton_jax.export.convert import CONVERTERS, Entry, choose, convert
from tests.lepton_jax.export.conftest import SHAPE, Net


def spec(*shape: int, dtype: type = np.float32) -> jax.ShapeDtypeStruct:
    return jax.ShapeDtypeStruct(shape, dtype)


def entries(net: Net) -> list[Entry]:
    def classify(image: jax.Array) -> dict[str, jax.Array]:
        return {"probabilities": jax.nn.softmax(net.apply(image), axis=-1)}

    def scale(x: jax.Array, by: jax.Array, unused: jax.Array) -> dict[str, jax.Array]:
        del unused
        return {"larger": x * by, "bare": x + 1}

    several = {"x": spec(3), "by": spec(1), "unused": spec(2, dtype=np.int32)}
    return [
        Entry("classify", classify, {"image": spec(1, *SHAPE, dtype=np.uint8)}),
        Entry("scale", scale, several),
    ]


@pytest.fixture(scope="module")
def made(net: Net) -> dict[str, bytes]:
    return {name: convert(entries(net), name) for name in CONVERTERS}


@pytest.mark.parametrize("converter", CONVERTERS)
def test_each_function_is_a_signature_and_gives_what_jax_gives(
    made: dict[str, bytes], net: Net, converter: str
) -> None:
    interpreter = Interpreter(model_content=made[converter])
    assert interpreter.get_signature_list() == {
        "classify": {"inputs": ["image"], "outputs": ["probabilities"]},
        "scale": {"inputs": ["by", "unused", "x"], "outputs": ["bare", "larger"]},
    }
    found = interpreter.get_signature_runner("classify")(image=net.images[:1])["probabilities"]
    np.testing.assert_allclose(found, net.probabilities[:1], atol=1e-5)
    x, by = np.arange(3, dtype=np.float32), np.full(1, 2.5, np.float32)
    found = interpreter.get_signature_runner("scale")(x=x, by=by, unused=np.zeros(2, np.int32))
    np.testing.assert_array_equal(found["larger"], x * by)
    np.testing.assert_array_equal(found["bare"], x + 1)


def test_both_converters_make_the_same_graph_up_to_the_form_of_a_mean(
    made: dict[str, bytes],
) -> None:
    first, second = (ops(made[name]) for name in CONVERTERS)
    for found in (first, second):
        assert found.pop("SUM", 0) + found.pop("MEAN", 0) == 1
    assert first == second


@pytest.mark.parametrize("converter", CONVERTERS)
def test_the_same_functions_give_the_same_bytes(
    made: dict[str, bytes], net: Net, converter: str
) -> None:
    assert convert(entries(net), converter) == made[converter]


@pytest.mark.parametrize("converter", CONVERTERS)
def test_conversion_says_nothing(net: Net, converter: str, capfd: pytest.CaptureFixture) -> None:
    convert(entries(net), converter)
    assert capfd.readouterr() == ("", "")


@pytest.mark.parametrize("converter", CONVERTERS)
def test_tensors_have_short_names(made: dict[str, bytes], converter: str) -> None:
    names = {
        each["name"] for each in Interpreter(model_content=made[converter]).get_tensor_details()
    }
    assert {"image", "probabilities"} < names
    assert all(name.isdecimal() for name in names - {"image", "probabilities"})


@pytest.mark.parametrize("converter", CONVERTERS)
@pytest.mark.parametrize(
    ("function", "op"),
    [
        (lambda x: jnp.sort(x), "sort"),
        (lambda x: jnp.linalg.svd(x)[1], "custom_call.*gesdd"),
        (lambda x: jnp.abs(jnp.fft.fft(x)), "fft"),
        (lambda x: jax.pure_callback(lambda y: y, x, x), "custom_call.*callback"),
    ],
)
def test_an_op_that_phones_lack_is_named(
    converter: str, function: Callable[[jax.Array], jax.Array], op: str
) -> None:
    entry = Entry("refused", lambda x: {"y": function(x)}, {"x": spec(4, 4)})
    with pytest.raises(UserError, match=rf"model: expected only ops that TFLite has, got .*{op}"):
        convert([entry], converter)


def test_scalars_are_refused() -> None:
    entry = Entry("rate", lambda x: {"y": x[None]}, {"x": spec()})
    with pytest.raises(UserError, match=r"rate\.x: expected an array.*got a scalar"):
        convert([entry])
    entry = Entry("rate", lambda x: {"y": x[0]}, {"x": spec(1)})
    with pytest.raises(UserError, match=r"rate\.y: expected an array.*got a scalar"):
        convert([entry])


def test_names_are_given_once() -> None:
    entry = Entry("one", lambda x: {"y": x}, {"x": spec(1)})
    for refused in ([], [entry, entry]):
        with pytest.raises(UserError, match="entries: expected at least one"):
            convert(refused)


def test_auto_takes_what_is_installed_and_says_so(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    there: set[str] = {"tensorflow", "litert_converter"}
    monkeypatch.setattr("importlib.util.find_spec", lambda name: name if name in there else None)
    assert choose("auto") == "jax2tf" and "jax2tf" in caplog.text
    there.discard("tensorflow")
    assert choose("auto") == "litert" and "litert" in caplog.text
    with pytest.raises(UserError, match="expected tensorflow to be installed"):
        choose("jax2tf")
    there.clear()
    with pytest.raises(UserError, match="expected tensorflow or litert_converter to be installed"):
        choose("auto")


def test_an_unknown_converter_is_refused() -> None:
    with pytest.raises(UserError, match=r"converter: expected one of auto, jax2tf, litert, got tf"):
        choose("tf")
