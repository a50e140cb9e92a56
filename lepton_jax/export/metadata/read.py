"""Metadata out of a model of any origin: every access is bounded, and damage is a UserError."""

import io
import math
import zipfile

from lepton_jax.checks import UserError
from lepton_jax.export.metadata.content import (
    COLOURS,
    FILE_BYTES,
    FILES,
    IDENTIFIER,
    NORMALIZATION,
    NOTE,
    File,
    FileKind,
    Holds,
    Image,
    Metadata,
    Model,
    Subgraph,
    TensorSlot,
)
from lepton_jax.export.outline import read_outline
from lepton_jax.export.tables import Table, root

_DIRECTORY_BYTES, _END_BYTES = 2**20, 22


def read(model: bytes) -> Metadata:
    """What a model says of itself.

    Args:
      model: the content of a .tflite file of any origin.

    Raises:
      UserError: no .tflite file, one without metadata, or damaged.
    """
    note = read_outline(model).notes.get(NOTE)
    if note is None:
        raise UserError("model", "metadata in it", "none", "export it again")
    try:
        said, behind = root(note, IDENTIFIER), files(model)
        said.budget.copied += sum(map(len, behind.values()))  # each may be read once
        return _metadata(said, behind)
    except ValueError as error:
        raise UserError("model", "sound metadata", error) from error


def files(model: bytes) -> dict[str, bytes]:
    """The files behind a model's end, by name; none where there are none.

    Args:
      model: the content of a .tflite file of any origin.

    Raises:
      UserError: they are damaged, too many, too large, packed, or one is there twice.
    """
    try:
        return _files(model)
    except Exception as error:  # zipfile has many for damaged archives
        raise UserError("model", "a sound archive behind it", error) from error


def _files(model: bytes) -> dict[str, bytes]:
    # Where zipfile looks first, and with nothing but the end record of an archive without a comment:
    # so the directory's size is known before a list of what it holds is made.
    end = model[-_END_BYTES:]
    if not (end.startswith(b"PK\5\6") and end.endswith(b"\0\0") and len(end) == _END_BYTES):
        return {}
    size = int.from_bytes(end[12:16], "little")
    if size > _DIRECTORY_BYTES or model[-_END_BYTES - 20 :].startswith(b"PK\6\7"):
        raise ValueError("a directory larger than a model's")
    found: dict[str, bytes] = {}
    with zipfile.ZipFile(io.BytesIO(model)) as archive:
        members = archive.infolist()
        if len(members) > FILES or sum(each.file_size for each in members) > FILE_BYTES:
            raise ValueError(f"{len(members)} files, more or larger ones than a model's")
        for member in members:
            if member.compress_type != zipfile.ZIP_STORED or member.filename in found:
                raise ValueError(f"{member.filename!r} packed or twice")
            found[member.filename] = archive.read(member)
    return found


def _metadata(model: Table, inside: dict[str, bytes]) -> Metadata:
    image: Image | None = None
    classes: tuple[str, ...] = ()
    labels: dict[str, tuple[str, ...]] = {}
    for subgraph in model.tables(Model.SUBGRAPHS):
        for tensor in subgraph.tables(Subgraph.INPUTS):
            image = image or _image(tensor)
        for tensor in subgraph.tables(Subgraph.OUTPUTS):
            for file in tensor.tables(TensorSlot.FILES):
                if file.number(File.KIND, "<b") not in (
                    FileKind.AXIS_LABELS,
                    FileKind.VALUE_LABELS,
                ):
                    continue
                names = tuple(_text(file, inside).splitlines())
                locale = file.text(File.LOCALE)
                if locale:
                    labels.setdefault(locale, names)
                else:
                    classes = classes or names
    texts = {file.text(File.NAME): _text(file, inside) for file in model.tables(Model.FILES)}
    return Metadata(
        model.text(Model.NAME),
        model.text(Model.DESCRIPTION),
        model.text(Model.VERSION),
        model.text(Model.AUTHOR),
        model.text(Model.LICENCE),
        classes,
        labels,
        texts,
        image,
    )


def _image(tensor: Table) -> Image | None:
    content, stats = tensor.table(TensorSlot.CONTENT), tensor.table(TensorSlot.STATS)
    properties = content.table(1) if content and content.number(0, "<B") == Holds.IMAGE else None
    units = [each for each in tensor.tables(TensorSlot.UNITS) if _normalizes(each)]
    options = units[0].table(1) if units else None
    if properties is None or options is None or stats is None:
        return None
    numbers = tuple(
        table.reals(slot) for table, slot in ((options, 0), (options, 1), (stats, 1), (stats, 0))
    )
    colours = {code: name for name, code in COLOURS.items()}.get(properties.number(0, "<b"))
    if colours is None or not all(numbers):
        raise ValueError("an image without colours, mean, deviation or range")
    mean, std, lowest, highest = (each[0] for each in numbers)
    if not all(map(math.isfinite, (mean, std, lowest, highest))):
        raise ValueError("an image whose mean, deviation or range is no finite number")
    return Image(colours, mean, std, lowest, highest)


def _normalizes(unit: Table) -> bool:
    return unit.number(0, "<B") == NORMALIZATION


def _text(file: Table, inside: dict[str, bytes]) -> str:
    name = file.text(File.NAME)
    if name not in inside:
        raise ValueError(f"no file {name!r} behind the model")
    file.budget.spend(copied=len(inside[name]))  # a file may be named many times
    return inside[name].decode("utf-8")
