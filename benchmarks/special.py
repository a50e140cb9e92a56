"""The measurements that are no plain contest of rounds: cold start, many clients, the roofline."""

import os
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import msgspec
import numpy as np

from benchmarks.job import images, write_job
from benchmarks.measure import Outcome, say, take_turns
from benchmarks.peers.protocol import MATMUL_SIZE
from benchmarks.result import make_result
from benchmarks.sides import Side, started, variants
from benchmarks.workloads import Workload, find
from lepton_jax.cache import cache_folder
from lepton_jax.data.load import load
from lepton_jax.models import summary

_CLIENTS = (10, 100, 1_000, 10_000)
_ROOFS = ("W1", "W2", "W3", "W4")
_BACKWARD = 3  # a training step's work over that of the forward pass


# --- cold start -----------------------------------------------------------------------------------


def cold_start(chosen: tuple[str, ...], repetitions: int) -> dict[str, Any]:
    """Seconds from starting a process until its first training step of keras_cnn is done.

    `lepton-empty` finds no compiled program in its cache, `lepton` those of an earlier start. The
    decoded data are there for both, as the images lie ready for the peers.
    """
    workload = find("central-keras_cnn-32")._replace(steps=1)
    with TemporaryDirectory() as name:
        folder = Path(name)
        write_job(folder, workload, rounds=1)  # which decodes the data, where that was not done yet
        with _cache_without_programs() as warm:
            ours = {"LEPTON_CACHE_DIR": str(warm)}
            sides = [Side("lepton", "", folder, 1, 1, environment=ours)]
            sides += [Side(peer, variants(peer)[0], folder, 1, 1) for peer in chosen]
            _first_step(sides[0])  # fills the warm cache
            outcomes = [_first_steps(sides, number) for number in range(1, repetitions + 1)]
    together = [_together(own) for own in zip(*outcomes, strict=True)]
    return make_result("cold-start", "seconds", together)


def _first_steps(sides: Sequence[Side], number: int) -> list[Outcome]:
    """One repetition: every side, and lepton-jax once more with an empty cache."""
    with _cache_without_programs() as empty:
        bare = {"LEPTON_CACHE_DIR": str(empty)}
        fresh = sides[0]._replace(label="lepton-empty", environment=bare)
        outcomes = [_first_step(side) for side in (*sides, fresh)]
    say(f"cold-start: repetition {number}")
    return outcomes


def _first_step(side: Side) -> Outcome:
    began = time.perf_counter()
    with started(side) as runner:
        runner.go(1)
        seconds = time.perf_counter() - began
        return Outcome(side, (seconds,), runner.peak.bytes, None, runner.versions)


def _together(outcomes: tuple[Outcome, ...]) -> Outcome:
    seconds = tuple(each for outcome in outcomes for each in outcome.seconds)
    peak = max(outcome.peak_rss for outcome in outcomes)
    return outcomes[0]._replace(seconds=seconds, peak_rss=peak)


@contextmanager
def _cache_without_programs() -> Iterator[Path]:
    """A cache folder with all that the user's holds, but for the compiled programs."""
    with TemporaryDirectory() as name:
        for shelf in cache_folder().iterdir():
            if shelf.name != "compiled":
                os.symlink(shelf, Path(name) / shelf.name)
        yield Path(name)


# --- clients --------------------------------------------------------------------------------------


def clients(repetitions: int) -> dict[str, Any]:
    """Rounds of W2, ten clients each, out of 10 to 10,000; where they are many, images are shared."""
    w2 = find("W2")
    rounds = 1 + repetitions * w2.rounds
    with TemporaryDirectory() as name:
        sides = []
        for count in _CLIENTS:
            folder = Path(name) / str(count)
            folder.mkdir()
            write_job(folder, _with_clients(w2, count), rounds, clients=_shared(w2, count))
            sides.append(Side("lepton", "", folder, w2.rounds, images(w2), f"{count} clients"))
        return make_result("clients", "images_per_second", take_turns(sides, repetitions))


def _with_clients(workload: Workload, count: int) -> Workload:
    federated = msgspec.structs.replace(workload.run.federated, clients=count)
    return workload._replace(run=msgspec.structs.replace(workload.run, federated=federated))


def _shared(workload: Workload, count: int) -> list[np.ndarray]:
    """Clients as large as the workload's: cuts of the whole training split, shuffled ever anew."""
    total = len(load(workload.run.data).train.labels)
    own = total // workload.run.federated.clients
    rng = np.random.default_rng(0)
    orders = np.concatenate([rng.permutation(total) for _ in range(-(-count * own // total))])
    return list(orders[: count * own].reshape(count, own))


# --- roofline -------------------------------------------------------------------------------------


def roofline(repetitions: int) -> dict[str, Any]:
    """GFLOP/s of the rounds W1 to W4 beside those of large float32 matrix products through XLA."""
    with TemporaryDirectory() as name:
        sides = [_products(Path(name) / "matmul")]
        for each in _ROOFS:
            workload, folder = find(each), Path(name) / each
            folder.mkdir()
            write_job(folder, workload, 1 + repetitions * workload.rounds)
            gflop = images(workload) * flop_per_image(workload) / 1e9
            sides.append(Side("lepton", "", folder, workload.rounds, gflop, each))
        result = make_result("roofline", "gflops", take_turns(sides, repetitions))
    peak = result["gflops"]["matmul"]
    share = {each: result["gflops"][each] / peak for each in _ROOFS}
    return {**result, "share_of_peak": share}


def flop_per_image(workload: Workload) -> float:
    """Floating-point operations of training on one image: two a multiply-add, forward and backward.

    >>> flop_per_image(find("W4")) / 1e6 > 70
    True
    """
    splits = load(workload.run.data)
    height, width, channels = splits.train.images.shape[1:]
    shape, classes = (height, width, channels), len(splits.info.classes)
    return 2 * _BACKWARD * summary(workload.run.model, shape, classes).multiply_adds


def _products(folder: Path) -> Side:
    folder.mkdir()
    workload = find("W2")._replace(kind="matmul")
    write_job(folder, workload, rounds=1)
    products = 10
    return Side("lepton", "", folder, products, products * 2 * MATMUL_SIZE**3 / 1e9, "matmul")
