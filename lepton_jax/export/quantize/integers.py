"""Integers throughout: weights by channel, activations over ranges that were measured beforehand."""

from typing import Any, NamedTuple

import numpy as np

from lepton_jax.export import scales
from lepton_jax.export.flatbuffer import op_codes
from lepton_jax.export.quantize.weights import CHANNELS, store
from lepton_jax.export.ranges import Ranges
from lepton_jax.export.scales import Scale
from lepton_jax.export.surgery import add_tensor, is_constant, make_op, type_name, values

_SLICING = ("STRIDED_SLICE", "SLICE")
_KEEPING = ("MAX_POOL_2D", "AVERAGE_POOL_2D", "RESHAPE", "TRANSPOSE", "PAD", *_SLICING)  # the scale
_MEASURED = ("ADD", "SUB", "MUL", "MEAN", "SUM")
_BIAS_TOP = 2**30


class Plan(NamedTuple):
    """How a float graph becomes one of integers.

    Attributes:
      ranges: of its tensors by name.
      bits: of activations, 8 or 16.
      weight_bits: of weights.
      input: `uint8`, `int8` or `float32`.
      output: likewise.
    """

    ranges: Ranges
    bits: int
    weight_bits: int
    input: str
    output: str


class _Work(NamedTuple):
    """A graph on the way: the ops so far, and each float tensor's integers with their scale."""

    content: Any
    graph: Any
    plan: Plan
    ops: list[Any]
    integers: dict[int, int]
    floats: set[int]
    scale: dict[int, Scale]


def to_integer_graph(content: Any, plan: Plan) -> None:
    """Rewrites a model of one float graph in place.

    Ops without an integer form, and those on vectors of a norm, stay in float32, with the
    conversions around them.
    """
    (graph,) = content.subgraphs
    codes = op_codes(content)
    work = _Work(content, graph, plan, [], {}, {int(i) for i in graph.inputs}, {})
    for op in graph.operators:
        name = codes[op.opcodeIndex]
        if name == "CAST" and int(op.inputs[0]) in graph.inputs and plan.bits == 8:
            _take_bytes(work, int(op.inputs[0]), int(op.outputs[0]))
        elif _is_integer(work, op, name):
            _emit_integer(work, op, name)
        else:
            for index in op.inputs:
                _need_floats(work, int(index))
            work.floats.update(int(i) for i in op.outputs)
            work.ops.append(op)
    _finish(work)
    graph.operators = work.ops


def _is_integer(work: _Work, op: Any, name: str) -> bool:
    given, made = int(op.inputs[0]), work.graph.tensors[op.outputs[0]]
    if type_name(made) != "FLOAT32":
        return False
    if name in CHANNELS:
        return is_constant(work.content, work.graph, int(op.inputs[1]))
    if name in _KEEPING:  # as what it is given
        return given in work.integers
    if name == "SOFTMAX":
        return work.plan.output != "float32"
    return name in _MEASURED and len(work.graph.tensors[given].shape) > 2


def _emit_integer(work: _Work, op: Any, name: str) -> None:
    graph, made = work.graph, int(op.outputs[0])
    inputs = [int(i) for i in op.inputs]
    if name in CHANNELS:
        op.inputs = np.array(_weighted(work, inputs, CHANNELS[name]), np.int32)
        scale = _measured(work, made)
    else:
        floats = [i for i in inputs if type_name(graph.tensors[i]) == "FLOAT32"]
        taken = {i: _as_integers(work, i) for i in floats}
        op.inputs = np.array([taken.get(i, i) for i in inputs], np.int32)
        if name in _KEEPING:
            scale = work.scale[inputs[0]]
        elif name == "SOFTMAX":
            scale = Scale(np.array([1 / 256], np.float32), -128)
        else:
            scale = _measured(work, made)
    _note(work, made, scale)
    op.outputs = np.array([work.integers[made]], np.int32)
    work.ops.append(op)


