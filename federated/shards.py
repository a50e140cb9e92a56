"""Who holds which examples: partitions over clients and regions, and the manifest that pins them."""

import hashlib
import json
from collections.abc import Mapping, Sequence
from typing import Any, Literal, NamedTuple

import msgspec
import numpy as np

from lepton_jax import config
from lepton_jax.checks import UserError
from lepton_jax.data.splits import DatasetInfo, Examples

_DRAWS = 100


class Client(NamedTuple):
    """What one client holds, as indices into the training split; nobody else holds them.

    Attributes:
      id: the client's number, from 0.
      region: the name of its region.
      train: int64 [n] what it trains on, ascending; never empty.
      holdout: int64 [m] what it evaluates on, ascending; may be empty.
    """

    id: int
    region: str
    train: np.ndarray
    holdout: np.ndarray


def measured_on(
    clients: Sequence[Client],
) -> tuple[Literal["holdout", "training"], list[np.ndarray]]:
    """What clients are measured on: their holdouts or, if no client has one, what they train on.

    Returns:
      Which of both, and each client's indices.
    """
    if any(len(client.holdout) for client in clients):
        return "holdout", [client.holdout for client in clients]
    return "training", [client.train for client in clients]


def partition(
    federated: config.Federated, examples: Examples, info: DatasetInfo
) -> tuple[Client, ...]:
    """Deals every example to exactly one client, into its training part or its holdout.

    The same `partition_seed` deals the same way. Clients belong to the regions in contiguous
    blocks of even length: the configured regions or, by region, those that the data name.

    Args:
      federated: how many clients, which partition, which regions.
      examples: the training split.
      info: names its classes and, where the data have some, its regions.

    Returns:
      The clients, by number.

    Raises:
      UserError: too few examples for so many clients, or a partition too uneven to be drawn.
    """
    n, clients = len(examples.labels), federated.clients
    if n < clients:
        raise UserError(
            "federated.clients",
            f"at most {n}, the number of training examples",
            clients,
            "give each client at least one",
        )
    rng = np.random.default_rng(federated.partition_seed)
    names = federated.regions
    labels = np.asarray(examples.labels)
    match federated.partition:
        case config.Iid(size_sigma=sigma):
            owned = _iid(rng, np.arange(n), clients, sigma)
        case config.Dirichlet(alpha=alpha, min_examples=least):
            owned = _spread(rng, labels, alpha, np.full(clients, least), "clients")
        case config.LabelShards(shards_per_client=shards):
            owned = _label_shards(rng, labels, clients, shards)
        case config.ByRegion() as by_region:
            names = info.regions or federated.regions
            owned = _by_region(rng, by_region, _blocks(clients, names), examples, info)
    homes = np.repeat(names, _blocks(clients, names))
    parts = [_hold_out(rng, each, federated.holdout_fraction) for each in owned]
    return tuple(
        Client(i, str(home), train, holdout)
        for i, (home, (train, holdout)) in enumerate(zip(homes, parts, strict=True))
    )


def describe(
    clients: Sequence[Client], labels: np.ndarray, info: DatasetInfo
) -> list[dict[str, Any]]:
    """One row a client, of counts alone: its region, examples, holdout, and examples per class.

    Args:
      clients: as `partition` made them.
      labels: int32 [N] of the training split.
      info: names the classes.

    Returns:
      Rows with the keys client, region, examples, holdout and classes; the last counts training
      and holdout together and leaves out the classes that the client has none of.
    """
    rows = []
    for client in clients:
        counts = _count(client, labels, len(info.classes))
        rows.append(
            {
                "client": client.id,
                "region": client.region,
                "examples": len(client.train),
                "holdout": len(client.holdout),
                "classes": {
                    name: count for name, count in zip(info.classes, counts, strict=True) if count
                },
            }
        )
    return rows


# --- the manifest ---------------------------------------------------------------------------------


def manifest(
    federated: config.Federated, clients: Sequence[Client], labels: np.ndarray, classes: int
) -> dict[str, Any]:
    """The partition as JSON-able data, with a SHA-256 over all the rest of it.

    Args:
      federated: what the clients were dealt by.
      clients: as `partition` made them.
      labels: int32 [N] of the training split.
      classes: how many classes there are.

    Returns:
      What `partition.json` holds; a client's `labels` count training and holdout together.
    """
    body = {
        "version": 1,
        "kind": msgspec.to_builtins(federated.partition)["kind"],
        "seed": federated.partition_seed,
        "clients": [
            {
                "client": client.id,
                "region": client.region,
                "examples": client.train.tolist(),
                "holdout": client.holdout.tolist(),
                "labels": _count(client, labels, classes),
            }
            for client in clients
        ],
    }
    return {**body, "sha256": _fingerprint(body)}


def verify_manifest(manifest: Mapping[str, Any]) -> None:
    """Returns in silence if the manifest is as it was written.

    Raises:
      UserError: the hash is missing, or anything that it covers was changed.
    """
    stated = manifest.get("sha256")
    found = _fingerprint({key: value for key, value in manifest.items() if key != "sha256"})
    if stated != found:
        raise UserError(
            "partition manifest",
            f"the SHA-256 {stated} that it states",
            found,
            "restore the file, or partition anew from the run's config",
        )


