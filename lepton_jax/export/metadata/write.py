"""Metadata into a model: a flatbuffer among its notes, and the files behind its end."""

import io
import zipfile
from collections.abc import Mapping, Sequence
from typing import Any

from lepton_jax.checks import UserError
from lepton_jax.export import flatbuffer
from lepton_jax.export.interpreter import SIGNATURE
from lepton_jax.export.metadata.content import (
    COLOURS,
    FILE_BYTES,
    FILES,
    IDENTIFIER,
    LABELS,
    NORMALIZATION,
    NOTE,
    VERSION,
    File,
    FileKind,
    Holds,
    Image,
    Metadata,
    Model,
    Subgraph,
    TensorSlot,
    image_of,
)
from lepton_jax.export.outline import Outline, Tensor, read_outline
from lepton_jax.export.outline import Subgraph as Outputs
from lepton_jax.export.tables import TEXT_BYTES

_Fields = dict[int, Any]
"""Fields by slot: text, table, list of tables, floats, or a byte."""
_NUMBERS = ("int32", "int64")
_EPOCH = (1980, 1, 1, 0, 0, 0)  # every file's time: the same content gives the same bytes


def describe(model: bytes, about: Metadata) -> bytes:
    """Writes into a model what it says of itself; what was said before is replaced.

    It comes last: whatever changes the model afterwards drops the files behind its end. Notes that
    the model holds already are kept. The same arguments give the same bytes. The files aren't
    compressed, since MediaPipe reads no others.

    Args:
      model: the content of a .tflite file with the signature `classify`.
      about: what to say.

    Returns:
      The content of a .tflite file.

    Raises:
      UserError: no such model, lists of labels of different length, a label that is no line, a
        file's name that is none or twice, or more or longer texts than `read` takes.
    """
    graph = read_outline(model)
    image = image_of(graph) if about.image is None else about.image
    _check_texts(about)
    files = _files(about)
    told = flatbuffer.add_notes(model, {NOTE: _metadata(graph, about, image)})
    return _archived(told, files)


def label_file(locale: str) -> str:
    """What the file of a locale's labels is called."""
    return f"labels_{locale}.txt"


def _files(about: Metadata) -> dict[str, bytes]:
    lists = {LABELS: about.classes} if about.classes else {}
    lists |= {label_file(locale): names for locale, names in about.labels.items()}
    for name, labels in lists.items():
        if len(labels) != len(about.classes):
            expected = f"{len(about.classes)} labels, one a class"
            raise UserError(f"metadata: {name}", expected, len(labels))
        if not all(map(_is_line, labels)):
            raise UserError(f"metadata: {name}", "labels of one line each", list(labels))
    for name in (*lists, *about.files):
        plain = name.isascii() and name.isprintable() and not set(name) & {"/", "\\"}
        if not name or not plain or (name in lists and name in about.files):
            raise UserError("metadata", "plain and different file names", repr(name))
    texts = {name: "".join(f"{label}\n" for label in labels) for name, labels in lists.items()}
    files = {name: _bytes(name, text) for name, text in {**texts, **about.files}.items()}
    if len(files) > FILES or sum(map(len, files.values())) > FILE_BYTES:
        expected = f"at most {FILES} files, of {FILE_BYTES:,} bytes together"
        raise UserError("metadata", expected, f"{len(files)} files, more or larger ones")
    return files


def _is_line(label: str) -> bool:
    """Whether a reader of lines finds one there, and not another one behind it."""
    return bool(label.strip()) and f"{label}\n".splitlines() == [label]


def _bytes(name: str, text: str) -> bytes:
    try:
        return text.encode()
    except UnicodeEncodeError as error:  # a folder's name may be anything
        raise UserError(f"metadata: {name}", "Unicode text", ascii(text)) from error


def _check_texts(about: Metadata) -> None:
    for key, text in zip(Metadata._fields[:5], about[:5], strict=True):
        if len(_bytes(key, text)) > TEXT_BYTES:
            raise UserError(f"metadata: {key}", f"at most {TEXT_BYTES:,} bytes", text)


def _archived(model: bytes, files: Mapping[str, bytes]) -> bytes:
    if not files:
        return model
    stream = io.BytesIO()
    stream.write(model)  # the archive counts its places from there
    with zipfile.ZipFile(stream, "w", zipfile.ZIP_STORED) as archive:
        for name, content in files.items():
            member = zipfile.ZipInfo(name, _EPOCH)
            member.create_system = 3  # else the system on which it is written
            archive.writestr(member, content)
    return stream.getvalue()


# --- the tables -----------------------------------------------------------------------------------


