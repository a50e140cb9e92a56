import jax
import jax.numpy as jnp
import numpy as np
import pytest
from ai_edge_litert.interpreter import Interpreter

from lepton_jax import models
from lepton_jax.checks import UserError
from lepton_jax.export import graph as graphs
from lepton_jax.export.answers import answers
from lepton_jax.export.graph import Graph, Op, Tensor
from tests.lepton_jax.export.conftest import SHAPE, Net
from tests.lepton_jax.export.made import classifier, made


@pytest.fixture(scope="module")
def model(net: Net) -> bytes:
    return made(
        lambda image: {"probabilities": jax.nn.softmax(net.apply(image))}, (1, *SHAPE), "uint8"
    )


def run(model: bytes, inputs: list[np.ndarray]) -> list[np.ndarray]:
    interpreter = Interpreter(model_content=model)
    interpreter.allocate_tensors()
    for detail, value in zip(interpreter.get_input_details(), inputs, strict=True):
        interpreter.set_tensor(detail["index"], value)
    interpreter.invoke()
    return [interpreter.get_tensor(each["index"]) for each in interpreter.get_output_details()]


@pytest.mark.parametrize("name", ["keras_cnn", "resnet8"])
def test_multiply_adds_are_those_of_the_layers(name: str) -> None:
    config, apply, shape = classifier(name)
    graph = graphs.read(made(lambda x: {"logits": apply(x)}, (1, *shape), "uint8"))
    found = sum(graphs.multiply_adds(graph, op) for op in graph.ops)
    assert found == models.summary(config, shape, 10).multiply_adds


def test_products_of_matrices_count_however_they_are_stored() -> None:
    shapes = ((2, 3, 5), (2, 7, 5), (2, 3, 7))  # the second one transposed
    tensors = tuple(Tensor(shape, "FLOAT32", False) for shape in shapes)
    op = Op("BATCH_MATMUL", (0, 1), (2,))
    assert graphs.multiply_adds(Graph(tensors, (op,), (0, 1), (2,)), op) == 2 * 3 * 5 * 7


def test_bytes_moved_count_inputs_weights_and_outputs() -> None:
    shapes = {(1, 4): "INT8", (3, 5): "INT4", (3,): "FLOAT32"}
    tensors = tuple(Tensor(shape, kind, False) for shape, kind in shapes.items())
    op = Op("FULLY_CONNECTED", (0, 1), (2,))
    assert graphs.moved(Graph(tensors, (op,), (0,), (2,)), op) == 4 + 8 + 12


def test_the_ops_one_after_another_are_the_model(model: bytes, net: Net) -> None:
    graph = graphs.read(model)
    values = {graph.inputs[0]: net.images[:1]}
    for number, op in enumerate(graph.ops):
        given = [values[i] for i in op.inputs if not graph.tensors[i].constant]
        made_here = run(graphs.alone(model, number), given)
        values |= dict(zip(op.outputs, made_here, strict=True))
    np.testing.assert_allclose(values[graph.outputs[0]], net.probabilities[:1], atol=1e-5)


def test_the_logits_of_a_model_are_those_of_jax(model: bytes, net: Net) -> None:
    bare = graphs.logits_of(model)
    assert bare is not None
    found = answers(bare, net.images)
    assert found.form == "logits"
    np.testing.assert_allclose(found.scores, net.apply(jnp.asarray(net.images)), atol=1e-4)
    names = [op.name for op in graphs.read(model).ops]
    assert [op.name for op in graphs.read(bare).ops] == names[:-1]
    assert graphs.logits_of(bare) is None


def test_what_no_part_takes_is_left_over() -> None:
    names = ("CAST", "CONV_2D", "PAD", "CONV_2D", "SOFTMAX")
    ops = tuple(Op(name, (i,), (i + 1,)) for i, name in enumerate(names))
    graph = Graph((Tensor((1,), "FLOAT32", False),) * 6, ops, (0,), (5,))
    left = graphs.left_over(graph, [([1], [2]), ([3], [5])])
    assert [op.name for op in left] == ["CAST", "PAD"]
    assert list(graphs.left_over(graph, [])) == list(ops)


def test_what_is_made_of_constants_alone_runs_once() -> None:
    ops = (Op("DEQUANTIZE", (0,), (1,)), Op("TRANSPOSE", (1,), (2,)), Op("CONV_2D", (3, 2), (4,)))
    tensors = tuple(Tensor((1,), "FLOAT16", i == 0) for i in range(5))
    graph = Graph(tensors, ops, (3,), (4,))
    assert graphs.running(graph) == tuple(graphs.left_over(graph, [])) == ops[2:]


def test_another_signature_is_named(model: bytes) -> None:
    with pytest.raises(UserError, match="model: expected a signature 'train', got classify"):
        graphs.read(model, "train")
