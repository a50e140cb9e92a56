"""Every side reads the same job."""

import json
from pathlib import Path

import numpy as np
import pytest

from benchmarks.job import images, write_job
from benchmarks.peers.protocol import read_job
from federated.sampling import make_sampler
from lepton_jax.data.load import load
from tests.benchmarks.tiny import BATCH, CENTRAL, CHOSEN, CLIENTS, FEDERATED

_ROUNDS = 3


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    write_job(tmp_path, FEDERATED, _ROUNDS)
    return tmp_path


def test_the_images_are_those_of_the_splits(folder: Path) -> None:
    job, splits = read_job(folder), load(FEDERATED.run.data)
    assert np.array_equal(job.train_images, splits.train.images)
    assert np.array_equal(job.test_labels, splits.test.labels)


def test_no_image_belongs_to_two_clients(folder: Path) -> None:
    clients = read_job(folder).clients
    assert len(clients) == CLIENTS
    assert len(np.unique(clients)) == clients.size


def test_the_cohorts_are_the_samplers(folder: Path) -> None:
    cohorts = read_job(folder).cohorts
    sampler = make_sampler(FEDERATED.run.federated, FEDERATED.run.seed)
    assert cohorts.shape == (_ROUNDS, CHOSEN)
    assert np.array_equal(cohorts[1], sampler.sample(2))


def test_settings_are_plain_json(folder: Path) -> None:
    settings = json.loads((folder / "job.json").read_text())
    assert settings["batch_size"] == BATCH
    assert settings["learning_rate"] == FEDERATED.run.federated.client.learning_rate


def test_an_order_is_a_new_one_each_round_and_repeats_no_image(tmp_path: Path) -> None:
    write_job(tmp_path, CENTRAL, _ROUNDS)
    order = read_job(tmp_path).order
    assert order.shape == (_ROUNDS, CENTRAL.steps * BATCH)
    assert all(len(np.unique(row)) == len(row) for row in order)
    assert not np.array_equal(order[0], order[1])


def test_a_repetition_goes_over_its_clients_images(folder: Path) -> None:
    examples = read_job(folder).clients.shape[1]
    assert images(FEDERATED) == FEDERATED.rounds * CHOSEN * examples


def test_chosen_clients_replace_the_partition(tmp_path: Path) -> None:
    own = [np.arange(5) for _ in range(CLIENTS)]
    write_job(tmp_path, FEDERATED, _ROUNDS, clients=own)
    assert np.array_equal(read_job(tmp_path).clients, np.stack(own))
