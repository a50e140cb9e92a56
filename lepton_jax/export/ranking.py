"""The likely classes alone, found by the phone: an op that TensorFlow's converter makes of nothing in JAX."""

import numpy as np

from lepton_jax.export.extras import schema
from lepton_jax.export.flatbuffer import pack, unpack
from lepton_jax.export.interpreter import OUTPUT
from lepton_jax.export.surgery import add_tensor, compact, make_op

SCORES, CLASSES = "scores", "classes"


def top_k(model: bytes, k: int) -> bytes:
    """Puts the k largest probabilities, the largest first, and their classes in the output's place.

    Args:
      model: the content of a .tflite file with one signature, which gives `probabilities` [B,K].
      k: at most K.

    Returns:
      One that gives `scores` [B,k], float32, and `classes` [B,k], int32.
    """
    content = unpack(model)
    (graph,), (signature,) = content.subgraphs, content.signatureDefs
    (output,) = (each for each in signature.outputs if each.name == OUTPUT.encode())
    given = graph.tensors[output.tensorIndex]
    number = schema().TensorT()
    number.shape = np.zeros(0, np.int32)
    last = [add_tensor(content, graph, given, dtype) for dtype in ("FLOAT32", "INT32")]
    for index in last:
        for shape in ("shape", "shapeSignature"):
            found = getattr(given, shape)
            setattr(
                graph.tensors[index],
                shape,
                None if found is None else np.array([found[0], k], np.int32),
            )
    size = add_tensor(content, graph, number, "INT32", np.array([k], np.int32))
    graph.operators.append(make_op(content, "TOPK_V2", [output.tensorIndex, size], last))
    graph.outputs = np.array(last, np.int32)
    signature.outputs = []
    for name, index in zip((CLASSES, SCORES), reversed(last), strict=True):
        each = schema().TensorMapT()
        each.name, each.tensorIndex = name.encode(), index
        signature.outputs.append(each)
    compact(content)
    return pack(content, len(model))
