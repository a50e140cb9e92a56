"""Writes a job: the folder that every side of a measurement reads, so that all do the same thing."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import msgspec
import numpy as np

from benchmarks.peers.protocol import PLAN, SETTINGS
from benchmarks.workloads import Workload
from federated.sampling import make_sampler
from federated.shards import partition
from lepton_jax.data.load import load
from lepton_jax.data.splits import Splits
from lepton_jax.models.presets import resolve


def write_job(
    folder: Path, workload: Workload, rounds: int, *, clients: Sequence[np.ndarray] | None = None
) -> None:
    """Writes settings as JSON, clients and cohorts as .npz, images as .npy files to be mapped.

    Args:
      folder: empty.
      workload: what to do.
      rounds: how many at most, warm-up included.
      clients: what each client holds, as positions in the training split; unset, the partition that
        the workload's configuration asks for.
    """
    splits = load(workload.run.data)
    (folder / SETTINGS).write_text(json.dumps(_settings(workload, splits), indent=2))
    _save_plan(folder, workload, splits, rounds, clients)
    for part, examples in (("train", splits.train), ("test", splits.test)):
        np.save(folder / f"{part}_images.npy", examples.images)
        np.save(folder / f"{part}_labels.npy", examples.labels)


def images(workload: Workload) -> int:
    """How many images a repetition goes over.

    >>> from benchmarks.workloads import find
    >>> images(find("inference-resnet8")) == 4 * 39 * 256
    True
    """
    if workload.kind == "inference":
        return workload.rounds * workload.steps * workload.batch_size
    held = len(load(workload.run.data).train.labels)
    if workload.kind in ("central", "private"):
        return workload.rounds * min(workload.steps * workload.batch_size, held)
    federated = workload.run.federated
    return workload.rounds * federated.clients_per_round * (held // federated.clients)


def _settings(workload: Workload, splits: Splits) -> dict[str, Any]:
    run = workload.run
    central = workload.kind != "federated"
    optimizer = run.train.optimizer if central else run.federated.client
    privacy = run.train.privacy
    return {
        "kind": workload.kind,
        "model": run.model.name,
        "norm": resolve(run.model).norm,
        "classes": len(splits.info.classes),
        "mean": splits.info.mean,
        "std": splits.info.std,
        "batch_size": workload.batch_size,
        "learning_rate": optimizer.learning_rate,
        "momentum": getattr(optimizer, "momentum", 0.0),
        "clip_norm": privacy.clip_norm if privacy else 0.0,
        "noise_multiplier": privacy.noise_multiplier if privacy else 0.0,
        "steps": workload.steps,
        "run": msgspec.to_builtins(run),
    }


def _save_plan(
    folder: Path,
    workload: Workload,
    splits: Splits,
    rounds: int,
    clients: Sequence[np.ndarray] | None,
) -> None:
    """The three arrays of the plan; those that this kind of workload has no use for are empty."""
    run, labels, numbers = workload.run, splits.train.labels, range(1, rounds + 1)
    held = cohorts = order = np.zeros((0, 0), np.int64)
    if workload.kind == "federated":
        sampler = make_sampler(run.federated, run.seed)
        held = np.stack(clients or _dealt(workload, splits))
        cohorts = np.stack([sampler.sample(number) for number in numbers])
    if workload.kind == "central":
        count = min(workload.steps * workload.batch_size, len(labels))
        orders = (np.random.default_rng([run.seed, number]) for number in numbers)
        order = np.stack([rng.permutation(len(labels))[:count] for rng in orders])
    held = held.astype(np.int32)  # of very many clients it would show in the runners' memory
    np.savez(folder / PLAN, clients=held, cohorts=cohorts, order=order)


def _dealt(workload: Workload, splits: Splits) -> list[np.ndarray]:
    dealt = partition(workload.run.federated, splits.train, splits.info)
    return [client.train for client in dealt]
