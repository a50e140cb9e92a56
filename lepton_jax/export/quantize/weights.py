"""Weights in fewer bits, activations in float32."""

from typing import Any

import numpy as np

from lepton_jax.export import scales
from lepton_jax.export.flatbuffer import op_codes
from lepton_jax.export.surgery import add_tensor, is_constant, make_op, type_name, values

# Where an op has its weights, and along which axis their channels lie.
CHANNELS = {"CONV_2D": 0, "DEPTHWISE_CONV_2D": 3, "FULLY_CONNECTED": 0}
_SMALL = 64  # values, of which a scale for each channel would take more than it saves
FINE = 1024  # weights, of which 4 bits save little and lose much


def halve(content: Any) -> None:
    """Stores constants as float16; the phone makes floats of them when it opens the model."""
    for graph in content.subgraphs:
        starts = []
        for index in range(len(graph.tensors)):
            tensor = graph.tensors[index]
            if not is_constant(content, graph, index) or type_name(tensor) != "FLOAT32":
                continue
            floats = values(content, tensor)
            limits = np.finfo(np.float16)
            if floats.size < _SMALL // 4 or np.abs(floats).max() > limits.max:
                continue
            stored = add_tensor(content, graph, tensor, "FLOAT16", floats.astype(np.float16))
            tensor.buffer = 0
            starts.append(make_op(content, "DEQUANTIZE", [stored], [index]))
        graph.operators = starts + graph.operators


def shrink(content: Any, bits: int, *, in_place: bool) -> None:
    """Stores the weights of convolutions and dense layers as integers, by channel.

    Args:
      content: the model.
      bits: 8 or 4.
      in_place: whether their ops take them so, rounding activations as they come; else the phone
        makes floats of them when it opens the model.
    """
    codes = op_codes(content)
    for graph in content.subgraphs:
        starts, done = [], {}
        for op in graph.operators:
            name = codes[op.opcodeIndex]
            if name not in CHANNELS or not is_constant(content, graph, int(op.inputs[1])):
                continue
            index = int(op.inputs[1])
            if index not in done:
                done[index] = _stored(content, graph, index, CHANNELS[name], bits)
                if done[index] != index and not in_place:
                    graph.tensors[index].buffer = 0
                    starts.append(make_op(content, "DEQUANTIZE", [done[index]], [index]))
            if in_place:
                op.inputs = np.array([op.inputs[0], done[index], *op.inputs[2:]], np.int32)
        graph.operators = starts + graph.operators


def _stored(content: Any, graph: Any, index: int, axis: int, bits: int) -> int:
    tensor = graph.tensors[index]
    weights = values(content, tensor)
    if weights.size < _SMALL:
        return index
    return store(content, graph, index, axis, bits if weights.size >= FINE else 8)


def store(
    content: Any, graph: Any, index: int, axis: int, bits: int, floor: np.ndarray | float = 0.0
) -> int:
    """Adds the integers of a constant tensor by channel, and gives their number."""
    tensor = graph.tensors[index]
    weights = values(content, tensor)
    scale = scales.of_weights(weights, axis, bits, floor)
    integers = scales.packed(scales.to_integers(weights, scale, bits), bits)
    stored = add_tensor(content, graph, tensor, f"INT{bits}", integers)
    graph.tensors[stored].quantization = scales.note(scale)
    return stored
