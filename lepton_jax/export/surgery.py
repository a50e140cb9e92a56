"""Changes of an unpacked .tflite file: tensors and ops that are added, what nobody uses taken out."""

from typing import Any

import numpy as np

from lepton_jax.export.extras import schema
from lepton_jax.export.flatbuffer import constant

DTYPES = {"FLOAT32": np.float32, "FLOAT16": np.float16, "INT32": np.int32, "INT64": np.int64}


def type_code(name: str) -> int:
    """The schema's number of a tensor type, as `FLOAT32` or `INT4`."""
    return getattr(schema().TensorType, name)


def type_name(tensor: Any) -> str:
    """The schema's name of a tensor's type."""
    return {code: name for name, code in vars(schema().TensorType).items()}[tensor.type]


def values(content: Any, tensor: Any) -> np.ndarray:
    """A constant tensor of floats or whole numbers, in its shape."""
    data = constant(content, tensor).view(DTYPES[type_name(tensor)])
    return data.reshape([] if tensor.shape is None else tensor.shape)


def is_constant(content: Any, graph: Any, index: int) -> bool:
    """Whether a tensor's values stand in the file."""
    return bool(len(constant(content, graph.tensors[index])))


def add_tensor(
    content: Any, graph: Any, like: Any, dtype: str, data: np.ndarray | None = None
) -> int:
    """Adds a tensor and gives its number.

    Args:
      content: the model.
      graph: one of its subgraphs.
      like: a tensor of the same shape; its name is not taken over.
      dtype: of the schema.
      data: as stored; None: it is computed.
    """
    tflite = schema()
    tensor = tflite.TensorT()
    tensor.shape, tensor.shapeSignature, tensor.hasRank = like.shape, like.shapeSignature, True
    tensor.type, tensor.name = type_code(dtype), str(len(graph.tensors))
    tensor.quantization = tflite.QuantizationParametersT()
    if data is not None:
        buffer = tflite.BufferT()
        buffer.data = np.ascontiguousarray(data).reshape(-1).view(np.uint8)
        tensor.buffer = len(content.buffers)
        content.buffers.append(buffer)
    graph.tensors.append(tensor)
    return len(graph.tensors) - 1


def make_op(content: Any, name: str, inputs: list[int], outputs: list[int]) -> Any:
    """A new operator without options, for the caller to put in its place."""
    tflite = schema()
    number = getattr(tflite.BuiltinOperator, name)
    op = tflite.OperatorT()
    op.inputs, op.outputs = np.array(inputs, np.int32), np.array(outputs, np.int32)
    for index, code in enumerate(content.operatorCodes):
        if code.builtinCode == number:
            op.opcodeIndex = index
            return op
    code = tflite.OperatorCodeT()
    code.builtinCode = number
    code.deprecatedBuiltinCode = min(number, 127)  # where readers from before 2021 look
    op.opcodeIndex = len(content.operatorCodes)
    content.operatorCodes.append(code)
    return op


def compact(content: Any) -> None:
    """Takes out the tensors, buffers and op codes that nothing uses, and numbers the rest anew."""
    for graph in content.subgraphs:
        _drop_tensors(content, graph)
    codes = sorted({op.opcodeIndex for graph in content.subgraphs for op in graph.operators})
    content.operatorCodes = [content.operatorCodes[code] for code in codes]
    for graph in content.subgraphs:
        for op in graph.operators:
            op.opcodeIndex = codes.index(op.opcodeIndex)
    _drop_buffers(content)


def _drop_tensors(content: Any, graph: Any) -> None:
    signed = [
        each for each in content.signatureDefs if content.subgraphs[each.subgraphIndex] is graph
    ]
    ends = [each for signature in signed for each in (*signature.inputs, *signature.outputs)]
    used = {int(i) for op in graph.operators for i in (*op.inputs, *op.outputs) if i >= 0}
    used |= {int(i) for i in (*graph.inputs, *graph.outputs)} | {each.tensorIndex for each in ends}
    new = {old: number for number, old in enumerate(sorted(used))} | {-1: -1}  # -1: no bias

    def renumber(indices: Any) -> np.ndarray:
        return np.array([new[int(i)] for i in indices], np.int32)

    graph.tensors = [graph.tensors[old] for old in sorted(used)]
    graph.inputs, graph.outputs = renumber(graph.inputs), renumber(graph.outputs)
    for op in graph.operators:
        op.inputs, op.outputs = renumber(op.inputs), renumber(op.outputs)
    for number, tensor in enumerate(graph.tensors):
        tensor.name = str(number)
    for each in ends:
        each.tensorIndex = new[each.tensorIndex]
        graph.tensors[each.tensorIndex].name = each.name


def _drop_buffers(content: Any) -> None:
    """Keeps the first, which is empty by the schema, and those of tensors and metadata; once each."""
    users = [tensor for graph in content.subgraphs for tensor in graph.tensors]
    users += content.metadata or []
    kept: list[Any] = [content.buffers[0]]
    places: dict[bytes, int] = {b"": 0}
    for user in users:
        data = content.buffers[user.buffer].data
        key = b"" if data is None else np.asarray(data, np.uint8).tobytes()
        if key not in places:
            places[key] = len(kept)
            kept.append(content.buffers[user.buffer])
        user.buffer = places[key]
    content.buffers = kept
