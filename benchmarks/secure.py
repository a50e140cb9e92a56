"""Secure sums: beside Flower's SecAgg+, and of many long vectors alone.

Every side is one process on one core, and waits for nothing: its processor time is what a round
takes on an idle core, whatever else runs on the machine.
"""

import statistics
from collections.abc import Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from benchmarks.measure import Outcome, take_turns
from benchmarks.peers.sums import SumJob, write_sum_job
from benchmarks.result import OURS, make_result
from benchmarks.sides import Side
from federated.secure import choose_shape

_JOB = SumJob(
    clients=30, dimension=100_000, degree=29, threshold=16, gone=0, clip=8.0, levels=2**22
)
_MANY = _JOB._replace(clients=100, dimension=1_000_000, degree=99, threshold=51, gone=10)


def secure_sums(name: str, chosen: tuple[str, ...], repetitions: int) -> dict[str, Any]:
    """CPU seconds of a round with all 30 clients, or, with `-dropouts`, one that loses 3 of them."""
    job = _JOB._replace(gone=3) if name.endswith("-dropouts") else _JOB
    with TemporaryDirectory() as folder:
        sides = [side_of(each, Path(folder)) for each in (OURS, *chosen)]
        write_sum_job(Path(folder), job)
        outcomes = take_turns(sides, repetitions)
    return _result(name, outcomes, [job])


def large_sums(repetitions: int) -> dict[str, Any]:
    """CPU seconds of a round of 100 clients with a million numbers each, on either graph."""
    sparse = choose_shape(_MANY.clients, dropouts=0.1, colluders=0.1, failure=2**-40)
    jobs = [_MANY, _MANY._replace(degree=sparse.degree, threshold=sparse.threshold)]
    with TemporaryDirectory() as name:
        sides = []
        for job in jobs:
            folder = Path(name) / str(job.degree)
            folder.mkdir()
            write_sum_job(folder, job)
            sides.append(side_of(OURS, folder)._replace(label=f"{job.degree} neighbours"))
        outcomes = take_turns(sides, repetitions)
    return _result("secure-aggregation-large", outcomes, jobs)


def side_of(name: str, folder: Path) -> Side:
    """A side that does one secure sum a repetition."""
    return Side(name, "", folder, 1, 1, runner="secure" if name == OURS else "")


def _result(name: str, outcomes: Sequence[Outcome], jobs: Sequence[SumJob]) -> dict[str, Any]:
    wall = {each.side.group: statistics.median(each.seconds) for each in outcomes}
    told = [job._asdict() for job in jobs]
    return make_result(name, "processor_seconds", outcomes, wall_seconds=wall, jobs=told)
