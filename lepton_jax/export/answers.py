"""What an exported model answers to camera images, whatever form of input and output it has."""

import time
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Float, Int, UInt8

from lepton_jax.checks import UserError
from lepton_jax.export.extras import open_interpreter
from lepton_jax.export.interpreter import INPUT, SIGNATURE

_WARM_UP = 3  # runs that pay for first touches of memory
_SCORES = ("probabilities", "logits", "scores")


class Answers(NamedTuple):
    """Of N images.

    Attributes:
      form: `probabilities`, `logits`, or `scores` of the most probable classes alone.
      scores: float32; integers are taken back to what they stand for.
      choices: the class that is first.
      seconds: each run of the model, warm, copies left out; one run takes a whole batch.
    """

    form: str
    scores: Float[np.ndarray, "N K"]
    choices: Int[np.ndarray, "N"]
    seconds: Float[np.ndarray, "R"]


def answers(model: bytes, images: UInt8[np.ndarray, "N H W F"]) -> Answers:
    """Classifies images in this process, on one thread, as many at a time as the model takes.

    Args:
      model: the content of a .tflite file that was made here: another one may end the process.
      images: at least one, raw bytes; `float32` inputs get them divided by 255, `int8` less 128.

    Raises:
      UserError: images of another shape, or a model without the signature `classify`.
    """
    given = _prepared(model, images)
    forms = [name for name in _SCORES if name in given.outputs]
    if not forms:
        raise UserError("model", f"an output among {', '.join(_SCORES)}", list(given.outputs))
    parts, seconds = [], []
    for i in range(-_WARM_UP, len(given.batches)):
        batch = given.batches[max(i, 0)]
        given.opened.set_tensor(given.image["index"], as_input(given.image["dtype"], batch))
        start = time.perf_counter()
        given.opened.invoke()
        taken = time.perf_counter() - start
        if i >= 0:
            seconds.append(taken)
            parts.append({name: _value(given, name) for name in given.outputs})
    whole = {name: np.concatenate([each[name] for each in parts]) for name in given.outputs}
    scores = whole[forms[0]][: len(images)]
    first = whole["classes"][:, 0] if "classes" in whole else scores.argmax(axis=-1)
    return Answers(forms[0], scores, first[: len(images)], np.array(seconds))


class _Prepared(NamedTuple):
    opened: Any
    image: dict[str, Any]
    outputs: dict[str, dict[str, Any]]
    batches: np.ndarray


def _prepared(model: bytes, images: np.ndarray) -> _Prepared:
    opened = open_interpreter(model)
    signature = opened.get_signature_list().get(SIGNATURE)
    if signature is None or signature["inputs"] != [INPUT]:
        raise UserError("model", f"a signature {SIGNATURE!r} of one input {INPUT!r}", "another")
    runner = opened.get_signature_runner(SIGNATURE)
    image = runner.get_input_details()[INPUT]
    if images.ndim != 4 or images.shape[1:] != tuple(image["shape"][1:]) or not len(images):
        shape = ", ".join(str(side) for side in image["shape"][1:])
        raise UserError("images", f"uint8 [N, {shape}], N at least 1", list(images.shape))
    size = 1 if image["shape_signature"][0] < 0 else int(image["shape"][0])
    missing = -len(images) % size
    padded = np.concatenate([images, np.repeat(images[-1:], missing, axis=0)])
    batches = padded.reshape(-1, size, *images.shape[1:])
    return _Prepared(opened, image, runner.get_output_details(), batches)


def as_input(dtype: type, images: np.ndarray) -> np.ndarray:
    """Raw bytes as a model takes them: divided by 255 for `float32`, less 128 for `int8`."""
    if dtype is np.float32:
        return images.astype(np.float32) / np.float32(255)
    return (images.astype(np.int16) - 128).astype(np.int8) if dtype is np.int8 else images


def _value(given: _Prepared, name: str) -> np.ndarray:
    detail = given.outputs[name]
    value = given.opened.get_tensor(detail["index"])
    scale, zero = detail["quantization"]
    if name == "classes" or not scale:
        return value
    return (value.astype(np.float32) - np.float32(zero)) * np.float32(scale)
