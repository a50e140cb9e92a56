"""SIGKILL at random moments: what is resumed ends bitwise equal to what was never interrupted."""

import json
import os
import random
import signal
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from lepton_jax.training.ledger import read_ledger
from lepton_jax.training.verify import verify_run
from tests.nursery import Nursery

ROOT = Path(__file__).parents[2]
KILLS, PRIVATE_KILLS, PRIVATE_ROUNDS = 20, 100, 1000
SMALL = (
    'model={name = "cnn", blocks = [{filters = 4, pool = 2}], dense = [8], norm = "none"}',
    "data.augment=[]",
)
RUNS = {
    "train": ("digits_central", *SMALL, "train.epochs=600", "train.ema=0.9", "checkpoint.every=2"),
    "simulate": (
        "digits_federated",
        *SMALL,
        "federated.rounds=250",
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


@pytest.fixture(scope="module")
def nursery() -> Iterator[Nursery]:
    with Nursery(ROOT, os.environ) as nursery:
        yield nursery


def start(nursery: Nursery, run: str, out: Path) -> int:
    name, *overrides = RUNS[run]
    words = ("lepton_jax.cli", VERBS[run], name, "--out", str(out), "--resume", "--json")
    settings = (word for each in overrides for word in ("--set", each))
    return nursery.start("module", *words, *settings)


def finish(nursery: Nursery, run: str, out: Path) -> dict[str, Any]:
    start(nursery, run, out)
    status, said = nursery.answer()
    assert status == 0, said
    return json.loads(said.splitlines()[-1])


def kill_at_random(nursery: Nursery, run: str, out: Path, chance: random.Random) -> bool:
    """Kills in the start-up, or soon after a record was added; whether it was still running."""
    process, record = start(nursery, run, out), out / "metrics.jsonl"

    def recorded() -> int:
        return record.stat().st_size if record.exists() else 0

    if chance.random() < 0.2:
        time.sleep(chance.uniform(0.0, 3.0))
    else:
        before = recorded()  # a resume may cut it back first: any growth counts
        while _runs(process) and recorded() <= before:
            before = min(before, recorded())
            time.sleep(0.002)
        time.sleep(chance.uniform(0.0, 0.2))
    if running := _runs(process):
        os.kill(process, signal.SIGKILL)
    status, said = nursery.answer()
    assert status == (-signal.SIGKILL if running else 0), said
    return running


def _runs(process: int) -> bool:
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    return True


def kill_again_and_again(nursery: Nursery, run: str, out: Path, most: int) -> int:
    """Starts and kills a run until it was killed so often, or came to its end before."""
    chance, kills = random.Random(0), 0
    while kills < most and kill_at_random(nursery, run, out, chance):
        kills += 1
    return kills


@pytest.mark.parametrize("run", ["train", "simulate", "reproducible"])
def test_a_run_that_is_killed_again_and_again_ends_as_if_it_were_not(
    run: str, nursery: Nursery, tmp_path: Path
) -> None:
    whole = finish(nursery, run, tmp_path / "whole")
    kills = kill_again_and_again(nursery, run, tmp_path / "parts", KILLS)
    parts = finish(nursery, run, tmp_path / "parts")

    assert kills == KILLS, "the run ended before it was killed often enough: make it longer"
    assert parts.get("epsilon") == whole.get("epsilon")
    assert parts["params_sha256"] == whole["params_sha256"]
    records = [(tmp_path / name / "metrics.jsonl").read_bytes() for name in ("whole", "parts")]
    assert records[0] == records[1]


def test_a_secure_run_that_is_killed_charges_every_release_it_may_have_made(
    nursery: Nursery, tmp_path: Path
) -> None:
    out = tmp_path / "run"
    kills = kill_again_and_again(nursery, "secure", out, PRIVATE_KILLS)
    done = finish(nursery, "secure", out)
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
