"""A phone model for a fixed number of images at a time, or for as many as are given."""

from collections.abc import Callable, Sequence
from typing import Any, Literal

import numpy as np

from lepton_jax.checks import UserError
from lepton_jax.export.convert import Entry, choose, convert
from lepton_jax.export.flatbuffer import constant, op_codes, pack, unpack

_FEW, _MORE = 2, 3  # of 1 the converters make something else
_ANY = -1


def convert_batch(
    entries: Callable[[int], Sequence[Entry]],
    batch: int | Literal["dynamic"],
    converter: str = "auto",
) -> bytes:
    """Converts functions for a number of images, or for any number.

    A symbolic batch would leave nothing folded or fused. So for `dynamic` the functions are traced
    for two numbers of images; what differs between the files is what depends on the batch, and is
    marked as unknown.

    Args:
      entries: the signatures for a number of images, their first axis.
      batch: the number, or `dynamic`.
      converter: as `convert` takes it.

    Returns:
      The content of a .tflite file; with `dynamic` its interpreter starts with one image, and is
      told otherwise by `resize_tensor_input`.

    Raises:
      UserError: as `convert`; a model whose graph is another one for another batch.
    """
    if batch != "dynamic":
        return convert(entries(batch), converter)
    chosen = choose(converter)
    few, more = (convert(entries(number), chosen) for number in (_FEW, _MORE))
    content, other = unpack(few), unpack(more)
    if not _same_graph(content, other):
        raise _refusal("another graph for another batch")
    codes = op_codes(content)
    for graph, twin in zip(content.subgraphs, other.subgraphs, strict=True):
        for tensor, match in zip(graph.tensors, twin.tensors, strict=True):
            _free(tensor, match)
        for op, match in zip(graph.operators, twin.operators, strict=True):
            name = codes[op.opcodeIndex]
            if name == "RESHAPE" and len(op.inputs) == 2:
                _free_shape(content, graph, op, constant(other, twin.tensors[match.inputs[1]]))
            elif name in ("SLICE", "STRIDED_SLICE"):
                end = constant(other, twin.tensors[match.inputs[2]])
                _free_end(content, graph, op, end, twin.tensors[match.inputs[0]].shape)
        for tensor, match in zip(graph.tensors, twin.tensors, strict=True):
            if not _fits(constant(content, tensor), constant(other, match)):
                raise _refusal("a constant that is another one for another batch")
    return pack(content, len(few))


def _same_graph(content: Any, other: Any) -> bool:
    def outline(model: Any) -> list[Any]:
        codes = op_codes(model)
        return [
            (
                len(graph.tensors),
                [(codes[op.opcodeIndex], [*op.inputs], [*op.outputs]) for op in graph.operators],
            )
            for graph in model.subgraphs
        ]

    return outline(content) == outline(other)


def _free(tensor: Any, match: Any) -> None:
    """Marks the axes of a tensor that follow the batch."""
    few, more = (np.asarray([] if each.shape is None else each.shape) for each in (tensor, match))
    same = len(few) == len(more)
    follows = few != more if same else np.zeros(0, bool)
    if not same or not np.array_equal(few[follows] * _MORE, more[follows] * _FEW):
        raise _refusal(f"shapes {few.tolist()} and {more.tolist()} for {_FEW} and {_MORE} images")
    if follows.any():
        tensor.shape = np.where(follows, few // _FEW, few).astype(np.int32)
        tensor.shapeSignature = np.where(follows, -1, few).astype(np.int32)


def _free_shape(content: Any, graph: Any, op: Any, match: np.ndarray) -> None:
    """Leaves it to the interpreter to find the axis that follows the batch in a new shape."""
    told = graph.tensors[op.inputs[1]]
    few = constant(content, told).view(np.int32)
    more = match.view(np.int32)
    if len(few) != len(more) or (few != more).sum() != 1:
        return
    shape = np.where(few != more, _ANY, few).astype(np.int32)
    content.buffers[told.buffer].data = shape.view(np.uint8)
    if op.builtinOptions is not None:
        op.builtinOptions.newShape = shape


def _free_end(content: Any, graph: Any, op: Any, match: np.ndarray, twin_shape: np.ndarray) -> None:
    """Lets a slice that takes all images, as a shortcut that drops pixels does, take any number."""
    given, begin, told = (graph.tensors[i] for i in op.inputs[:3])
    few, more = constant(content, told).view(np.int32), match.view(np.int32)
    if len(few) != len(more) or (few != more).sum() != 1 or given.shapeSignature is None:
        return
    axis = int((few != more).argmax())
    steps = [constant(content, graph.tensors[i]).view(np.int32)[axis] for i in op.inputs[3:]]
    start = constant(content, begin).view(np.int32)[axis]
    if given.shapeSignature[axis] != -1 or more[axis] != twin_shape[axis] or start:
        return
    if steps == [1]:
        op.builtinOptions.endMask |= 1 << axis
    elif steps:
        return
    content.buffers[told.buffer].data = np.where(few != more, _ANY, few).view(np.uint8)


def _fits(few: np.ndarray, more: np.ndarray) -> bool:
    """Whether constants are the same, but for what was left open."""
    if len(few) != len(more):
        return False
    differ = few != more
    return (
        bool((few.view(np.int32)[differ.reshape(-1, 4).any(1)] == _ANY).all())
        if differ.any()
        else True
    )


def _refusal(got: str) -> UserError:
    return UserError(
        "export.interface.batch", "a model that fits any batch", got, "set a number of images"
    )
