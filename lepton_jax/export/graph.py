"""A phone model's graph: what each op takes and gives, computes and moves; and parts of it as models."""

from collections.abc import Iterator, Sequence
from math import prod
from typing import Any, NamedTuple

from lepton_jax.checks import UserError
from lepton_jax.export.flatbuffer import op_codes, pack, unpack
from lepton_jax.export.interpreter import SIGNATURE
from lepton_jax.export.surgery import type_name

_BITS = {
    **{"FLOAT64": 64, "INT64": 64, "UINT64": 64, "COMPLEX64": 64, "COMPLEX128": 128},
    **{"FLOAT32": 32, "INT32": 32, "UINT32": 32, "FLOAT16": 16, "BFLOAT16": 16},
    **{"INT16": 16, "UINT16": 16, "INT8": 8, "UINT8": 8, "BOOL": 8, "INT4": 4, "INT2": 2},
}
_CONVOLUTIONS = ("CONV_2D", "DEPTHWISE_CONV_2D", "TRANSPOSE_CONV", "CONV_3D")
_PRODUCTS = (*_CONVOLUTIONS, "FULLY_CONNECTED", "BATCH_MATMUL")


class Tensor(NamedTuple):
    """An array in a graph; an axis whose length is open counts as 1.

    Attributes:
      shape: its axes.
      kind: as TFLite calls it, `FLOAT32`.
      constant: whether its values are in the file.
    """

    shape: tuple[int, ...]
    kind: str
    constant: bool

    @property
    def bytes(self) -> int:
        """What its values take, rounded up."""
        return -(-prod(self.shape) * _BITS.get(self.kind, 0) // 8)


class Op(NamedTuple):
    """One operation: its name, and the numbers of the tensors that it takes and gives."""

    name: str
    inputs: tuple[int, ...]
    outputs: tuple[int, ...]


class Graph(NamedTuple):
    """The operations behind one signature, in the order in which they run."""

    tensors: tuple[Tensor, ...]
    ops: tuple[Op, ...]
    inputs: tuple[int, ...]
    outputs: tuple[int, ...]


def read(model: bytes, signature: str = SIGNATURE) -> Graph:
    """The graph behind a signature.

    Args:
      model: the content of a .tflite file that was made here: one of unknown origin may take for
        ever.
      signature: its name.

    Raises:
      UserError: the model has no such signature.
    """
    content = unpack(model)
    graph = content.subgraphs[_place(content, signature)]
    codes = op_codes(content)

    def tensor(each: Any) -> Tensor:
        shape = [] if each.shape is None else [int(side) for side in each.shape]
        for axis, side in enumerate([] if each.shapeSignature is None else each.shapeSignature):
            shape[axis] = 1 if side < 0 else shape[axis]
        constant = content.buffers[each.buffer].data is not None
        return Tensor(tuple(shape), type_name(each), constant)

    def op(each: Any) -> Op:
        given = () if each.inputs is None else (int(i) for i in each.inputs if i >= 0)
        return Op(codes[each.opcodeIndex], tuple(given), tuple(int(i) for i in each.outputs))

    return Graph(
        tuple(tensor(each) for each in graph.tensors),
        tuple(op(each) for each in graph.operators or ()),
        tuple(int(i) for i in graph.inputs),
        tuple(int(i) for i in graph.outputs),
    )


def multiply_adds(graph: Graph, op: Op) -> int:
    """Those of a convolution or a matrix product; 0 for whatever else.

    >>> convolution = Op("CONV_2D", (0, 1), (2,))
    >>> shapes = ((1, 28, 28, 1), (32, 3, 3, 1), (1, 26, 26, 32))
    >>> tensors = tuple(Tensor(shape, "FLOAT32", False) for shape in shapes)
    >>> multiply_adds(Graph(tensors, (convolution,), (0,), (2,)), convolution)
    194688
    """
    if op.name not in _PRODUCTS:
        return 0
    given = prod(graph.tensors[op.outputs[0]].shape)
    first, kernel = (graph.tensors[i].shape for i in op.inputs[:2])
    match op.name:
        case "CONV_2D" | "FULLY_CONNECTED":
            return given * prod(kernel[1:])
        case "DEPTHWISE_CONV_2D":
            return given * prod(kernel[:-1])
        case "CONV_3D":
            return given * prod(kernel[:-1])
        case "TRANSPOSE_CONV":  # (output shape, kernel, input)
            return prod(graph.tensors[op.inputs[2]].shape) * prod(kernel[:-1])
    # [..., M, K] times [..., K, N], either one stored transposed.
    return given * prod(first[-2:]) // graph.tensors[op.outputs[0]].shape[-2]


def running(graph: Graph) -> tuple[Op, ...]:
    """The ops that run for every image: those of constants alone run once, when a model is opened."""
    fixed = {i for i, tensor in enumerate(graph.tensors) if tensor.constant}
    kept = []
    for op in graph.ops:
        if op.inputs and fixed.issuperset(op.inputs):
            fixed.update(op.outputs)
        else:
            kept.append(op)
    return tuple(kept)


def moved(graph: Graph, op: Op) -> int:
    """The bytes that an op reads and writes: inputs, weights and outputs, each once."""
    return sum(graph.tensors[i].bytes for i in (*op.inputs, *op.outputs))


def left_over(graph: Graph, taken: Sequence[tuple[Sequence[int], Sequence[int]]]) -> Iterator[Op]:
    """The ops that run for every image and that no delegate took.

    Args:
      graph: a model's.
      taken: inputs and outputs of each part that a delegate took over.
    """
    makers = {i: number for number, op in enumerate(graph.ops) for i in op.outputs}
    absorbed: set[int] = set()
    for given, made in taken:
        todo = list(made)
        while todo:
            number = makers.get(todo.pop())
            if number is None or number in absorbed:
                continue
            absorbed.add(number)
            todo += [i for i in graph.ops[number].inputs if i not in given]
    left = {op for number, op in enumerate(graph.ops) if number not in absorbed}
    return (op for op in running(graph) if op in left)


# --- parts ----------------------------------------------------------------------------------------


def alone(model: bytes, number: int, signature: str = SIGNATURE) -> bytes:
    """A model of one op, with its own weights.

    Args:
      model: the content of a .tflite file that was made here.
      number: of the op in the signature's graph.
      signature: its name.
    """
    content = unpack(model)
    graph = content.subgraphs[_place(content, signature)]
    op = graph.operators[number]
    order = list(dict.fromkeys(int(i) for i in (*op.inputs, *op.outputs) if i >= 0))
    place = {old: new for new, old in enumerate(order)} | {-1: -1}
    constant = [i for i in order if content.buffers[graph.tensors[i].buffer].data is not None]
    graph.tensors = [graph.tensors[i] for i in order]
    content.buffers = [
        content.buffers[0],
        *(content.buffers[each.buffer] for each in graph.tensors),
    ]
    for new, each in enumerate(graph.tensors):
        each.buffer = new + 1
    graph.inputs = [place[int(i)] for i in op.inputs if i >= 0 and i not in constant]
    op.inputs, op.outputs = ([place[int(i)] for i in each] for each in (op.inputs, op.outputs))
    graph.outputs, graph.operators = list(op.outputs), [op]
    content.subgraphs, content.signatureDefs, content.metadata = [graph], [], []
    return pack(content, len(model))


def logits_of(model: bytes, signature: str = SIGNATURE) -> bytes | None:
    """The same model with its logits for the output, all else being equal.

    Args:
      model: the content of a .tflite file that was made here.
      signature: its name.

    Returns:
      None where there is no softmax, or one of integers, whose input is no float.
    """
    content = unpack(model)
    graph = content.subgraphs[_place(content, signature)]
    names = op_codes(content)
    last = [op for op in graph.operators if names[op.opcodeIndex] == "SOFTMAX"]
    if not last or type_name(graph.tensors[last[-1].inputs[0]]) != "FLOAT32":
        return None
    logits = int(last[-1].inputs[0])
    graph.operators = graph.operators[: graph.operators.index(last[-1])]
    graph.outputs = [logits]
    content.subgraphs, content.signatureDefs = [graph], [_sole(content, signature, logits)]
    return pack(content, len(model))


def _sole(content: Any, signature: str, logits: int) -> Any:
    """The signature, giving logits alone."""
    kept = next(each for each in content.signatureDefs if each.signatureKey.decode() == signature)
    output = kept.outputs[0]
    output.name, output.tensorIndex = b"logits", logits
    kept.outputs, kept.subgraphIndex = [output], 0
    return kept


def _place(content: Any, signature: str) -> int:
    """The number of a signature's graph."""
    found = {each.signatureKey.decode(): each.subgraphIndex for each in content.signatureDefs or ()}
    if signature not in found:
        raise UserError("model", f"a signature {signature!r}", ", ".join(found) or "none")
    return found[signature]
