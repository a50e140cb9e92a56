"""Every example has one owner, whatever the partition; the manifest pins who."""

import copy
import json
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from federated import shards
from federated.shards import Client
from lepton_jax import config
from lepton_jax.checks import UserError
from lepton_jax.data.splits import DatasetInfo, Examples

REGIONS = ("north", "centre", "south")


def data(n: int, classes: int = 4, regions: tuple[str, ...] = ()) -> tuple[Examples, DatasetInfo]:
    rng = np.random.default_rng(7)
    images = np.zeros((n, 2, 2, 1), np.uint8)
    labels = rng.integers(classes, size=n, dtype=np.int32)
    homes = rng.integers(len(regions), size=n, dtype=np.int32) if regions else None
    names = tuple(f"class {k}" for k in range(classes))
    return Examples(images, labels, homes), DatasetInfo("toy", names, regions, (0.0,), (1.0,))


def deal(
    partition: config.Partition, n: int = 240, regions: tuple[str, ...] = (), **changes: Any
) -> tuple[tuple[Client, ...], Examples]:
    examples, info = data(n, regions=regions)
    federated = config.Federated(
        **{"clients": 8, "clients_per_round": 2, "partition": partition, **changes}
    )
    return shards.partition(federated, examples, info), examples


def owned(clients: tuple[Client, ...]) -> np.ndarray:
    return np.concatenate([np.concatenate([each.train, each.holdout]) for each in clients])


def counts(clients: tuple[Client, ...], labels: np.ndarray) -> np.ndarray:
    return np.array(
        [np.bincount(labels[np.r_[each.train, each.holdout]], minlength=4) for each in clients]
    )


partitions = st.one_of(
    st.builds(config.Iid, size_sigma=st.floats(0, 3)),
    st.builds(config.Dirichlet, alpha=st.floats(1, 100), min_examples=st.just(1)),
    st.builds(config.LabelShards, shards_per_client=st.integers(1, 4)),
    st.builds(config.ByRegion, alpha=st.floats(1, 100), size_sigma=st.floats(0, 3)),
)
EVERY = [
    config.Iid(size_sigma=1.0),
    config.Dirichlet(alpha=0.5),
    config.LabelShards(),
    config.ByRegion(),
]


@settings(deadline=None, max_examples=60)
@given(
    partition=partitions,
    clients=st.integers(3, 12),
    seed=st.integers(0, 2**31 - 1),
    fraction=st.floats(0, 0.99),
    own_regions=st.booleans(),
)
def test_every_example_belongs_to_one_client(
    partition: config.Partition, clients: int, seed: int, fraction: float, own_regions: bool
) -> None:
    dealt, examples = deal(
        partition,
        clients=clients,
        partition_seed=seed,
        holdout_fraction=fraction,
        regions=REGIONS if own_regions else (),
    )
    assert [each.id for each in dealt] == list(range(clients))
    assert sorted(owned(dealt)) == list(range(len(examples.labels)))
    for each in dealt:
        total = len(each.train) + len(each.holdout)
        assert len(each.train) >= 1
        assert len(each.holdout) == min(round(fraction * total), total - 1)
        assert each.train.dtype == each.holdout.dtype == np.int64


@pytest.mark.parametrize("partition", EVERY)
def test_the_seed_alone_decides(partition: config.Partition) -> None:
    def indices(seed: int) -> list[list[int]]:
        return [each.train.tolist() for each in deal(partition, partition_seed=seed)[0]]

    assert indices(3) == indices(3)
    assert indices(3) != indices(4)


def test_iid_without_spread_is_equal() -> None:
    sizes = [len(each.train) for each in deal(config.Iid(), n=243, holdout_fraction=0.0)[0]]
    assert sorted(sizes) == [30] * 5 + [31] * 3


def test_sizes_follow_the_log_normal_spread() -> None:
    dealt, _ = deal(
        config.Iid(size_sigma=0.7), n=100_000, clients=1000, holdout_fraction=0.0, partition_seed=1
    )
    assert np.std(np.log([len(each.train) for each in dealt])) == pytest.approx(0.7, rel=0.1)


def test_as_many_clients_as_examples_get_one_each() -> None:
    dealt, _ = deal(config.Iid(size_sigma=2.0), n=8)
    assert [(len(each.train), len(each.holdout)) for each in dealt] == [(1, 0)] * 8


def test_dirichlet_tends_to_iid_as_alpha_grows_and_to_one_class_as_it_falls() -> None:
    def concentration(alpha: float) -> float:
        dealt, examples = deal(
            config.Dirichlet(alpha=alpha, min_examples=1), n=4000, clients=10, partition_seed=1
        )
        table = counts(dealt, examples.labels)
        return float(np.mean(table.max(axis=1) / table.sum(axis=1)))

    assert concentration(1e5) < 0.28
    assert concentration(1e5) < concentration(1.0) < concentration(0.05)
    assert concentration(0.05) > 0.7


def test_dirichlet_keeps_its_least_number() -> None:
    dealt, _ = deal(config.Dirichlet(alpha=0.3, min_examples=12), holdout_fraction=0.0)
    assert min(len(each.train) for each in dealt) >= 12


def test_dirichlet_that_can_not_be_drawn_names_alpha_and_clients() -> None:
    with pytest.raises(UserError, match=r"each of 8 clients with alpha = 0.01.*raise alpha"):
        deal(config.Dirichlet(alpha=0.01, min_examples=25))


