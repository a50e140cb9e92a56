"""A verb's process uses every core, and compiles nothing that was compiled before."""

import json
import os
import subprocess
import sys
from pathlib import Path

SCRIPT = """
import json, jax
from lepton_jax.startup import start_jax
events = []
jax.monitoring.register_event_listener(lambda name, **_: events.append(name.split("/")[-1]))
start_jax()
jax.jit(lambda x: (x * 3).sum())(jax.numpy.ones(5)).block_until_ready()
print(json.dumps([jax.device_count(), events.count("cache_hits"), events.count("cache_misses")]))
"""
SET_BY_USERS = ("XLA_FLAGS", "JAX_COMPILATION_CACHE", "JAX_PERSISTENT_CACHE")


def start(**environment: str) -> tuple[int, int, int]:
    kept = {name: value for name, value in os.environ.items() if not name.startswith(SET_BY_USERS)}
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT],
        env={**kept, **environment},
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stderr == ""
    return tuple(json.loads(done.stdout))


def test_every_core_is_a_device_and_a_second_start_compiles_nothing(tmp_path: Path) -> None:
    devices, hits, misses = start(LEPTON_CACHE_DIR=str(tmp_path))
    assert devices == len(os.sched_getaffinity(0))
    assert hits == 0 and misses > 0
    assert start(LEPTON_CACHE_DIR=str(tmp_path)) == (devices, misses, 0)


def test_what_the_user_has_set_stays(tmp_path: Path) -> None:
    own = tmp_path / "own"
    devices, _, misses = start(
        LEPTON_CACHE_DIR=str(tmp_path / "lepton"),
        XLA_FLAGS="--xla_force_host_platform_device_count=3",
        JAX_COMPILATION_CACHE_DIR=str(own),
        JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS="0",
    )
    assert devices == 3 and misses > 0
    assert any(own.iterdir()) and not (tmp_path / "lepton").exists()
