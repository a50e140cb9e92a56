"""Inside a .tflite file: which ops it holds, what its tensors are called, and what is noted in it."""

from collections import Counter
from collections.abc import Mapping
from typing import Any

import numpy as np

from lepton_jax.checks import UserError
from lepton_jax.export.extras import schema

_ALIGNMENT = 16  # bytes; what TFLite's schema asks of a tensor's data


def ops(model: bytes) -> dict[str, int]:
    """How often each op occurs in a model, in the order of first use; custom ops by their own name.

    Args:
      model: the content of a .tflite file, of `convert`: one of unknown origin may take for ever.

    Raises:
      UserError: it is no .tflite file.
    """
    try:
        return _count(model)
    except UserError:
        raise
    except Exception as error:  # flatbuffers reads wherever a damaged file points to
        raise UserError("model", "a .tflite file", type(error).__name__) from error


def _count(model: bytes) -> dict[str, int]:
    tflite = schema()
    content = _unpack(model)
    builtin = {code: name for name, code in vars(tflite.BuiltinOperator).items()}

    def name(code: Any) -> str:
        # Files from before 2021 keep the number in a byte, now deprecated; the larger one counts.
        number = max(code.builtinCode, code.deprecatedBuiltinCode)
        return code.customCode.decode() if builtin[number] == "CUSTOM" else builtin[number]

    codes = [name(code) for code in content.operatorCodes]
    return dict(
        Counter(codes[op.opcodeIndex] for graph in content.subgraphs for op in graph.operators)
    )


def shorten_names(model: bytes) -> bytes:
    """Names the tensors by number, and those of a signature as the signature does.

    The converter names each by all the JAX operations that went into it, which takes a tenth of a
    small int8 model.

    Args:
      model: the content of a .tflite file.
    """
    content = _unpack(model)
    for graph in content.subgraphs:
        for number, tensor in enumerate(graph.tensors):
            tensor.name = str(number)
    for signature in content.signatureDefs:
        for each in (*signature.inputs, *signature.outputs):
            content.subgraphs[signature.subgraphIndex].tensors[each.tensorIndex].name = each.name
    return _pack(content, len(model))


def add_notes(model: bytes, notes: Mapping[str, str]) -> bytes:
    """Writes texts into a model's metadata, where interpreters don't look.

    Args:
      model: the content of a .tflite file.
      notes: text by name.
    """
    tflite, content = schema(), _unpack(model)
    content.metadata = content.metadata or []
    for name, text in notes.items():
        buffer, entry = tflite.BufferT(), tflite.MetadataT()
        buffer.data = np.frombuffer(text.encode(), np.uint8)
        entry.name, entry.buffer = name, len(content.buffers)
        content.buffers.append(buffer)
        content.metadata.append(entry)
    return _pack(content, len(model))


def notes(model: bytes) -> dict[str, bytes]:
    """A model's metadata by name.

    Args:
      model: the content of a .tflite file.
    """
    content = _unpack(model)
    return {
        entry.name.decode(): bytes(bytearray(content.buffers[entry.buffer].data))
        for entry in content.metadata or []
    }


def _unpack(model: bytes) -> Any:
    tflite = schema()
    return tflite.ModelT.InitFromObj(tflite.Model.GetRootAs(model, 0))


def _pack(content: Any, size: int) -> bytes:
    from flatbuffers import Builder  # type: ignore[import-untyped]

    class Aligned(Builder):
        """Keeps to the schema's alignment, which its generated Python forgets."""

        def CreateNumpyVector(self, x: np.ndarray) -> int:  # noqa: N802
            self.Prep(_ALIGNMENT, x.nbytes)
            return super().CreateNumpyVector(x)

    builder = Aligned(size)
    builder.Finish(content.Pack(builder), b"TFL3")
    return bytes(builder.Output())