def _weighted(work: _Work, inputs: list[int], axis: int) -> list[int]:
    """The integers of an op's input, weights and bias."""
    content, graph, plan = work.content, work.graph, work.plan
    given = _as_integers(work, inputs[0])
    step = float(work.scale[inputs[0]].scale[0])
    has_bias = len(inputs) > 2 and inputs[2] >= 0
    bias = values(content, graph.tensors[inputs[2]]) if has_bias else np.zeros(1, np.float32)
    floor = np.abs(bias.astype(np.float64)) / (step * _BIAS_TOP) if plan.bits == 8 else 0.0
    weights = store(content, graph, inputs[1], axis, plan.weight_bits, floor)
    if not has_bias:
        return [given, weights, *inputs[2:]]
    kind = 32 if plan.bits == 8 else 64
    by_channel = np.asarray(graph.tensors[weights].quantization.scale, np.float64) * step
    whole = np.round(bias.astype(np.float64) / by_channel).astype(np.int64)
    stored = add_tensor(
        content, graph, graph.tensors[inputs[2]], f"INT{kind}", scales.packed(whole, kind)
    )
    graph.tensors[stored].quantization = scales.note(Scale(by_channel.astype(np.float32)))
    return [given, weights, stored]


def _as_integers(work: _Work, index: int) -> int:
    """A tensor's integers: there already, stored, or made of its floats by an op."""
    if index not in work.integers:
        content, graph, bits = work.content, work.graph, work.plan.bits
        if is_constant(content, graph, index):
            floats = values(content, graph.tensors[index])
            scale = scales.of_range(float(floats.min()), float(floats.max()), bits)
            data = scales.packed(scales.to_integers(floats, scale, bits), bits)
            _note(work, index, scale, data)
        else:
            _note(work, index, _measured(work, index))
            work.ops.append(make_op(content, "QUANTIZE", [index], [work.integers[index]]))
    return work.integers[index]


def _need_floats(work: _Work, index: int) -> None:
    """Sees that a tensor's floats are there."""
    if index not in work.integers or index in work.floats:
        return
    if not is_constant(work.content, work.graph, index):
        work.ops.append(make_op(work.content, "DEQUANTIZE", [work.integers[index]], [index]))
    work.floats.add(index)


def _measured(work: _Work, index: int) -> Scale:
    name = work.graph.tensors[index].name
    low, high = work.plan.ranges[name.decode() if isinstance(name, bytes) else name]
    return scales.of_range(low, high, work.plan.bits)


def _note(work: _Work, index: int, scale: Scale, data: np.ndarray | None = None) -> None:
    like = work.graph.tensors[index]
    made = add_tensor(work.content, work.graph, like, f"INT{work.plan.bits}", data)
    work.graph.tensors[made].quantization = scales.note(scale)
    work.integers[index], work.scale[index] = made, scale


# --- the ends -------------------------------------------------------------------------------------


def _take_bytes(work: _Work, given: int, floats: int) -> None:
    """Raw bytes are the integers themselves, 128 less: no float comes between."""
    graph = work.graph
    whole = Scale(np.ones(1, np.float32), -128)
    _note(work, floats, whole)
    if work.plan.input == "int8":
        _rewire(work, given, work.integers[floats], "inputs")
        return
    graph.tensors[given].quantization = scales.note(Scale(np.ones(1, np.float32)))
    work.ops.append(make_op(work.content, "QUANTIZE", [given], [work.integers[floats]]))


def _finish(work: _Work) -> None:
    """Gives the outputs as they are asked for."""
    for index in [int(i) for i in work.graph.outputs]:
        if index not in work.integers:
            continue
        if work.plan.output == "float32":
            _need_floats(work, index)
            continue
        made = work.integers[index]
        if work.plan.output == "uint8":
            signed = work.scale[index]
            given = add_tensor(work.content, work.graph, work.graph.tensors[index], "UINT8")
            shifted = Scale(signed.scale, signed.zero + 128)
            work.graph.tensors[given].quantization = scales.note(shifted)
            work.ops.append(make_op(work.content, "QUANTIZE", [made], [given]))
            made = given
        _rewire(work, index, made, "outputs")


def _rewire(work: _Work, old: int, new: int, ends: str) -> None:
    """Puts a tensor in the place of an input or output of the graph and its signature."""
    (signature,) = work.content.signatureDefs
    indices = [new if int(i) == old else int(i) for i in getattr(work.graph, ends)]
    setattr(work.graph, ends, np.array(indices, np.int32))
    for each in getattr(signature, ends):
        if each.tensorIndex == old:
            each.tensorIndex = new
