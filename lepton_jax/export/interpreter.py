"""LiteRT's interpreter, here or in a process of its own that a malformed model may bring down.

As a script this file serves one model: it imports nothing of lepton-jax, so that it starts at once.
Over its pipes go frames, eight bytes of length and as many of content: a model comes in, a JSON
description goes out; then arrays of images come in and arrays of probabilities go out.
"""

import io
import json
import os
import resource
import struct
import sys
import time
from contextlib import suppress
from typing import IO, Any

import numpy as np

SIGNATURE, INPUT, OUTPUT = "classify", "image", "probabilities"
LENGTH = struct.Struct("<Q")
MODEL_BYTES = 2**31  # a flatbuffer's largest
MEMORY_BYTES = 2**32  # that a served model may take, itself included
SECONDS = 60  # of computing, for a model to open and for each array of images


def interpret(model: bytes) -> Any:
    """Opens a model in this process.

    Args:
      model: the content of a .tflite file.

    Returns:
      LiteRT's interpreter with its tensors allocated, on one thread.

    Raises:
      ValueError: the model is damaged, as far as LiteRT notices, or has another signature.
    """
    from ai_edge_litert.interpreter import Interpreter

    try:
        interpreter = Interpreter(model_content=model, num_threads=1)
        interpreter.allocate_tensors()
    except (RuntimeError, TypeError) as error:
        raise ValueError(str(error)) from error
    signature = interpreter.get_signature_list().get(SIGNATURE)
    if signature != {"inputs": [INPUT], "outputs": [OUTPUT]}:
        raise ValueError(f"the signatures {interpreter.get_signature_list()}")
    return interpreter


def describe(interpreter: Any) -> dict[str, Any]:
    """What a model takes and gives: `dtype`, `shape` [H,W,F] and `classes`.

    Raises:
      ValueError: it has other inputs or outputs than one image and its probabilities.
    """
    (image,), (output,) = interpreter.get_input_details(), interpreter.get_output_details()
    shape, given = image["shape"].tolist(), output["shape"].tolist()
    if len(shape) != 4 or shape[0] != 1 or len(given) != 2 or given[0] != 1:
        raise ValueError(f"an input of {shape} and an output of {given}")
    if output["dtype"] is not np.float32:
        raise ValueError(f"probabilities of {np.dtype(output['dtype']).name}")
    return {"dtype": np.dtype(image["dtype"]).name, "shape": shape[1:], "classes": given[1]}


def classify(interpreter: Any, images: np.ndarray) -> np.ndarray:
    """Classifies images one by one.

    Args:
      interpreter: of a model.
      images: [N,H,W,F] of the shape and type that it takes.

    Returns:
      Probabilities [N,K].
    """
    (image,), (output,) = interpreter.get_input_details(), interpreter.get_output_details()
    probabilities = np.empty((len(images), output["shape"][-1]), np.float32)
    for i in range(len(images)):
        interpreter.set_tensor(image["index"], images[i : i + 1])
        interpreter.invoke()
        probabilities[i] = interpreter.get_tensor(output["index"])[0]
    return probabilities


# --- frames ---------------------------------------------------------------------------------------


def send(stream: IO[bytes], content: bytes) -> None:
    """Writes a frame."""
    stream.write(LENGTH.pack(len(content)))
    stream.write(content)
    stream.flush()


def receive(stream: IO[bytes], limit: int) -> bytes | None:
    """Reads a frame; None where the other end is gone, or sends more than `limit` bytes."""
    head = stream.read(LENGTH.size)
    if len(head) < LENGTH.size:
        return None
    (length,) = LENGTH.unpack(head)
    content = stream.read(length) if length <= limit else b""
    return content if len(content) == length else None


def packed(array: np.ndarray) -> bytes:
    """An array as the content of an .npy file."""
    buffer = io.BytesIO()
    np.save(buffer, array, allow_pickle=False)
    return buffer.getvalue()


def unpacked(content: bytes) -> np.ndarray:
    """The inverse of `packed`; raises ValueError where it is something else."""
    return np.load(io.BytesIO(content), allow_pickle=False)


# --- the process ----------------------------------------------------------------------------------


def serve(images: IO[bytes], answers: IO[bytes]) -> None:
    """Opens the model that comes first, then answers each array until there are no more."""
    _limit_time()
    model = receive(images, MODEL_BYTES)
    if model is None:
        return
    try:
        interpreter = interpret(model)
        told = describe(interpreter)
    except ValueError as error:
        send(answers, json.dumps({"error": str(error)[:1000]}).encode())
        return
    send(answers, json.dumps(told).encode())
    while (content := receive(images, MEMORY_BYTES)) is not None:
        _limit_time()
        send(answers, packed(classify(interpreter, unpacked(content))))


def _limit_time() -> None:
    """Computing on for much longer ends the process, also where nobody waits for it any more."""
    with suppress(ValueError, OSError):
        hard = resource.getrlimit(resource.RLIMIT_CPU)[1]
        resource.setrlimit(resource.RLIMIT_CPU, (int(time.process_time()) + SECONDS + 1, hard))


def _confine() -> None:
    """No more memory than that, no file written, no core dumped; as far as the system can."""
    for what, limit in (
        (resource.RLIMIT_AS, MEMORY_BYTES),
        (resource.RLIMIT_FSIZE, 0),
        (resource.RLIMIT_CORE, 0),
    ):
        with suppress(ValueError, OSError):
            resource.setrlimit(what, (limit, limit))


def _main() -> None:
    answers = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)  # whatever else is printed keeps out of the answers
    _confine()
    serve(sys.stdin.buffer, answers)


if __name__ == "__main__":
    _main()