@pytest.mark.parametrize("shards_per_client", [1, 2, 3])
def test_label_shards_are_equal_and_nearly_pure(shards_per_client: int) -> None:
    dealt, examples = deal(
        config.LabelShards(shards_per_client=shards_per_client), holdout_fraction=0.0
    )
    assert len({len(each.train) for each in dealt}) == 1
    labels_held: np.ndarray = (counts(dealt, examples.labels) > 0).sum(axis=1)
    # Each of the 3 borders between 4 sorted classes makes at most one shard of two labels.
    assert labels_held.sum() <= 8 * shards_per_client + 3
    assert labels_held.max() <= 2 * shards_per_client


def test_label_shards_smaller_than_an_example_are_refused() -> None:
    with pytest.raises(UserError, match="shards_per_client: expected at most 1"):
        deal(config.LabelShards(shards_per_client=2), n=15)


@pytest.mark.parametrize("partition", EVERY)
def test_clients_live_in_even_contiguous_blocks(partition: config.Partition) -> None:
    dealt, _ = deal(partition)
    assert [each.region for each in dealt] == ["north"] * 3 + ["centre"] * 3 + ["south"] * 2


def test_by_region_keeps_the_data_of_a_region_there() -> None:
    names = ("peak", "valley")
    dealt, examples = deal(config.ByRegion(), regions=names)
    assert examples.regions is not None
    for each in dealt:
        held = np.r_[each.train, each.holdout]
        assert {names[i] for i in examples.regions[held]} == {each.region}


def test_by_region_gives_regions_without_data_of_their_own_different_classes() -> None:
    dealt, examples = deal(config.ByRegion(alpha=0.1), n=2000, partition_seed=2)
    table = counts(dealt, examples.labels)
    by_region = np.array(
        [table[[each.region == name for each in dealt]].sum(axis=0) for name in REGIONS]
    )
    mix = by_region / by_region.sum(axis=1, keepdims=True)
    assert np.ptp(mix, axis=0).max() > 0.5
    # Within a region it is IID: the clients have their region's mix.
    north = table[:3] / table[:3].sum(axis=1, keepdims=True)
    assert np.abs(north - mix[0]).max() < 0.15


def test_more_clients_than_examples_are_refused() -> None:
    with pytest.raises(UserError, match="at most 7, the number of training examples, got 8"):
        deal(config.Iid(), n=7)


def test_fewer_clients_than_the_data_have_regions_are_refused() -> None:
    with pytest.raises(UserError, match=r"at least one for each of the data's 9 regions"):
        deal(config.ByRegion(), regions=tuple("abcdefghi"))


def test_a_region_with_too_few_examples_is_named() -> None:
    examples, info = data(40, regions=("full", "bare"))
    regions = np.zeros(40, np.int32)
    regions[0] = 1
    federated = config.Federated(clients=8, clients_per_round=2, partition=config.ByRegion())
    with pytest.raises(UserError, match="in region bare as it has examples"):
        shards.partition(federated, examples._replace(regions=regions), info)


# --- manifest and description ---------------------------------------------------------------------


def written() -> dict[str, Any]:
    clients, examples = deal(config.Dirichlet(alpha=0.5), n=60, partition_seed=5)
    federated = config.Federated(clients=8, clients_per_round=2, partition_seed=5)
    return shards.manifest(federated, clients, examples.labels, 4)


def test_the_manifest_survives_json() -> None:
    manifest = written()
    assert (manifest["version"], manifest["kind"], manifest["seed"]) == (1, "dirichlet", 5)
    shards.verify_manifest(json.loads(json.dumps(manifest)))


def leaves(tree: Any, path: tuple = ()) -> list[tuple]:
    if isinstance(tree, dict):
        return [leaf for key in tree for leaf in leaves(tree[key], (*path, key))]
    if isinstance(tree, list):
        return [leaf for i, each in enumerate(tree) for leaf in leaves(each, (*path, i))]
    return [path]


def test_any_edit_of_the_manifest_is_detected() -> None:
    manifest = written()
    for path in leaves(manifest):
        edited = copy.deepcopy(manifest)
        node = edited
        for step in path[:-1]:
            node = node[step]
        value = node[path[-1]]
        node[path[-1]] = value + 1 if isinstance(value, int) else value + "x"
        with pytest.raises(UserError, match="partition manifest"):
            shards.verify_manifest(edited)


@pytest.mark.parametrize("key", ["sha256", "version", "clients"])
def test_a_manifest_with_a_key_missing_is_refused(key: str) -> None:
    manifest = written()
    del manifest[key]
    with pytest.raises(UserError, match="partition manifest"):
        shards.verify_manifest(manifest)


def test_the_description_counts_what_the_manifest_lists() -> None:
    clients, examples = deal(config.LabelShards(), n=60)
    _, info = data(60)
    rows = shards.describe(clients, examples.labels, info)
    for row, each, table in zip(rows, clients, counts(clients, examples.labels), strict=True):
        assert row == {
            "client": each.id,
            "region": each.region,
            "examples": len(each.train),
            "holdout": len(each.holdout),
            "classes": {f"class {k}": int(n) for k, n in enumerate(table) if n},
        }
