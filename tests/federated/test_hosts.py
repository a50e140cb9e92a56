"""A round over the devices of two processes is the round of one process."""

import socket
import subprocess
import sys
from pathlib import Path
from typing import Any

import jax
import numpy as np
import pytest

from federated.parts import check
from lepton_jax import config
from lepton_jax.checks import UserError

SCRIPT = """
import sys
import jax
import numpy as np
import optax

process, processes, port, out = (int(x) if x.isdigit() else x for x in sys.argv[1:])
jax.config.update("jax_num_cpu_devices", 4 // processes)
if processes > 1:
    jax.distributed.initialize(f"localhost:{port}", processes, process)

from federated.aggregate import aggregate
from federated.algorithms import fed_avg, rounds
from federated.channel import plain
from federated.client import local_update
from federated.over import make_over
from federated.stages import clip
from tests.federated import tiny

assert (jax.process_count(), jax.device_count()) == (processes, 4)
model = tiny.make_model(statistics=True)
client = local_update(model, lambda round: optax.sgd(0.5), tiny.LOSS, augment=tiny.jitter)
over = make_over("shard")
algorithm = fed_avg(client, optax.sgd(1.0, 0.9), aggregate([clip(0.3)], plain(), None), over)
laid = [(0, 1, 2, 3, 4), (2, 5), (1, 3, 4, 5, 0, 2)]
cohorts = (over.lay(tiny.make_cohort(9, 2, 5, 7, 3, 6, ids=list(ids), slots=6)) for ids in laid)
state = algorithm.init(model.init(jax.random.key(0)))
*_, (_, state, report) = rounds(algorithm, state, cohorts, jax.random.key(7))
values = jax.device_get([state.params, state.stats, state.opt_state, report])
np.savez(f"{out}/{processes}-{process}.npz", *jax.tree.leaves(values))
"""


def start(process: int, processes: int, port: int, out: Path) -> subprocess.Popen[str]:
    arguments = [str(x) for x in (process, processes, port, out)]
    return subprocess.Popen(
        [sys.executable, "-c", SCRIPT, *arguments],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
    )


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("localhost", 0))
        return probe.getsockname()[1]


@pytest.mark.parametrize("processes", [2])
def test_several_processes_compute_what_one_does(processes: int, tmp_path: Path) -> None:
    port = free_port()
    running = [start(0, 1, port, tmp_path)]
    running += [start(i, processes, port, tmp_path) for i in range(processes)]
    ended = [(each.communicate(timeout=180)[1], each.returncode) for each in running]
    for errors, code in ended:
        assert code == 0, errors
    alone = np.load(tmp_path / "1-0.npz")
    for i in range(processes):
        together = np.load(tmp_path / f"{processes}-{i}.npz")
        assert together.files == alone.files
        for name in alone.files:
            np.testing.assert_allclose(together[name], alone[name], rtol=1e-5, atol=1e-6)


NOISED = {"noise": config.Gaussian(multiplier=1.0), "sampling": "poisson"}


@pytest.mark.parametrize(
    ("changes", "got"),
    [
        (NOISED, "secure noise"),
        ({"channel": config.Secure()}, "secure sums"),
        (NOISED | {"randomness": "reproducible"}, None),
        ({}, None),
    ],
)
def test_what_each_process_would_draw_for_itself_is_refused_over_several(
    changes: dict[str, Any], got: str | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    federated = config.Federated(stages=(config.Clip(max_norm=0.5),), weights="uniform", **changes)
    run = config.Run(
        data=config.Data(normalization="unit"),
        model=config.Model(norm="group"),
        federated=federated,
    )
    check(run, None)
    monkeypatch.setattr(jax, "process_count", lambda: 2)
    if got is None:
        check(run, None)
        return
    with pytest.raises(UserError, match=rf"^federated: .*, got {got}; run it in one process$"):
        check(run, None)
