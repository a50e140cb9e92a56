"""What the metadata of a phone model hold, and the numbers by which their schema calls it.

The schema is TFLite Support's `metadata_schema.fbs` 1.1.0 (TensorFlow Lite Support, 2020), a
flatbuffer in the model's note `TFLITE_METADATA`; the files that it names are a zip archive behind
the model's end.
"""

from collections.abc import Mapping
from enum import IntEnum
from typing import Literal, NamedTuple

from lepton_jax.checks import UserError
from lepton_jax.export.interpreter import SIGNATURE
from lepton_jax.export.outline import Outline, Tensor

NOTE, IDENTIFIER, VERSION = "TFLITE_METADATA", b"M001", "1.0.0"
LABELS = "labels.txt"
FILES, FILE_BYTES = 512, 2**24  # behind a model; the bytes of all of them together
Colours = Literal["RGB", "GRAYSCALE"]


class Image(NamedTuple):
    """How an app makes a model's input of an image with bytes of 0..255: (byte - mean) / std.

    An integer input is quantized after that by its own scale, which is 1 in our models.

    Attributes:
      colours: MediaPipe's ImageClassifier takes `RGB` alone.
      mean: of every channel.
      std: of every channel.
      lowest: of the input's values.
      highest: of the input's values.
    """

    colours: Colours
    mean: float
    std: float
    lowest: float
    highest: float


class Metadata(NamedTuple):
    """What a phone model says of itself.

    Attributes:
      name: of the model.
      description: for people.
      version: of the model, as its maker counts.
      author: who made it.
      licence: of the model.
      classes: the K class names, in the order of the outputs.
      labels: their names by locale, in the order in which the file is to list the locales.
      files: further texts by name: the model card, the privacy card.
      image: what goes in; None: as the model's input has it.
    """

    name: str
    description: str = ""
    version: str = ""
    author: str = ""
    licence: str = ""
    classes: tuple[str, ...] = ()
    labels: Mapping[str, tuple[str, ...]] = {}
    files: Mapping[str, str] = {}
    image: Image | None = None


def image_of(graph: Outline) -> Image:
    """How an app makes the input of a model of `convert`, by the type that it takes.

    Args:
      graph: of the model.

    Raises:
      UserError: the model has no signature `classify` that takes an image.
    """
    tensor = input_of(graph)
    colours: Colours = "RGB" if tensor.shape[-1] == 3 else "GRAYSCALE"
    if tensor.dtype == "float32":
        return Image(colours, 0.0, 255.0, 0.0, 1.0)
    lowest = -128.0 if tensor.dtype == "int8" else 0.0
    return Image(colours, 0.0, 1.0, lowest, lowest + 255)


def input_of(graph: Outline) -> Tensor:
    """The image that the signature `classify` takes.

    Raises:
      UserError: there is no such signature, or it takes something else.
    """
    found = graph.signatures.get(SIGNATURE)
    expected = f"a signature {SIGNATURE!r} that takes an image"
    if found is None:
        names = ", ".join(graph.signatures) or "none"
        raise UserError("model", expected, f"the signatures {names}")
    (tensor, *others) = found.inputs or (Tensor("", "nothing", ()),)
    kinds = ("uint8", "int8", "float32")
    if others or len(tensor.shape) != 4 or tensor.dtype not in kinds:
        got = f"{len(found.inputs)} inputs, {tensor.dtype} {list(tensor.shape)}"
        raise UserError("model", expected, got)
    return tensor


# --- the schema's numbers -------------------------------------------------------------------------


class Model(IntEnum):
    """Slots of `ModelMetadata`."""

    NAME, DESCRIPTION, VERSION, SUBGRAPHS, AUTHOR, LICENCE, FILES, PARSER = range(8)


class Subgraph(IntEnum):
    """Slots of `SubGraphMetadata`."""

    NAME, DESCRIPTION, INPUTS, OUTPUTS = range(4)


class TensorSlot(IntEnum):
    """Slots of `TensorMetadata`."""

    NAME, DESCRIPTION, DIMENSIONS, CONTENT, UNITS, STATS, FILES = range(7)


class File(IntEnum):
    """Slots of `AssociatedFile`."""

    NAME, DESCRIPTION, KIND, LOCALE = range(4)


class FileKind(IntEnum):
    """`AssociatedFileType`: texts, labels of a tensor's positions, or of its values."""

    DESCRIPTIONS, AXIS_LABELS, VALUE_LABELS = range(1, 4)


class Holds(IntEnum):
    """`ContentProperties`: what a tensor holds."""

    FEATURES, IMAGE = range(1, 3)


COLOURS: dict[Colours, int] = {"RGB": 1, "GRAYSCALE": 2}
NORMALIZATION = 1  # among `ProcessUnitOptions`
