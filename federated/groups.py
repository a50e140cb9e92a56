"""Whose examples are whose, for phone models: what each region and client holds to be tested on."""

from collections import Counter
from pathlib import Path

import numpy as np

from federated.policy import Policy, load_policies
from federated.shards import Client, measured_on, partition
from lepton_jax.config import Run
from lepton_jax.data.splits import Examples, Splits
from lepton_jax.export.groups import Groups

_OPEN = {"accuracy", "examples"}  # figures that a phone model's comparison tells of a region


def groups_of(run: Run, splits: Splits, *, limit: int = 10_000) -> Groups:
    """The examples by which a phone model is compared with JAX for each region and client.

    As in `evaluate_clients` each client is measured on its holdout or, if no client has one, on its
    training examples. Figures from them are covered by no epsilon.

    Args:
      run: a federated run's settings.
      splits: its data.
      limit: about how many examples at most, as phone models take them one by one: each client
        gives a random part, the same one every time.

    Returns:
      Examples of the training split with rows by region and by client number. Where regions have
      policies, those alone whose policy lets accuracy and counts of so many clients out, and no
      clients.
    """
    federated = run.federated
    clients = partition(federated, splits.train, splits.info)
    data, held = measured_on(clients)
    rng = np.random.default_rng(federated.partition_seed)
    share = max(limit // len(clients), 1)
    parts = {
        client.id: np.sort(rng.permutation(own)[:share])
        for client, own in zip(clients, held, strict=True)
    }
    names = list(dict.fromkeys(client.region for client in clients))
    gated = federated.policies is not None
    if federated.policies is not None:
        policies = load_policies(Path(federated.policies), federated.regions)
        names = _open_regions(policies, clients)
    told = [parts[each.id] for each in clients if each.region in names]
    index = np.concatenate([np.zeros(0, np.int64), *told])
    return Groups(
        data,
        Examples(splits.train.images[index], splits.train.labels[index], None),
        {
            name: _places(index, [parts[each.id] for each in clients if each.region == name])
            for name in names
        },
        {} if gated else {str(each.id): _places(index, [parts[each.id]]) for each in clients},
    )


def _open_regions(policies: dict[str, Policy], clients: tuple[Client, ...]) -> list[str]:
    counts = Counter(client.region for client in clients)
    return [
        name
        for name, policy in policies.items()
        if set(policy.metrics) >= _OPEN and counts[name] >= policy.minimum_cohort
    ]


def _places(index: np.ndarray, parts: list[np.ndarray]) -> np.ndarray:
    """Where these examples stand in the index; nobody else holds them."""
    return np.flatnonzero(np.isin(index, np.concatenate(parts)))