def _fingerprint(body: Mapping[str, Any]) -> str:
    canonical = json.dumps(body, sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(canonical.encode()).hexdigest()


def _count(client: Client, labels: np.ndarray, classes: int) -> list[int]:
    held = np.concatenate([client.train, client.holdout])
    return np.bincount(labels[held], minlength=classes).tolist()


# --- ways to deal ---------------------------------------------------------------------------------


def _iid(
    rng: np.random.Generator, indices: np.ndarray, clients: int, sigma: float
) -> list[np.ndarray]:
    """Deals at random; sizes follow exp(sigma * normal), and everybody gets at least one."""
    weights = np.exp(sigma * rng.standard_normal(clients))
    sizes = 1 + _apportion(weights, len(indices) - clients)
    return np.split(rng.permutation(indices), np.cumsum(sizes)[:-1])


def _apportion(weights: np.ndarray, total: int) -> np.ndarray:
    """Whole numbers in proportion to `weights` with the sum `total`, by largest remainders."""
    exact = weights / weights.sum() * total
    whole = np.floor(exact).astype(np.int64)
    short = total - int(whole.sum())
    whole[np.argsort(whole - exact, kind="stable")[:short]] += 1
    return whole


def _spread(
    rng: np.random.Generator, labels: np.ndarray, alpha: float, least: np.ndarray, what: str
) -> list[np.ndarray]:
    """Spreads each class over the groups by one draw from Dirichlet(alpha).

    After Hsu et al. (2019), who draw each client's mix of classes; drawn class by class
    (Yurochkin et al., 2019) everything is dealt. Draws that leave a group below its least number
    are thrown away.
    """
    members = [rng.permutation(np.flatnonzero(labels == label)) for label in np.unique(labels)]
    for _ in range(_DRAWS):
        shares = rng.dirichlet(np.full(len(least), alpha), size=len(members))
        cuts = [
            np.round(np.cumsum(share)[:-1] * len(own)).astype(np.int64)
            for share, own in zip(shares, members, strict=True)
        ]
        ends = zip(cuts, members, strict=True)
        sizes = sum(np.diff(cut, prepend=0, append=len(own)) for cut, own in ends)
        if np.all(sizes >= least):
            pieces = [np.split(own, cut) for own, cut in zip(members, cuts, strict=True)]
            return [np.concatenate(each) for each in zip(*pieces, strict=True)]
    raise UserError(
        "federated.partition",
        f"at least {max(least)} of {len(labels)} examples for each of {len(least)} {what} "
        f"with alpha = {alpha}",
        f"fewer in each of {_DRAWS} draws",
        "raise alpha, or lower min_examples or clients",
    )


def _label_shards(
    rng: np.random.Generator, labels: np.ndarray, clients: int, shards: int
) -> list[np.ndarray]:
    """Sorts by label, cuts into equal shards, deals them at random (McMahan et al., 2017)."""
    if len(labels) < clients * shards:
        raise UserError(
            "federated.partition.shards_per_client",
            f"at most {len(labels) // clients} with {clients} clients and {len(labels)} examples",
            shards,
        )
    shuffled = rng.permutation(len(labels))
    ordered = shuffled[np.argsort(labels[shuffled], kind="stable")]
    cut = np.array_split(ordered, clients * shards)
    hands = rng.permutation(clients * shards).reshape(clients, shards)
    return [np.concatenate([cut[shard] for shard in hand]) for hand in hands]


def _by_region(
    rng: np.random.Generator,
    kind: config.ByRegion,
    blocks: list[int],
    examples: Examples,
    info: DatasetInfo,
) -> list[np.ndarray]:
    """First over the regions, then IID over each region's clients, of which `blocks` says how many."""
    if examples.regions is not None and info.regions:
        groups = [np.flatnonzero(examples.regions == i) for i in range(len(info.regions))]
        _check_regions(groups, blocks, info.regions)
    else:
        labels = np.asarray(examples.labels)
        groups = _spread(rng, labels, kind.alpha, np.array(blocks), "regions")
    dealt = [
        _iid(rng, group, block, kind.size_sigma)
        for group, block in zip(groups, blocks, strict=True)
    ]
    return [client for region in dealt for client in region]


def _check_regions(groups: list[np.ndarray], blocks: list[int], names: tuple[str, ...]) -> None:
    for group, block, name in zip(groups, blocks, names, strict=True):
        if block == 0:
            raise UserError(
                "federated.clients",
                f"at least one for each of the data's {len(names)} regions",
                sum(blocks),
                f"set federated.clients={len(names)} or more",
            )
        if len(group) < block:
            raise UserError(
                "federated.clients",
                f"at most as many of them in region {name} as it has examples ({len(group)})",
                block,
                "lower federated.clients",
            )


def _blocks(clients: int, regions: Sequence[str]) -> list[int]:
    """How many clients live in each region: as even as can be."""
    return [len(block) for block in np.array_split(np.arange(clients), len(regions))]


def _hold_out(
    rng: np.random.Generator, owned: np.ndarray, fraction: float
) -> tuple[np.ndarray, np.ndarray]:
    """Splits what a client holds into training and holdout; one at least is left for training."""
    held = min(round(fraction * len(owned)), len(owned) - 1)
    mixed = rng.permutation(owned).astype(np.int64)
    return np.sort(mixed[held:]), np.sort(mixed[:held])
