"""A classifier of 8x8 colour images, three classes, written op by op: no converter is needed."""

from typing import Any, NamedTuple

import numpy as np

from lepton_jax.export.extras import schema
from lepton_jax.export.flatbuffer import pack

SIDE, CLASSES = 8, 3


class _Parts(NamedTuple):
    tensors: list[Any]
    buffers: list[Any]
    codes: list[Any]
    operators: list[Any]


def tiny(kind: str = "uint8", *, colours: int = 3, seed: int = 0) -> bytes:
    """The content of a .tflite file.

    Args:
      kind: `uint8`: bytes in, computed in float32; `float32`: bytes / 255 in; `int8`: bytes in and
        out, computed in int8.
      colours: of the images, 3 or 1.
      seed: of the weights.
    """
    shape, rng = (1, SIDE, SIDE, colours), np.random.default_rng(seed)
    weights = rng.normal(size=(CLASSES, SIDE * SIDE * colours), scale=0.16).astype(np.float32)
    parts = _Parts([], [schema().BufferT()], [], [])
    built = (
        _integer(parts, shape, weights) if kind == "int8" else _real(parts, shape, weights, kind)
    )
    return _model(parts, *built)


def images(count: int = 6, colours: int = 3) -> np.ndarray:
    """Raw bytes, [N, 8, 8, F]."""
    return np.random.default_rng(1).integers(256, size=(count, SIDE, SIDE, colours), dtype=np.uint8)


def _real(parts: _Parts, shape: tuple[int, ...], weights: np.ndarray, kind: str) -> tuple[int, int]:
    tflite = schema()
    types = tflite.TensorType
    taken = _tensor(parts, "image", shape, types.FLOAT32 if kind == "float32" else types.UINT8)
    scale = 1.0 if kind == "float32" else 1 / 255
    image = taken
    if kind != "float32":
        image = _tensor(parts, "real", shape, types.FLOAT32)
        _op(parts, tflite.BuiltinOperator.CAST, [taken], [image])
    matrix = _constant(parts, "weights", weights * np.float32(scale), types.FLOAT32)
    logits = _tensor(parts, "logits", (1, CLASSES), types.FLOAT32)
    _dense(parts, image, matrix, logits)
    given = _tensor(parts, "probabilities", (1, CLASSES), types.FLOAT32)
    _softmax(parts, logits, given)
    return taken, given


def _integer(parts: _Parts, shape: tuple[int, ...], weights: np.ndarray) -> tuple[int, int]:
    tflite = schema()
    types, step = tflite.TensorType, float(np.abs(weights).max()) / 127 / 255
    taken = _tensor(parts, "image", shape, types.UINT8, (1.0, 0))
    image = _tensor(parts, "shifted", shape, types.INT8, (1.0, -128))
    _op(parts, tflite.BuiltinOperator.QUANTIZE, [taken], [image])
    whole = np.rint(weights / 255 / step).astype(np.int8)
    matrix = _constant(parts, "weights", whole, types.INT8, (step, 0))
    logits = _tensor(parts, "logits", (1, CLASSES), types.INT8, (0.05, 0))
    _dense(parts, image, matrix, logits)
    chosen = _tensor(parts, "chosen", (1, CLASSES), types.INT8, (1 / 256, -128))
    _softmax(parts, logits, chosen)
    given = _tensor(parts, "probabilities", (1, CLASSES), types.UINT8, (1 / 256, 0))
    _op(parts, tflite.BuiltinOperator.QUANTIZE, [chosen], [given])
    return taken, given


def _dense(parts: _Parts, image: int, matrix: int, logits: int) -> None:
    tflite = schema()
    code = tflite.BuiltinOperator.FULLY_CONNECTED
    options = tflite.FullyConnectedOptionsT()
    kind = tflite.BuiltinOptions.FullyConnectedOptions
    _op(parts, code, [image, matrix, -1], [logits], (kind, options))


def _softmax(parts: _Parts, logits: int, given: int) -> None:
    tflite = schema()
    options = tflite.SoftmaxOptionsT()
    options.beta = 1.0
    kind = tflite.BuiltinOptions.SoftmaxOptions
    _op(parts, tflite.BuiltinOperator.SOFTMAX, [logits], [given], (kind, options))


def _tensor(
    parts: _Parts,
    name: str,
    shape: tuple[int, ...],
    kind: int,
    quantization: tuple[float, int] | None = None,
    buffer: int = 0,
) -> int:
    tflite = schema()
    tensor = tflite.TensorT()
    tensor.name, tensor.shape, tensor.type, tensor.buffer = name, list(shape), kind, buffer
    if quantization is not None:
        tensor.quantization = tflite.QuantizationParametersT()
        tensor.quantization.scale, tensor.quantization.zeroPoint = ([each] for each in quantization)
    parts.tensors.append(tensor)
    return len(parts.tensors) - 1


def _constant(
    parts: _Parts,
    name: str,
    value: np.ndarray,
    kind: int,
    quantization: tuple[float, int] | None = None,
) -> int:
    buffer = schema().BufferT()
    buffer.data = np.frombuffer(value.tobytes(), np.uint8)
    parts.buffers.append(buffer)
    return _tensor(parts, name, value.shape, kind, quantization, len(parts.buffers) - 1)


def _op(
    parts: _Parts, code: int, inputs: list[int], outputs: list[int], options: Any = None
) -> None:
    tflite = schema()
    known = [each.builtinCode for each in parts.codes]
    if code not in known:
        entry = tflite.OperatorCodeT()
        entry.builtinCode, entry.deprecatedBuiltinCode, entry.version = code, min(code, 127), 1
        parts.codes.append(entry)
        known.append(code)
    operator = tflite.OperatorT()
    operator.opcodeIndex, operator.inputs, operator.outputs = known.index(code), inputs, outputs
    if options is not None:
        operator.builtinOptionsType, operator.builtinOptions = options
    parts.operators.append(operator)


def _model(parts: _Parts, taken: int, given: int) -> bytes:
    tflite = schema()
    graph, model = tflite.SubGraphT(), tflite.ModelT()
    graph.name, graph.tensors, graph.operators = "main", parts.tensors, parts.operators
    graph.inputs, graph.outputs = [taken], [given]
    signature = tflite.SignatureDefT()
    signature.signatureKey, signature.subgraphIndex = "classify", 0
    signature.inputs, signature.outputs = [tflite.TensorMapT()], [tflite.TensorMapT()]
    signature.inputs[0].name, signature.inputs[0].tensorIndex = "image", taken
    signature.outputs[0].name, signature.outputs[0].tensorIndex = "probabilities", given
    model.version, model.operatorCodes, model.buffers = 3, parts.codes, parts.buffers
    model.subgraphs, model.signatureDefs = [graph], [signature]
    return pack(model, 1024)
