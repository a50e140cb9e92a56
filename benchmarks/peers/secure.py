"""lepton-jax' secure sums: from the clients' floats to their mean, all clients and the server."""

import os
import sys
from pathlib import Path

import numpy as np

from benchmarks.peers.protocol import Accuracy, Advance, open_line, serve
from benchmarks.peers.sums import SumJob, check_mean, one_core, read_sum_job, vectors
from federated.secure import Context, Shape, fixed_point, make_plan, simulate_round


def main(folder: Path) -> None:
    """Serves one job."""
    line = open_line()
    one_core()
    serve(line, ("lepton-jax", "cryptography", "numpy"), *sums(read_sum_job(folder)))


def sums(job: SumJob) -> tuple[Advance, Accuracy]:
    """Rounds through `simulate_round`."""
    own, session = vectors(job), os.urandom(16)
    coding = fixed_point(job.clip, job.levels / (2 * job.clip), job.clients)
    shape = Shape(job.degree, job.threshold)
    drops = dict.fromkeys(range(job.gone), "mask")
    mean = np.zeros(job.dimension)

    def advance(numbers: range) -> None:
        nonlocal mean
        for number in numbers:
            plan = make_plan(job.clients, job.dimension, shape, Context(session, number))
            encoded = np.empty(own.shape, np.uint32)
            for i, vector in enumerate(own):
                encoded[i] = coding.encode(vector)
            outcome = simulate_round(plan, encoded, drops)
            mean = coding.decode(outcome.total) / len(outcome.senders)

    def checked() -> None:
        check_mean(job, own, mean)

    return advance, checked


if __name__ == "__main__":
    main(Path(sys.argv[1]))
