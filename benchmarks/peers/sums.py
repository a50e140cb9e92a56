"""What both sides of a secure sum read: the job, the clients' vectors, and whether a mean is right.

It needs nothing but numpy, as `protocol`.
"""

import json
import os
from pathlib import Path
from typing import NamedTuple

import numpy as np

SUM = "sum.json"
# Of vectors of deviation 1 in steps of 2^-18, as the jobs have them: both sides come within 2e-6.
_TOLERANCE = 1e-4


class SumJob(NamedTuple):
    """A secure sum to do.

    Attributes:
      clients: n.
      dimension: D, the elements of a vector.
      degree: how many neighbours each client has; n - 1 is all.
      threshold: how many shares give a secret back.
      gone: how many clients drop out after they have dealt shares, before they send a vector.
      clip: the largest absolute value of an element.
      levels: how many steps there are from -clip to clip.
    """

    clients: int
    dimension: int
    degree: int
    threshold: int
    gone: int
    clip: float
    levels: int


def write_sum_job(folder: Path, job: SumJob) -> None:
    """Leaves a job in a folder."""
    (folder / SUM).write_text(json.dumps(job._asdict(), indent=2))


def read_sum_job(folder: Path) -> SumJob:
    """The job in a folder."""
    return SumJob(**json.loads((folder / SUM).read_text()))


def vectors(job: SumJob) -> np.ndarray:
    """The clients' vectors, float32 [n,D]; the first of them drop out."""
    drawn = np.random.default_rng(0).standard_normal((job.clients, job.dimension), np.float32)
    return np.clip(drawn, -job.clip, job.clip, out=drawn)


def check_mean(job: SumJob, own: np.ndarray, mean: np.ndarray) -> None:
    """Refuses a mean that is not that of the vectors of all who stayed.

    Raises:
      ValueError: it is off somewhere.
    """
    off = np.abs(mean - own[job.gone :].mean(0, dtype=np.float64)).max()
    if not off <= _TOLERANCE:
        raise ValueError(f"the mean is off by {off}")


def one_core() -> None:
    """Keeps this process on one core, where the system can."""
    if hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})
