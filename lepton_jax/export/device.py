"""A phone that learns, here: a training file in LiteRT's interpreter."""

from collections.abc import Callable
from typing import Any, NamedTuple

import msgspec
import numpy as np
from jaxtyping import Float32, Int32, UInt8

from lepton_jax.checks import UserError
from lepton_jax.export.extras import open_interpreter
from lepton_jax.export.flatbuffer import notes
from lepton_jax.export.learning import NOTE, Facts

Images = UInt8[np.ndarray, "n H W F"]
Labels = Int32[np.ndarray, "n"]
Shares = Float32[np.ndarray, "n"]
Vector = Float32[np.ndarray, "P"]
_Call = Callable[..., dict[str, np.ndarray]]


class Sums(NamedTuple):
    """Of the examples of one call, each times its weight; `loss` in the unit of the run's loss."""

    loss: float
    correct: float
    weight: float


class Device(NamedTuple):
    """What a phone does with its training file.

    Attributes:
      facts: what the file says of itself.
      train: (image [n,H,W,F], label [n], weight [n], learning rate) -> sums before the step; n is
        at most `facts.batch_size`, and the rest is padded.
      evaluate: (image, label, weight) -> sums.
      get_weights: () -> weights [P].
      set_weights: sets them, and clears the momentum.
    """

    facts: Facts
    train: Callable[[Images, Labels, Shares, float], Sums]
    evaluate: Callable[[Images, Labels, Shares], Sums]
    get_weights: Callable[[], Vector]
    set_weights: Callable[[Vector], None]


def read_facts(model: bytes, where: str = "model") -> Facts:
    """What a training file says of itself.

    Args:
      model: the content of a file of `training_model`: another one may take for ever.
      where: what a message calls it.

    Raises:
      UserError: it is none.
    """
    expected, remedy = "a file that trains", "export it with the signatures train and set_weights"
    try:
        return msgspec.json.decode(notes(model)[NOTE], type=Facts)
    except (KeyError, msgspec.DecodeError) as error:
        raise UserError(where, expected, "another one", remedy) from error


def open_device(model: bytes) -> Device:
    """Opens a training file in this process, on one thread; its weights are those in the file.

    Args:
      model: the content of a file of `training_model` with `train`, `evaluate`, `get_weights` and
        `set_weights`, made here: another one may end the process.

    Raises:
      UserError: it lacks one of them, or LiteRT is not installed.
    """
    facts = read_facts(model)
    runners = _runners(open_interpreter(model))

    def examples(images: Images, labels: Labels, weights: Shares) -> dict[str, np.ndarray]:
        missing = facts.batch_size - len(images)
        if missing < 0:
            raise UserError("batch", f"at most {facts.batch_size} examples", len(images))
        given = {"image": images, "label": labels, "weight": weights}
        return {name: _padded(array, missing) for name, array in given.items()}

    def train(images: Images, labels: Labels, weights: Shares, learning_rate: float) -> Sums:
        given, rate = examples(images, labels, weights), np.array([learning_rate], np.float32)
        told, weight = runners["train"](**given, learning_rate=rate), float(weights.sum())
        return Sums(float(told["loss"][0]) * weight, float(told["correct"][0]), weight)

    def evaluate(images: Images, labels: Labels, weights: Shares) -> Sums:
        told = runners["evaluate"](**examples(images, labels, weights))
        return Sums(*(float(told[name][0]) for name in Sums._fields))

    def get_weights() -> Vector:
        return runners["get_weights"]()["weights"].copy()

    def set_weights(weights: Vector) -> None:
        runners["set_weights"](weights=weights)

    return Device(facts, train, evaluate, get_weights, set_weights)


def _runners(opened: Any) -> dict[str, _Call]:
    wanted, found = ("train", "evaluate", "get_weights", "set_weights"), opened.get_signature_list()
    missing = [name for name in wanted if name not in found]
    if missing:
        raise UserError("export.signatures", ", ".join(wanted), f"none called {missing[0]}")
    return {name: _checked(opened.get_signature_runner(name)) for name in wanted}


def _checked(runner: Any) -> _Call:
    """A signature that refuses other shapes: the interpreter would make its own variables such."""
    details = runner.get_input_details()
    expected = {
        name: f"{np.dtype(each['dtype'])} {each['shape'].tolist()}"
        for name, each in details.items()
    }

    def call(**given: np.ndarray) -> dict[str, np.ndarray]:
        for name, array in given.items():
            if (got := f"{array.dtype} {list(array.shape)}") != expected[name]:
                raise UserError(name, expected[name], got)
        return runner(**given)

    return call


def _padded(array: np.ndarray, rows: int) -> np.ndarray:
    return np.concatenate([array, np.zeros((rows, *array.shape[1:]), array.dtype)])
