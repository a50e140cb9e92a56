"""What a .tflite file says of its graph: signatures, tensors, ops; read safely from any bytes."""

from collections import Counter
from collections.abc import Iterable, Sequence
from typing import NamedTuple, TypeVar

from lepton_jax.checks import UserError
from lepton_jax.export import tables
from lepton_jax.export.extras import schema
from lepton_jax.export.tables import Table

_SHORTEST = 20  # bytes that hold a root table with a field
_Names = dict[int, str]
Item = TypeVar("Item")


class Tensor(NamedTuple):
    """A tensor that goes into a graph or comes out.

    Attributes:
      name: of the signature where it has one, else of the tensor.
      dtype: such as `float32`.
      shape: -1 where a side may change.
      scale: of a quantized tensor: value = scale * (integer - zero_point); 0 where it is none.
      zero_point: as above.
    """

    name: str
    dtype: str
    shape: tuple[int, ...]
    scale: float = 0.0
    zero_point: int = 0


class Signature(NamedTuple):
    """A function of a model.

    Attributes:
      subgraph: its number.
      inputs: by the signature's names.
      outputs: likewise.
    """

    subgraph: int
    inputs: tuple[Tensor, ...]
    outputs: tuple[Tensor, ...]


class Subgraph(NamedTuple):
    """The tensors that a subgraph takes and gives, in its own order and with their own names."""

    inputs: tuple[Tensor, ...]
    outputs: tuple[Tensor, ...]


class Outline(NamedTuple):
    """A model's graph.

    Attributes:
      signatures: by name.
      subgraphs: by number.
      ops: how often each op occurs, in the order of first use; custom ops by their own name.
      tensors: how many there are.
      weight_bytes: of all constant tensors' buffers.
      notes: the model's metadata by name.
    """

    signatures: dict[str, Signature]
    subgraphs: tuple[Subgraph, ...]
    ops: dict[str, int]
    tensors: int
    weight_bytes: int
    notes: dict[str, bytes]


def read_outline(model: bytes, where: str = "model") -> Outline:
    """Reads a model's graph without running anything of it.

    Args:
      model: the content of a .tflite file of any origin.
      where: what a message calls it.

    Raises:
      UserError: it is no .tflite file, or a damaged one; or LiteRT's schema is not installed.
    """
    tflite = schema()
    types = {code: name.lower() for name, code in vars(tflite.TensorType).items() if name[0] != "_"}
    builtin = {code: name for name, code in vars(tflite.BuiltinOperator).items() if name[0] != "_"}
    try:
        if len(model) < _SHORTEST:
            raise ValueError(f"{len(model)} bytes")
        return _graph(tables.root(model, b"TFL3"), types, builtin)
    except ValueError as error:  # UnicodeDecodeError is one
        raise UserError(where, "a sound .tflite file", error) from error


def _graph(model: Table, types: _Names, builtin: _Names) -> Outline:
    subgraphs = model.tables(2)
    if not subgraphs:
        raise ValueError("no graph in it")
    tensors = [tuple(_tensor(each, types) for each in graph.tables(0)) for graph in subgraphs]
    buffers = model.tables(4)
    return Outline(
        signatures=dict(_signature(each, tensors) for each in model.tables(7)),
        subgraphs=tuple(
            Subgraph(_picked(own, graph.numbers(1)), _picked(own, graph.numbers(2)))
            for graph, own in zip(subgraphs, tensors, strict=True)
        ),
        ops=_ops(model, subgraphs, builtin),
        tensors=sum(len(own) for own in tensors),
        weight_bytes=_weight_bytes(subgraphs, buffers),
        notes={
            each.text(0): _picked(buffers, (each.number(1, "<I"),))[0].data(0)
            for each in model.tables(6)
        },
    )


def _tensor(tensor: Table, types: _Names) -> Tensor:
    code = tensor.number(1, "<b")
    shape = tensor.numbers(7) or tensor.numbers(0)
    quantization = tensor.table(4)
    scale = quantization.reals(2) if quantization else ()
    zero = quantization.numbers(3, "<q") if quantization else ()
    return Tensor(
        tensor.text(3),
        types.get(code, f"type {code}"),
        shape,
        # One scale is of the whole tensor; several, by channel, are weights'.
        scale[0] if len(scale) == 1 else 0.0,
        zero[0] if len(zero) == 1 else 0,
    )


def _signature(table: Table, tensors: list[tuple[Tensor, ...]]) -> tuple[str, Signature]:
    number = table.number(4, "<I")
    own = _picked(tensors, (number,))[0]

    def named(slot: int) -> tuple[Tensor, ...]:
        return tuple(
            _picked(own, (each.number(1, "<I"),))[0]._replace(name=each.text(0))
            for each in table.tables(slot)
        )

    return table.text(2), Signature(number, named(0), named(1))


def _ops(model: Table, subgraphs: tuple[Table, ...], builtin: _Names) -> dict[str, int]:
    names = tuple(_op(code, builtin) for code in model.tables(1))
    used = (op.number(0, "<I") for graph in subgraphs for op in graph.tables(3))
    return dict(Counter(_picked(names, (number,))[0] for number in used))


def _op(code: Table, builtin: _Names) -> str:
    # Files from before 2021 keep the number in a byte, now deprecated; the larger one counts.
    number = max(code.number(3), code.number(0, "<b"))
    name = builtin.get(number, f"op {number}")
    return code.text(1) if name == "CUSTOM" else name


def _weight_bytes(subgraphs: tuple[Table, ...], buffers: tuple[Table, ...]) -> int:
    used = {each.number(2, "<I") for graph in subgraphs for each in graph.tables(0)}
    return sum(buffer.length(0) for buffer in _picked(buffers, tuple(sorted(used))))


def _picked(items: Sequence[Item], numbers: Iterable[int]) -> tuple[Item, ...]:
    """Those of the numbers, as the file has them."""
    numbers = tuple(numbers)
    if not all(0 <= number < len(items) for number in numbers):
        raise ValueError(f"a number beyond {len(items)}")
    return tuple(items[number] for number in numbers)
