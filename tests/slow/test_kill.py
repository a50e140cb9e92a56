"""SIGKILL at random moments: what is resumed ends bitwise equal to what was never interrupted."""

import json
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

KILLS = 20
SMALL = (
    'model={name = "cnn", blocks = [{filters = 4, pool = 2}], dense = [8], norm = "none"}',
    "data.augment=[]",
)
RUNS = {
    "train": ("digits_central", *SMALL, "train.epochs=600", "train.ema=0.9", "checkpoint.every=2"),
    "simulate": (
        "digits_federated",
        *SMALL,
        "federated.rounds=600",
        "federated.clients=12",
        "federated.clients_per_round=6",
        "federated.client.learning_rate=0.02",
        "checkpoint.every=1",
    ),
}

pytestmark = pytest.mark.slow


def start(verb: str, out: Path) -> subprocess.Popen[str]:
    name, *overrides = RUNS[verb]
    command = [sys.executable, "-m", "lepton_jax.cli", verb, name, "--out", str(out), "--resume"]
    for override in overrides:
        command += ["--set", override]
    return subprocess.Popen([*command, "--json"], stdout=subprocess.PIPE, text=True)


def finish(process: subprocess.Popen[str]) -> dict[str, Any]:
    stdout, _ = process.communicate(timeout=900)
    assert process.returncode == 0
    return json.loads(stdout.splitlines()[-1])


def kill_at_random(process: subprocess.Popen[str], out: Path, chance: random.Random) -> bool:
    """Kills in the start-up, or soon after a record was added; whether it was still running."""
    record = out / "metrics.jsonl"

    def recorded() -> int:
        return record.stat().st_size if record.exists() else 0

    if chance.random() < 0.2:
        time.sleep(chance.uniform(0.0, 6.0))
    else:
        before = recorded()  # a resume may cut it back first: any growth counts
        while process.poll() is None and recorded() <= before:
            before = min(before, recorded())
            time.sleep(0.002)
        time.sleep(chance.uniform(0.0, 0.5))
    running = process.poll() is None
    os.kill(process.pid, signal.SIGKILL)
    process.communicate()
    return running


@pytest.mark.parametrize("verb", RUNS)
def test_a_run_that_is_killed_again_and_again_ends_as_if_it_were_not(
    verb: str, tmp_path: Path
) -> None:
    whole = finish(start(verb, tmp_path / "whole"))
    chance = random.Random(0)
    kills = 0
    while kills < KILLS and kill_at_random(
        start(verb, tmp_path / "parts"), tmp_path / "parts", chance
    ):
        kills += 1
    parts = finish(start(verb, tmp_path / "parts"))

    assert kills == KILLS, "the run ended before it was killed often enough: make it longer"
    assert parts["params_sha256"] == whole["params_sha256"]
    records = [(tmp_path / name / "metrics.jsonl").read_bytes() for name in ("whole", "parts")]
    assert records[0] == records[1]
