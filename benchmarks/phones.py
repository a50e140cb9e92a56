"""Phone models: `python -m benchmarks.phones` tells in which time and memory each converter makes them.

Random weights, a process for each conversion; its peak of memory includes JAX and the converter. The
second table is the latency of each variant of ResNet-8 on one CPU thread, in turns.
"""

import json
import os
import statistics
import subprocess
import sys
import time
from typing import Any

import jax
import numpy as np

from benchmarks.memory import high_water
from lepton_jax import models
from lepton_jax.config import Interface, Model
from lepton_jax.console import note, table
from lepton_jax.export import ops
from lepton_jax.export.answers import answers
from lepton_jax.export.convert import CONVERTERS
from lepton_jax.export.interface import phone_model
from lepton_jax.export.quantize import quantize

SHAPES = {
    "keras_cnn": (28, 28, 1),
    "resnet8": (32, 32, 3),
    "resnet20": (32, 32, 3),
    "resnet18": (224, 224, 3),
    "resnet50": (224, 224, 3),
}
_VARIANTS = ("float32", "float16", "dynamic", "weight-only", "int8", "int4")
_TURNS, _IMAGES = 7, 300


def conversion(name: str, converter: str) -> dict[str, Any]:
    """Converts a preset in a process of its own.

    Returns:
      `model`, `converter`, `seconds`, `peak_bytes` of the process, `bytes` of the file,
      `parameters` and `ops`.
    """
    command = [sys.executable, "-m", "benchmarks.phones", name, converter]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    return json.loads(done.stdout.splitlines()[-1])


def convert_here(name: str, converter: str) -> dict[str, Any]:
    """As `conversion`, in this process, whose peak of memory may be another's."""
    start = time.perf_counter()
    content, parameters = _float32(name, converter)
    seconds = time.perf_counter() - start
    peak = high_water(os.getpid())  # that of getrusage begins with the parent's
    told = {"seconds": seconds, "peak_bytes": peak, "bytes": len(content)}
    return {
        "model": name,
        "converter": converter,
        **told,
        "parameters": parameters,
        "ops": ops(content),
    }


def _float32(name: str, converter: str) -> tuple[bytes, int]:
    shape = SHAPES[name]
    classes = models.describe(name).classes
    channels = shape[-1]
    settings = Model(name=name)
    model = models.build(settings, shape, classes, mean=[0.5] * channels, std=[0.25] * channels)
    shapes = jax.eval_shape(model.init, jax.random.key(0))
    rng = np.random.default_rng(0)
    variables = jax.tree.map(lambda x: rng.random(x.shape, np.float32) / 100 + 0.01, shapes)
    parameters = sum(leaf.size for leaf in jax.tree.leaves(variables.params))

    def apply(pixels: Any) -> Any:
        return model.apply(variables, pixels)

    return phone_model(apply, shape, classes, Interface(), converter), parameters


def latencies() -> list[dict[str, Any]]:
    """The median of one image's milliseconds for each variant of ResNet-8, and against float32."""
    floats, _ = _float32("resnet8", "auto")
    images = np.random.default_rng(0).integers(256, size=(_IMAGES, 32, 32, 3)).astype(np.uint8)
    made = {
        name: quantize(floats, name, interface=Interface(), calibration=images)
        for name in _VARIANTS
    }
    turns: dict[str, list[float]] = {name: [] for name in made}
    for _ in range(_TURNS):
        for name, content in made.items():
            turns[name].append(float(np.median(answers(content, images).seconds)) * 1e3)
    median = {name: statistics.median(each) for name, each in turns.items()}
    return [
        {
            "variant": name,
            "bytes": len(made[name]),
            "latency_ms": median[name],
            "times faster": median["float32"] / median[name],
        }
        for name in made
    ]


def main() -> None:
    """Prints both tables."""
    rows = []
    for name in SHAPES:
        for converter in CONVERTERS:
            note(f"{name}, {converter}")
            told = conversion(name, converter)
            peak = told["peak_bytes"] / 2**30
            rows.append(
                {**{key: told[key] for key in ("model", "converter", "seconds")}, "GiB": peak}
            )
    print(table(rows))
    print()
    print(table(latencies()))


if __name__ == "__main__":
    if len(sys.argv) == 3:
        print(json.dumps(convert_here(*sys.argv[1:])))
    else:
        main()
