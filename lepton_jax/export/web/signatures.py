"""What a .tflite file can be asked, read from its flatbuffer, and whether a browser can ask it."""

from collections.abc import Mapping
from typing import Any, NamedTuple

from lepton_jax.checks import UserError
from lepton_jax.export.extras import schema

Wanted = Mapping[str, tuple[tuple[str, ...], tuple[str, ...]]]  # inputs and outputs by signature

_EXAMPLES = ("image", "label", "weight")
INFER: Wanted = {"classify": (("image",), ("probabilities",))}
TRAINING: Wanted = {
    "infer": (("image",), ("probabilities",)),
    "train": ((*_EXAMPLES, "learning_rate"), ("loss",)),
    "evaluate": (_EXAMPLES, ("loss", "correct", "weight")),
    "get_weights": ((), ("weights",)),
    "set_weights": (("weights",), ()),
}
_IN_BROWSERS = ("FLOAT32", "INT32", "UINT8")  # LiteRT.js opens no file with others in a signature


class Tensor(NamedTuple):
    """An input or output: `dtype` as the schema calls it."""

    dtype: str
    shape: tuple[int, ...]


class Signature(NamedTuple):
    """Tensors by name."""

    inputs: dict[str, Tensor]
    outputs: dict[str, Tensor]


def signatures(model: bytes, where: str) -> dict[str, Signature]:
    """The signatures of a .tflite file by name.

    Args:
      model: the content of a file that was made here: a damaged one may take for ever.
      where: what a message calls it.

    Raises:
      UserError: it is no .tflite file.
    """
    tflite = schema()
    types = {code: name for name, code in vars(tflite.TensorType).items()}

    def tensors(graph: Any, count: int, get: Any) -> dict[str, Tensor]:
        found = {}
        for each in map(get, range(count)):
            tensor = graph.Tensors(each.TensorIndex())
            shape = tuple(tensor.Shape(i) for i in range(tensor.ShapeLength()))
            found[each.Name().decode()] = Tensor(types[tensor.Type()], shape)
        return found

    try:
        content = tflite.Model.GetRootAs(model, 0)
        found = {}
        for each in map(content.SignatureDefs, range(content.SignatureDefsLength())):
            graph = content.Subgraphs(each.SubgraphIndex())
            found[each.SignatureKey().decode()] = Signature(
                tensors(graph, each.InputsLength(), each.Inputs),
                tensors(graph, each.OutputsLength(), each.Outputs),
            )
        return found
    except Exception as error:  # flatbuffers reads wherever a damaged file points to
        raise UserError(where, "a .tflite file", type(error).__name__) from error


def check(found: Mapping[str, Signature], wanted: Wanted, where: str) -> None:
    """Refuses a model that the page could not call.

    Args:
      found: its signatures.
      wanted: the signatures that the page calls, with the inputs they take and the outputs it reads.
      where: what a message calls the model.

    Raises:
      UserError: a signature is missing or takes other inputs, or a browser can't open the file.
    """
    for name, (inputs, outputs) in wanted.items():
        expected = (
            f"the signature {name}({', '.join(inputs)}) -> {', '.join(outputs) or 'anything'}"
        )
        if name not in found:
            raise UserError(where, expected, f"the signatures {', '.join(found) or 'none'}")
        given = found[name]
        if set(given.inputs) != set(inputs) or not set(outputs) <= set(given.outputs):
            got = f"{name}({', '.join(given.inputs)}) -> {', '.join(given.outputs)}"
            raise UserError(where, expected, got)
    for name, given in found.items():
        for tensor, (dtype, _) in (given.inputs | given.outputs).items():
            if dtype not in _IN_BROWSERS:
                expected = f"tensors of {', '.join(_IN_BROWSERS).lower()}, which browsers take"
                raise UserError(where, expected, f"{name}'s {tensor} of {dtype.lower()}")
