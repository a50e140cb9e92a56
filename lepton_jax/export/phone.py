"""What a phone does with an exported model, done here: LiteRT's interpreter on one CPU thread."""

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float, UInt8

from lepton_jax.checks import UserError
from lepton_jax.export.convert import INPUT, OUTPUT, SIGNATURE
from lepton_jax.export.extras import litert, quiet

_WARM_UP = 3  # runs that pay for first touches of memory

Classify = Callable[[np.ndarray], np.ndarray]


def open_model(path: Path | str) -> Classify:
    """Opens an exported model.

    Args:
      path: a .tflite file of `lepton export`.

    Returns:
      images [N,H,W,F], uint8 as a camera gives them -> probabilities [N,K], float32.

    Raises:
      UserError: no such file, not such a model, or LiteRT is not installed; the function returned
        raises it for images of another shape or type.
    """
    try:
        content = Path(path).read_bytes()
    except OSError as error:
        raise UserError(str(path), "a .tflite file", error.strerror or str(error)) from error
    try:
        interpreter = _interpreter(content)
    except ValueError as error:
        raise UserError(
            str(path),
            f"a model with the signature {SIGNATURE!r}",
            str(error),
            "run `lepton export`",
        ) from error
    return lambda images: _classify(interpreter, images)[0]


def run(
    model: bytes, images: UInt8[np.ndarray, "N H W F"]
) -> tuple[Float[np.ndarray, "N K"], Float[np.ndarray, "N"]]:
    """Classifies images one by one, as a phone does, and times each.

    Args:
      model: the content of an exported .tflite file.
      images: raw bytes, uint8.

    Returns:
      The probabilities, and the seconds that the interpreter took, warm, copies left out.
    """
    interpreter = _interpreter(model)
    _classify(interpreter, images[:_WARM_UP])
    return _classify(interpreter, images)


def _interpreter(model: bytes) -> Any:
    """Raises ValueError where the model is damaged or has another signature."""
    litert_ = litert()
    with quiet():
        interpreter = litert_.Interpreter(model_content=model, num_threads=1)
        interpreter.allocate_tensors()
    signature = interpreter.get_signature_list().get(SIGNATURE)
    if signature != {"inputs": [INPUT], "outputs": [OUTPUT]}:
        raise ValueError(f"the signatures {interpreter.get_signature_list()}")
    return interpreter


def _classify(interpreter: Any, images: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    (image,), (output,) = interpreter.get_input_details(), interpreter.get_output_details()
    if images.dtype != image["dtype"] or images.shape[1:] != tuple(image["shape"][1:]):
        raise UserError(
            "images",
            f"{np.dtype(image['dtype']).name} [N, {', '.join(map(str, image['shape'][1:]))}]",
            f"{images.dtype.name} {list(images.shape)}",
        )
    probabilities = np.empty((len(images), output["shape"][-1]), np.float32)
    seconds = np.empty(len(images))
    for i in range(len(images)):
        interpreter.set_tensor(image["index"], images[i : i + 1])
        start = time.perf_counter()
        interpreter.invoke()
        seconds[i] = time.perf_counter() - start
        probabilities[i] = interpreter.get_tensor(output["index"])[0]
    return probabilities, seconds
