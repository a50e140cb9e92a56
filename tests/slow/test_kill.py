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

from lepton_jax.training.ledger import read_ledger
from lepton_jax.training.verify import verify_run

KILLS, PRIVATE_KILLS, PRIVATE_ROUNDS = 20, 100, 2000
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
PRIVATE = (
    *RUNS["simulate"],
    "data.normalization=unit",
    "federated.sampling=poisson",
    "federated.weights=uniform",
    'federated.stages=[{kind = "clip", max_norm = 0.5}]',
    'federated.noise={kind = "gaussian", multiplier = 4.0}',
    "federated.accountant=rdp",
)
RUNS["reproducible"] = (*PRIVATE, "federated.randomness=reproducible")
RUNS["secure"] = (*PRIVATE, f"federated.rounds={PRIVATE_ROUNDS}", "federated.evaluate_every=100")
VERBS = {"train": "train", "simulate": "simulate", "reproducible": "simulate", "secure": "simulate"}

pytestmark = pytest.mark.slow


def start(run: str, out: Path) -> subprocess.Popen[str]:
    name, *overrides = RUNS[run]
    command = [
        sys.executable,
        "-m",
        "lepton_jax.cli",
        VERBS[run],
        name,
        "--out",
        str(out),
        "--resume",
    ]
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


def kill_again_and_again(run: str, out: Path, most: int) -> int:
    """Starts and kills a run until it was killed so often, or came to its end before."""
    chance, kills = random.Random(0), 0
    while kills < most and kill_at_random(start(run, out), out, chance):
        kills += 1
    return kills


@pytest.mark.parametrize("run", ["train", "simulate", "reproducible"])
def test_a_run_that_is_killed_again_and_again_ends_as_if_it_were_not(
    run: str, tmp_path: Path
) -> None:
    whole = finish(start(run, tmp_path / "whole"))
    kills = kill_again_and_again(run, tmp_path / "parts", KILLS)
    parts = finish(start(run, tmp_path / "parts"))

    assert kills == KILLS, "the run ended before it was killed often enough: make it longer"
    assert parts.get("epsilon") == whole.get("epsilon")
    assert parts["params_sha256"] == whole["params_sha256"]
    records = [(tmp_path / name / "metrics.jsonl").read_bytes() for name in ("whole", "parts")]
    assert records[0] == records[1]


def test_a_secure_run_that_is_killed_charges_every_release_it_may_have_made(tmp_path: Path) -> None:
    out = tmp_path / "run"
    kills = kill_again_and_again("secure", out, PRIVATE_KILLS)
    done = finish(start("secure", out))
    assert kills == PRIVATE_KILLS, "the run ended before it was killed often enough: make it longer"

    verified = verify_run(out)
    bodies = [each["body"] for each in read_ledger(out) if each["kind"] == "release"]
    numbers = [body["number"] for body in bodies]
    assert set(numbers) == set(range(1, PRIVATE_ROUNDS + 1))
    assert (
        verified.releases == len(numbers) > PRIVATE_ROUNDS
    )  # some rounds were killed once charged
    assert done["epsilon"] == pytest.approx(verified.epsilon)
    recorded = [json.loads(line) for line in (out / "metrics.jsonl").read_text().splitlines()]
    assert [each["round"] for each in recorded] == list(range(1, PRIVATE_ROUNDS + 1))
