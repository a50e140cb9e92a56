"""Which examples a phone model is compared on for each region and client."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from federated.groups import groups_of
from federated.shards import partition
from lepton_jax import config
from lepton_jax.data.splits import DatasetInfo, Examples, Splits
from lepton_jax.export.groups import Groups, compare_groups
from tests.federated import tiny
from tests.federated.test_borders import write_policies
from tests.lepton_jax.export.made import made

REGIONS = ("north", "south")


@pytest.fixture(scope="module")
def splits() -> Splits:
    info = DatasetInfo("tiny", ("a", "b", "c", "d"), (), (0.0,), (1.0,))
    train, nothing, test = (tiny.make_examples(n, n) for n in (120, 0, 30))
    return Splits(train, nothing, test, info)


def run(**changes: Any) -> config.Run:
    settings = {
        "holdout_fraction": 0.3,
        "clients": 6,
        "clients_per_round": 3,
        "regions": REGIONS,
        **changes,
    }
    return config.Run(name="r", federated=config.Federated(**settings))


def test_regions_and_clients_have_their_own_holdout(splits: Splits) -> None:
    found = groups_of(run(), splits)
    clients = partition(run().federated, splits.train, splits.info)
    assert found.data == "holdout"
    for client in clients:
        rows = found.clients[str(client.id)]
        assert len(rows) == len(client.holdout) > 0
        np.testing.assert_array_equal(
            found.examples.images[rows], splits.train.images[client.holdout]
        )
        np.testing.assert_array_equal(
            found.examples.labels[rows], splits.train.labels[client.holdout]
        )
    for name in REGIONS:
        own = [found.clients[str(each.id)] for each in clients if each.region == name]
        assert sorted(found.regions[name]) == sorted(np.concatenate(own))
    assert sum(map(len, found.regions.values())) == len(found.examples.labels)


def test_without_any_holdout_it_is_what_they_train_on(splits: Splits) -> None:
    found = groups_of(run(holdout_fraction=0.0), splits)
    assert found.data == "training"
    assert len(found.examples.labels) == len(splits.train.labels)


def test_each_client_gives_a_part_and_the_same_one_every_time(splits: Splits) -> None:
    first, again = (groups_of(run(holdout_fraction=0.0), splits, limit=30) for _ in range(2))
    assert [len(rows) for rows in first.clients.values()] == [5] * 6
    np.testing.assert_array_equal(first.examples.images, again.examples.images)


@pytest.mark.parametrize(
    "rule",
    ['metrics=["accuracy"]', 'outputs=["update"]\nmetrics=[]', "minimum_cohort=4"],
)
def test_what_a_policy_withholds_is_not_told(rule: str, splits: Splits, tmp_path: Path) -> None:
    policies = write_policies(tmp_path / "policies", north=rule, south="")
    found = groups_of(run(policies=policies), splits)
    assert list(found.regions) == ["south"]
    assert found.clients == {}
    assert len(found.examples.labels) == len(found.regions["south"])


# --- compared -------------------------------------------------------------------------------------


def table(logits: np.ndarray) -> Callable[[jax.Array], dict[str, jax.Array]]:
    """A model that looks its logits up by an image's first pixel."""

    def classify(image: jax.Array) -> dict[str, jax.Array]:
        at = image[:, 0, 0].astype(jnp.float32) == np.arange(len(logits), dtype=np.float32)[None]
        return {"logits": at.astype(jnp.float32) @ logits}

    return classify


@pytest.fixture(scope="module")
def phone() -> tuple[np.ndarray, bytes]:
    """JAX's logits of 90 images, and a phone model that gets the last ten wrong."""
    right = np.eye(90, 3, dtype=np.float32)[np.random.default_rng(0).permutation(90)] + 0.0
    right[:, 0] += 0.1
    wrong = right.copy()
    wrong[80:] = np.roll(wrong[80:], 1, axis=1)
    return right, made(table(wrong), (1, 1, 1, 1), "uint8")


def test_a_region_that_a_phone_fails_is_named(phone: tuple[np.ndarray, bytes]) -> None:
    logits, model = phone
    images = np.arange(90, dtype=np.uint8)[:, None, None, None]
    labels = logits.argmax(-1).astype(np.int32)
    regions = {"near": np.arange(60), "far": np.arange(60, 90)}
    clients = {str(i): np.arange(i * 10, i * 10 + 10) for i in range(9)} | {"9": np.arange(0)}
    groups = Groups("holdout", Examples(images, labels, None), regions, clients)
    figures, gates = compare_groups("int8", model, groups, logits)
    assert figures["regions"]["near"]["loss"] == 0
    assert figures["worst_region"] == {"name": "far", **figures["regions"]["far"]}
    assert figures["worst_region"]["loss"] == pytest.approx(1 / 3)
    assert (figures["worst_client"]["name"], figures["worst_client"]["loss"]) == ("8", 1)
    assert figures["clients"] == 9
    assert [(gate.name, gate.passed) for gate in gates] == [("regions", False), ("clients", False)]
    figures, gates = compare_groups("int8", model, groups._replace(clients={}), logits)
    assert figures["worst_client"] is None and [gate.name for gate in gates] == ["regions"]
