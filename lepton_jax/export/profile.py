"""Phone figures: how long a model takes, how much memory, what it computes and moves, op by op."""

import os
import subprocess
import sys
from collections import Counter
from collections.abc import Sequence
from typing import Annotated, Any

import msgspec
from msgspec import Meta

from lepton_jax import untrusted
from lepton_jax.checks import UserError
from lepton_jax.export import graph as graphs
from lepton_jax.export import measuring
from lepton_jax.export.extras import litert
from lepton_jax.export.files import scratch
from lepton_jax.export.graph import Graph, Op

_WAIT_S = 600  # for models that take seconds an image
_Time = Annotated[float, Meta(ge=0)]


class _Latency(msgspec.Struct, forbid_unknown_fields=True):
    threads: int
    xnnpack: bool
    min_ms: _Time
    median_ms: _Time
    p95_ms: _Time
    runs: int


class _Told(msgspec.Struct, forbid_unknown_fields=True):
    """What the process measured."""

    first_run_ms: _Time
    memory_bytes: int | None
    runtime_bytes: int | None
    latency: list[_Latency]
    delegated: list[tuple[list[int], list[int]]]
    ops_ms: list[_Time | None]


def profile(model: bytes) -> dict[str, Any]:
    """Measures a model on this machine's CPU, in a process of its own.

    Args:
      model: the content of a .tflite file that was made here; its signature `classify` must be of
        its first graph.

    Returns:
      `batch`: images a run.
      `latency`: of a run, `min_ms`, `median_ms` and `p95_ms`, for each number of `threads` (1, 2)
      and with `xnnpack`, LiteRT's CPU delegate, on and off; `runs`: how many were timed.
      `first_run_ms`: opening the model, allocating and the first run together.
      `memory_bytes`: by how much a new process grew at that, with activations, repacked weights and
      what LiteRT itself touches first; `runtime_bytes`: by how much another one grew at the
      model's smallest op alone, which is nearly LiteRT itself. None where the system doesn't tell.
      `multiply_adds`: of an image, in convolutions and matrix products.
      `bytes_moved`: of an image, read and written by all ops, weights included: a proxy for energy,
      which memory takes most of (Horowitz, 2014).
      `ops`: for each `op`, the most time first, its `count`, `multiply_adds`, `bytes_moved` and
      `share` of the time; each op is timed as a model of its own, since LiteRT's Python
      interpreter has no profiler, so that what fusing ops wins is not seen in it. What is computed
      of constants alone, as float16's weights are unpacked, is done once and counted nowhere.
      `delegate`: in how many `parts` XNNPACK took the graph over, how many ops it took (`taken`),
      and how often which op was `left` to slower kernels: those to blame for more than one part.

    Raises:
      UserError: LiteRT is not installed, the process ended before its time, or the model has no
        signature `classify`.
    """
    litert()
    graph = graphs.read(model)
    ops = graphs.running(graph)
    kinds = _alike(graph, ops)
    told = _measure(model, list(kinds.values()))
    times = dict(zip(kinds, told.ops_ms, strict=True))
    each = [times[_key(graph, op)] or 0.0 for op in ops]
    left = Counter(op.name for op in graphs.left_over(graph, told.delegated))
    batch = max(graph.tensors[graph.inputs[0]].shape[0], 1)
    return {
        "batch": batch,
        "latency": msgspec.to_builtins(told.latency),
        "first_run_ms": told.first_run_ms,
        "memory_bytes": told.memory_bytes,
        "runtime_bytes": told.runtime_bytes,
        "multiply_adds": sum(graphs.multiply_adds(graph, op) for op in ops) // batch,
        "bytes_moved": sum(graphs.moved(graph, op) for op in ops) // batch,
        "ops": _by_name(graph, list(zip(ops, each, strict=True)), batch),
        "delegate": {
            "parts": len(told.delegated),
            "taken": len(ops) - sum(left.values()),
            "left": dict(left),
        },
    }


def _key(graph: Graph, op: Op) -> tuple[Any, ...]:
    """Equal for ops that take as long: the same work on arrays of the same shapes."""
    return (op.name, *(graph.tensors[i] for i in (*op.inputs, *op.outputs)))


def _alike(graph: Graph, ops: Sequence[Op]) -> dict[tuple[Any, ...], int]:
    """The number of the first op of each kind."""
    first: dict[tuple[Any, ...], int] = {}
    for op in ops:
        first.setdefault(_key(graph, op), graph.ops.index(op))
    return first


def _by_name(graph: Graph, timed: Sequence[tuple[Op, float]], batch: int) -> list[dict[str, Any]]:
    total = sum(taken for _, taken in timed) or 1.0
    rows: dict[str, dict[str, Any]] = {}
    for op, taken in timed:
        nothing = {"op": op.name, "count": 0, "multiply_adds": 0, "bytes_moved": 0, "share": 0.0}
        row = rows.setdefault(op.name, nothing)
        row["count"] += 1
        row["multiply_adds"] += graphs.multiply_adds(graph, op)
        row["bytes_moved"] += graphs.moved(graph, op)
        row["share"] += taken / total
    for row in rows.values():
        row["multiply_adds"] //= batch
        row["bytes_moved"] //= batch
    return sorted(rows.values(), key=lambda row: -row["share"])


def _measure(model: bytes, numbers: Sequence[int]) -> _Told:
    with scratch() as folder:
        (folder / measuring.WHOLE).write_bytes(model)
        for i, number in enumerate(numbers):
            (folder / f"{i}.tflite").write_bytes(graphs.alone(model, number))
        # A pool of BLAS threads would be memory that no phone has.
        threads = {"OPENBLAS_NUM_THREADS": "1", "OMP_NUM_THREADS": "1"}
        command = [sys.executable, "-P", measuring.__file__, str(folder)]
        try:
            done = subprocess.run(
                command, capture_output=True, env={**os.environ, **threads}, timeout=_WAIT_S
            )
        except subprocess.TimeoutExpired as error:
            raise UserError("model", f"figures within {_WAIT_S} s", "none") from error
    if done.returncode:
        last = done.stderr.decode(errors="replace").strip().splitlines()[-1:]
        got = f"exit code {done.returncode} ({' '.join(last)[:200]})"
        raise UserError("model", "a model that can be measured", got)
    return untrusted.convert(untrusted.parse_json(done.stdout, "figures"), _Told, "figures")
