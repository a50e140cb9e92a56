"""What a .tflite file says of itself, told without running it: files of any origin are safe to ask."""

import hashlib
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from lepton_jax import untrusted
from lepton_jax.checks import UserError
from lepton_jax.export import metadata
from lepton_jax.export.interpreter import MODEL_BYTES
from lepton_jax.export.metadata.content import NOTE
from lepton_jax.export.metadata.read import files
from lepton_jax.export.outline import Outline, Tensor, read_outline


def inspect(path: Path) -> dict[str, Any]:
    """Tells of a phone model what stands in its file.

    Nothing of it is run, and reading takes a second at most, whatever the file holds: see
    `lepton_jax.export.tables`.

    Args:
      path: of a .tflite file of any origin.

    Returns:
      Plain JSON: `file`, `bytes`, `sha256`, `signatures` with the `inputs` and `outputs` of each,
      `ops` with their counts, `tensors`, `weight_bytes`, `notes` (names and sizes), `files` behind
      the model (names and sizes), and `metadata`: None, or `name`, `description`, `version`,
      `author`, `licence`, `classes`, `locales`, `image`.

    Raises:
      UserError: no such file, no .tflite file, or a damaged one.
    """
    content = untrusted.read_bytes(path, MODEL_BYTES, "a .tflite file")
    try:
        graph = read_outline(content)
        behind = files(content)
        said = metadata.read(content) if NOTE in graph.notes else None
    except UserError as error:
        raise UserError(str(path), error.expected, error.got, error.remedy) from error
    return {
        "file": path.name,
        "bytes": len(content),
        "sha256": hashlib.sha256(content).hexdigest(),
        **_graph(graph),
        "files": {name: len(text) for name, text in behind.items()},
        "metadata": None if said is None else _metadata(said),
    }


def _graph(graph: Outline) -> dict[str, Any]:
    return {
        "signatures": {
            name: {"inputs": _tensors(each.inputs), "outputs": _tensors(each.outputs)}
            for name, each in graph.signatures.items()
        },
        "ops": graph.ops,
        "tensors": graph.tensors,
        "weight_bytes": graph.weight_bytes,
        "notes": {name: len(text) for name, text in graph.notes.items()},
    }


def _tensors(tensors: Iterable[Tensor]) -> list[dict[str, Any]]:
    return [{"name": each.name, "dtype": each.dtype, "shape": [*each.shape]} for each in tensors]


def _metadata(said: metadata.Metadata) -> dict[str, Any]:
    return {
        **{name: getattr(said, name) for name in said._fields[:5]},
        "classes": list(said.classes),
        "locales": list(said.labels),
        "image": None if said.image is None else said.image._asdict(),
    }
