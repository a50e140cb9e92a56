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
    content = unpack(model)
    codes = op_codes(content)
    return dict(
        Counter(codes[op.opcodeIndex] for graph in content.subgraphs for op in graph.operators)
    )


def op_codes(content: Any) -> list[str]:
    """The names of the ops that a model uses, by the number that its operators have for them.

    Args:
      content: an unpacked model.
    """
    builtin = {code: name for name, code in vars(schema().BuiltinOperator).items()}

    def name(code: Any) -> str:
        # Files from before 2021 keep the number in a byte, now deprecated; the larger one counts.
        number = max(code.builtinCode, code.deprecatedBuiltinCode)
        return code.customCode.decode() if builtin[number] == "CUSTOM" else builtin[number]

    return [name(code) for code in content.operatorCodes]


def constant(content: Any, tensor: Any) -> np.ndarray:
    """The bytes of a constant tensor, none of one that is computed.

    Args:
      content: an unpacked model.
      tensor: one of its tensors.
    """
    data = content.buffers[tensor.buffer].data
    return np.zeros(0, np.uint8) if data is None else np.asarray(data, np.uint8)


def shorten_names(model: bytes) -> bytes:
    """Names the tensors by number, and those of a signature as the signature does.

    The converter names each by all the JAX operations that went into it, which takes a tenth of a
    small int8 model.

    Args:
      model: the content of a .tflite file.
    """
    content = unpack(model)
    for graph in content.subgraphs:
        for number, tensor in enumerate(graph.tensors):
            tensor.name = str(number)
    for signature in content.signatureDefs:
        for each in (*signature.inputs, *signature.outputs):
            content.subgraphs[signature.subgraphIndex].tensors[each.tensorIndex].name = each.name
    return pack(content, len(model))


def add_signature(model: bytes, name: str, same_as: str) -> bytes:
    """Gives a signature another name besides its own; the graph is there once.

    Args:
      model: the content of a .tflite file.
      name: the other one.
      same_as: its own.
    """
    tflite, content = schema(), unpack(model)
    (own,) = (each for each in content.signatureDefs if each.signatureKey == same_as.encode())
    other = tflite.SignatureDefT()
    other.inputs, other.outputs = own.inputs, own.outputs
    other.signatureKey, other.subgraphIndex = name, own.subgraphIndex
    content.signatureDefs.append(other)
    return pack(content, len(model))


def add_notes(model: bytes, notes: Mapping[str, str | bytes]) -> bytes:
    """Writes texts into a model's metadata, where interpreters don't look.

    Args:
      model: the content of a .tflite file; what stands behind the flatbuffer's end is left out.
      notes: text by name; it replaces one of the same name.
    """
    tflite, content = schema(), unpack(model)
    content.metadata = content.metadata or []
    there = {entry.name.decode(): entry for entry in content.metadata}
    for name, text in notes.items():
        data = np.frombuffer(text.encode() if isinstance(text, str) else text, np.uint8)
        if name in there:
            content.buffers[there[name].buffer].data = data
            continue
        buffer, entry = tflite.BufferT(), tflite.MetadataT()
        buffer.data = data
        entry.name, entry.buffer = name, len(content.buffers)
        content.buffers.append(buffer)
        content.metadata.append(entry)
    return pack(content, len(model))


def notes(model: bytes) -> dict[str, bytes]:
    """A model's metadata by name.

    Args:
      model: the content of a .tflite file.
    """
    content = unpack(model)
    return {
        entry.name.decode(): bytes(bytearray(content.buffers[entry.buffer].data))
        for entry in content.metadata or []
    }


def unpack(model: bytes) -> Any:
    """A .tflite file as the objects of its schema."""
    tflite = schema()
    return tflite.ModelT.InitFromObj(tflite.Model.GetRootAs(model, 0))


def pack(content: Any, size: int) -> bytes:
    """The inverse of `unpack`; `size` bytes are expected."""
    from flatbuffers import Builder  # type: ignore[import-untyped]

    written: dict[tuple[str, bytes], int] = {}  # shapes, scales and zero points, mostly

    class Aligned(Builder):
        """Keeps to the schema's alignment, which its generated Python forgets; writes nothing twice."""

        def CreateNumpyVector(self, x: np.ndarray) -> int:  # noqa: N802
            key = (x.dtype.str, x.tobytes())
            if key not in written:
                if x.dtype == np.uint8:  # a tensor's data
                    self.Prep(_ALIGNMENT, x.nbytes)
                written[key] = super().CreateNumpyVector(x)
            return written[key]

    builder = Aligned(size)
    builder.Finish(content.Pack(builder), b"TFL3")
    return bytes(builder.Output())