def _metadata(graph: Outline, about: Metadata, image: Image) -> bytes:
    from flatbuffers import Builder  # type: ignore[import-untyped]

    last = graph.signatures[SIGNATURE].subgraph
    # A metadata's subgraphs go by their numbers; those behind `classify` need not be named.
    subgraphs = [_subgraph(graph, number, about, image) for number in range(last + 1)]
    builder = Builder(1024)
    model: _Fields = {
        Model.NAME: about.name,
        Model.DESCRIPTION: about.description,
        Model.VERSION: about.version,
        Model.SUBGRAPHS: subgraphs,
        Model.AUTHOR: about.author,
        Model.LICENCE: about.licence,
        Model.FILES: [_file(name, FileKind.DESCRIPTIONS) for name in about.files],
        Model.PARSER: VERSION,
    }
    builder.Finish(_put(builder, model), IDENTIFIER)
    return bytes(builder.Output())


def _subgraph(graph: Outline, number: int, about: Metadata, image: Image) -> _Fields:
    signature, tensors = graph.signatures[SIGNATURE], graph.subgraphs[number]
    inputs: list[_Fields]
    outputs: list[_Fields]
    if number != signature.subgraph:
        inputs = [{TensorSlot.NAME: each.name} for each in tensors.inputs]
        outputs = [{TensorSlot.NAME: each.name} for each in tensors.outputs]
    else:
        inputs = [_input(signature.inputs[0], image)]
        # In the subgraph's order, which need not be the signature's; ours have the same names.
        outputs = [
            _output(each, _labels_kind(each, tensors, about), about) for each in tensors.outputs
        ]
    return {Subgraph.INPUTS: inputs, Subgraph.OUTPUTS: outputs}


def _input(tensor: Tensor, image: Image) -> _Fields:
    normalization = {0: (image.mean,), 1: (image.std,)}
    return {
        TensorSlot.NAME: tensor.name,
        TensorSlot.CONTENT: {0: bytes([Holds.IMAGE]), 1: {0: bytes([COLOURS[image.colours]])}},
        TensorSlot.UNITS: [{0: bytes([NORMALIZATION]), 1: normalization}],
        TensorSlot.STATS: {0: (image.highest,), 1: (image.lowest,)},
    }


def _output(tensor: Tensor, kind: FileKind | None, about: Metadata) -> _Fields:
    fields: _Fields = {
        TensorSlot.NAME: tensor.name,
        TensorSlot.CONTENT: {0: bytes([Holds.FEATURES]), 1: {}},
    }
    if kind is not None:
        fields[TensorSlot.FILES] = [
            _file(LABELS, kind),
            *(_file(label_file(locale), kind, locale) for locale in about.labels),
        ]
    return fields


def _labels_kind(tensor: Tensor, among: Outputs, about: Metadata) -> FileKind | None:
    """Whether an output is labelled by its values, as numbers of classes are, by its positions, or not."""
    if not about.classes:
        return None
    if tensor.dtype in _NUMBERS:
        return FileKind.VALUE_LABELS
    # The scores beside numbers of classes are in no order of the classes.
    ranked = any(each.dtype in _NUMBERS for each in among.outputs)
    whole = tensor.shape[-1:] == (len(about.classes),)
    return FileKind.AXIS_LABELS if whole and not ranked else None


def _file(name: str, kind: FileKind, locale: str = "") -> _Fields:
    return {File.NAME: name, File.KIND: bytes([kind]), File.LOCALE: locale}


def _put(builder: Any, fields: _Fields) -> int:
    """Writes a table, its parts before it, and returns where it is."""
    places = {slot: _part(builder, value) for slot, value in fields.items()}
    builder.StartObject(1 + max(fields, default=-1))
    for slot, value in fields.items():
        if isinstance(value, bytes):
            builder.PrependUint8Slot(slot, value[0], 0)
        elif places[slot]:
            builder.PrependUOffsetTRelativeSlot(slot, places[slot], 0)
    return builder.EndObject()


def _part(builder: Any, value: Any) -> int:
    if isinstance(value, str):
        return builder.CreateString(value) if value else 0
    if isinstance(value, dict):
        return _put(builder, value)
    if isinstance(value, tuple):
        return _vector(builder, value, 4, builder.PrependFloat32)
    if isinstance(value, list):
        tables = [_put(builder, each) for each in value]
        return _vector(builder, tables, 4, builder.PrependUOffsetTRelative) if tables else 0
    return 0


def _vector(builder: Any, values: Sequence[Any], size: int, prepend: Any) -> int:
    builder.StartVector(size, len(values), size)
    for value in reversed(values):
        prepend(value)
    return builder.EndVector()
