"""Inside a .tflite file: which ops it holds, and what its tensors are called."""

from collections import Counter
from typing import Any

import numpy as np

from lepton_jax.export.extras import schema

_ALIGNMENT = 16  # bytes; what TFLite's schema asks of a tensor's data


def ops(model: bytes) -> dict[str, int]:
    """How often each op occurs in a model, in the order of first use; custom ops by their own name.

    Args:
      model: the content of a .tflite file.
    """
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
    from flatbuffers import Builder  # type: ignore[import-untyped]

    class Aligned(Builder):
        """Keeps to the schema's alignment, which its generated Python forgets."""

        def CreateNumpyVector(self, x: np.ndarray) -> int:  # noqa: N802
            self.Prep(_ALIGNMENT, x.nbytes)
            return super().CreateNumpyVector(x)

    content = _unpack(model)
    for graph in content.subgraphs:
        for number, tensor in enumerate(graph.tensors):
            tensor.name = str(number)
    for signature in content.signatureDefs:
        for each in (*signature.inputs, *signature.outputs):
            content.subgraphs[signature.subgraphIndex].tensors[each.tensorIndex].name = each.name
    builder = Aligned(len(model))
    builder.Finish(content.Pack(builder), b"TFL3")
    return bytes(builder.Output())


def _unpack(model: bytes) -> Any:
    tflite = schema()
    return tflite.ModelT.InitFromObj(tflite.Model.GetRootAs(model, 0))
