"""What a .tflite file can be asked by name, and whether a browser can ask it."""

from collections.abc import Iterable, Mapping
from typing import NamedTuple

from lepton_jax.checks import UserError
from lepton_jax.export.outline import Tensor, read_outline

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
_IN_BROWSERS = ("float32", "int32", "uint8")  # LiteRT.js opens no file with others in a signature


class Signature(NamedTuple):
    """Tensors by name."""

    inputs: dict[str, Tensor]
    outputs: dict[str, Tensor]


def signatures(model: bytes, where: str) -> dict[str, Signature]:
    """The signatures of a .tflite file by name.

    Args:
      model: the content of the file.
      where: what a message calls it.

    Raises:
      UserError: it is no sound .tflite file.
    """

    def named(tensors: Iterable[Tensor]) -> dict[str, Tensor]:
        return {tensor.name: tensor for tensor in tensors}

    found = read_outline(model, where).signatures
    return {
        name: Signature(named(each.inputs), named(each.outputs)) for name, each in found.items()
    }


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
        for tensor in (given.inputs | given.outputs).values():
            if tensor.dtype not in _IN_BROWSERS:
                expected = f"tensors of {', '.join(_IN_BROWSERS)}, which browsers take"
                raise UserError(where, expected, f"{name}'s {tensor.name} of {tensor.dtype}")
