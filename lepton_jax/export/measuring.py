"""A stopwatch for phone models, as a script in a process of its own: memory figures mean something there.

It imports nothing of lepton-jax, so that it starts at once and has little memory before the model.
Its argument is a folder: `model.tflite` is measured as a whole, `0.tflite`, `1.tflite` and so on
are timed. What it finds goes to its output as JSON. With a second argument, a file's name, it tells
by how much it grows with that file alone.
"""

import json
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np

WHOLE = "model.tflite"
THREADS, SECONDS = (1, 2), 0.3  # for each setting
_ONE_OP_S = 0.01
_LEAST, _MOST = 3, 2000  # runs
_WARM_UP = 2


def measure(folder: Path) -> dict[str, Any]:
    """All figures of a folder of models.

    Returns:
      `first_run_ms`: open, allocate, classify once; `memory_bytes`: by how much the process grew at
      that, and `runtime_bytes`: at the smallest of the other models (None where the system doesn't
      tell); `latency`: for each setting the `threads`, whether `xnnpack` was on, `min_ms`,
      `median_ms`, `p95_ms` and the number of `runs`; `delegated`: inputs and outputs of each part
      that XNNPACK took over; `ops_ms`: the median of each numbered model, None of one that doesn't
      run by itself.
    """
    ops = [folder / f"{i}.tflite" for i in range(len(list(folder.iterdir())) - 1)]
    smallest = min(ops, key=lambda path: path.stat().st_size).name
    other = [sys.executable, "-P", __file__, str(folder), smallest]
    done = subprocess.run(other, capture_output=True)
    runtime = None if done.returncode else json.loads(done.stdout)  # some op may not run alone
    whole, first, grown = _first_run(folder / WHOLE)
    parts = [each for each in whole._get_ops_details() if each["op_name"] == "DELEGATE"]
    return {
        "first_run_ms": first * 1e3,
        "memory_bytes": grown,
        "runtime_bytes": runtime,
        "latency": [_latency(folder, n, on) for on in (True, False) for n in THREADS],
        "delegated": [[each["inputs"].tolist(), each["outputs"].tolist()] for each in parts],
        "ops_ms": [_one_op(op) for op in ops],
    }


def _first_run(path: Path) -> tuple[Any, float, int | None]:
    """A model after its first run, the seconds that took, and the bytes."""
    import ai_edge_litert.interpreter  # noqa: F401, so that the clock doesn't count it

    before, peak = _memory("VmRSS"), _memory("VmHWM")
    start = time.perf_counter()
    opened = _open(path, 1, True)
    _fill(opened)
    opened.invoke()
    seconds = time.perf_counter() - start
    highest = _memory("VmHWM")
    after = highest if highest > peak else _memory("VmRSS")
    return opened, seconds, max(after - before, 0) if before else None


def _latency(folder: Path, threads: int, xnnpack: bool) -> dict[str, Any]:
    times = _times(_open(folder / WHOLE, threads, xnnpack), SECONDS) * 1e3
    return {
        "threads": threads,
        "xnnpack": xnnpack,
        "min_ms": float(times.min()),
        "median_ms": float(np.median(times)),
        "p95_ms": float(np.percentile(times, 95)),
        "runs": len(times),
    }


def _one_op(path: Path) -> float | None:
    """The median of one op; XNNPACK refuses some that it takes among others."""
    for xnnpack in (True, False):
        try:
            return float(np.median(_times(_open(path, 1, xnnpack), _ONE_OP_S)) * 1e3)
        except (RuntimeError, ValueError):
            continue
    return None


def _open(path: Path, threads: int, xnnpack: bool) -> Any:
    from ai_edge_litert.interpreter import Interpreter, OpResolverType

    kind = "BUILTIN" if xnnpack else "BUILTIN_WITHOUT_DEFAULT_DELEGATES"
    interpreter = Interpreter(
        str(path), num_threads=threads, experimental_op_resolver_type=OpResolverType[kind]
    )
    interpreter.allocate_tensors()
    return interpreter


def _fill(interpreter: Any) -> None:
    """Gives each input some numbers: of zeros alone some kernels make less work."""
    rng = np.random.default_rng(0)
    for each in interpreter.get_input_details():
        shape, dtype = each["shape"], np.dtype(each["dtype"])
        if dtype.kind == "f":
            interpreter.set_tensor(each["index"], rng.random(shape, np.float32).astype(dtype))
        elif dtype.kind in "iu":
            interpreter.set_tensor(each["index"], rng.integers(100, size=shape).astype(dtype))


def _times(interpreter: Any, seconds: float) -> np.ndarray:
    """The seconds of each run, for about so many seconds together."""
    _fill(interpreter)
    for _ in range(_WARM_UP):
        interpreter.invoke()
    taken: list[float] = []
    end = time.perf_counter() + seconds
    while len(taken) < _LEAST or (time.perf_counter() < end and len(taken) < _MOST):
        start = time.perf_counter()
        interpreter.invoke()
        taken.append(time.perf_counter() - start)
    return np.array(taken)


def _memory(what: str) -> int:
    """Bytes of this process that are in memory, or were at most; 0 where the system doesn't tell."""
    try:
        lines = Path("/proc/self/status").read_text().splitlines()
    except OSError:
        return 0
    return next((int(line.split()[1]) * 1024 for line in lines if line.startswith(what)), 0)


if __name__ == "__main__":
    place = Path(sys.argv[1])
    print(json.dumps(_first_run(place / sys.argv[2])[2] if sys.argv[2:] else measure(place)))
