"""A runner's side of the measurement: the job that it reads and the line that it speaks.

It needs nothing but numpy, since every peer's environment imports it. On stdin come
`{"do": "go", "rounds": 2}`, `{"do": "accuracy"}` and, by its end, farewell; each is answered on
stdout by one JSON line. A runner is ready when it has said so, with its versions.
"""

import json
import os
import sys
import time
from collections.abc import Callable, Iterator
from importlib import metadata
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

Advance = Callable[[range], None]
Accuracy = Callable[[], float | None]

SETTINGS, PLAN = "job.json", "plan.npz"
IMAGES = ("train_images", "train_labels", "test_images", "test_labels")
MATMUL_SIZE = 4096


class Job(NamedTuple):
    """What all sides of a measurement do.

    Attributes:
      kind: `federated`, `central`, `private`, `inference`, or `matmul` (matrix products, of lepton
        alone).
      model: `keras_cnn`, `fedavg_cnn`, `resnet8`, `resnet20` or `resnet18`.
      norm: `batch`, `group` or `none`.
      classes: how many there are.
      mean: of each channel, of pixels scaled to [0, 1].
      std: likewise.
      batch_size: B, of a step; of a private one, expected.
      learning_rate: of SGD, constant.
      momentum: of a central step.
      clip_norm: of each example's gradient in a private step, else 0.
      noise_multiplier: likewise.
      steps: of a central or private round; batches of a round of inference.
      run: lepton-jax' own configuration of the same thing.
      train_images: uint8 [N,H,W,F], mapped from its file.
      train_labels: int32 [N].
      test_images: likewise.
      test_labels: likewise.
      clients: int [clients, examples], what each client holds, as positions in the training split.
      cohorts: int [rounds, clients a round], who takes part in rounds 1, 2, ...
      order: int [rounds, steps * B], what central rounds go over, as positions likewise.
    """

    kind: str
    model: str
    norm: str
    classes: int
    mean: list[float]
    std: list[float]
    batch_size: int
    learning_rate: float
    momentum: float
    clip_norm: float
    noise_multiplier: float
    steps: int
    run: dict[str, Any]
    train_images: np.ndarray
    train_labels: np.ndarray
    test_images: np.ndarray
    test_labels: np.ndarray
    clients: np.ndarray
    cohorts: np.ndarray
    order: np.ndarray


def read_job(folder: Path) -> Job:
    """The job in a folder, as `benchmarks.job` wrote it."""
    arrays = dict(np.load(folder / PLAN, allow_pickle=False))
    for name in IMAGES:
        arrays[name] = np.load(folder / f"{name}.npy", mmap_mode="r", allow_pickle=False)
    return Job(**json.loads((folder / SETTINGS).read_text()), **arrays)


class Line(NamedTuple):
    """The way to and from whoever measures.

    Attributes:
      read: yields what it asks for.
      write: answers.
    """

    read: Callable[[], Iterator[dict[str, Any]]]
    write: Callable[[dict[str, Any]], None]


def open_line() -> Line:
    """Takes stdin and stdout; whatever else is printed from now on goes to stderr."""
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)

    def read() -> Iterator[dict[str, Any]]:
        for line in sys.stdin:
            yield json.loads(line)

    def write(answer: dict[str, Any]) -> None:
        print(json.dumps(answer), file=answers, flush=True)

    return Line(read, write)


def turns(line: Line, packages: tuple[str, ...], accuracy: Accuracy) -> Iterator[range]:
    """Yields the numbers of the rounds to do, each time that it is the runner's turn.

    The clocks, the wall's and the process' own, run from the order until the next range is asked
    for: do the rounds, wait for the device, and only then go on.

    Args:
      line: to whoever measures.
      packages: whose versions to tell.
      accuracy: of the model on the test images, at the end of a turn.
    """
    line.write({"ready": {name: metadata.version(name) for name in packages}})
    done = 0
    for order in line.read():
        if order["do"] == "accuracy":
            line.write({"accuracy": accuracy()})
            continue
        began = _clocks()
        yield range(done + 1, done + 1 + order["rounds"])
        line.write({name: now - began[name] for name, now in _clocks().items()})
        done += order["rounds"]


def _clocks() -> dict[str, float]:
    return {"seconds": time.perf_counter(), "processor_seconds": time.process_time()}


def serve(line: Line, packages: tuple[str, ...], advance: Advance, accuracy: Accuracy) -> None:
    """Takes turns until there are no more."""
    for numbers in turns(line, packages, accuracy):
        advance(numbers)
