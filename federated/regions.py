"""How well one model serves each client and each region, not only all of them together.

A mean over all examples hides whom a model fails. Sums are kept per client and per region in one
pass over the examples; since metrics are monoids, the figures of one client, of a region and of a
whole split come out of the same code.
"""

from collections.abc import Iterator, Sequence
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Int32

from federated.shards import Client, measured_on
from lepton_jax import metrics
from lepton_jax.data.splits import Examples
from lepton_jax.training.losses import Loss
from lepton_jax.typing import Batch, Classifier, Variables

_BATCH = 256
_OF_A_CLIENT = ("examples", "loss", "accuracy")
_OF_A_REGION = (*_OF_A_CLIENT, "f1_macro")
_PERCENTILES = {"min": 0, "p5": 5, "p25": 25, "p50": 50, "p75": 75, "p95": 95, "max": 100}


class Sums(NamedTuple):
    """Metrics side by side: leaves [C] of one tally a client, [R,...] of all metrics a region."""

    clients: metrics.Tally
    regions: metrics.Metrics


def evaluate_clients(
    model: Classifier,
    variables: Variables,
    clients: Sequence[Client],
    examples: Examples,
    loss: Loss,
    classes: int,
) -> dict[str, Any]:
    """Measures a model on what each client holds.

    Args:
      model: its `apply` is measured.
      variables: what it learned.
      clients: each measured on its holdout or, if no client has one, on its training examples.
      examples: the training split, which the clients' indices point into.
      loss: (logits [B,K], labels [B]) -> each example's loss [B].
      classes: K.

    Returns:
      What `evaluation.json` says of clients: `clients`, `regions` (in the order in which the
      clients name them), `client_percentiles` (each client counts once, whatever its size) and
      `client_data`, "holdout" or "training". A client without any holdout has loss and accuracy
      None, and is left out of the percentiles.
    """
    data, parts = measured_on(clients)
    names = list(dict.fromkeys(client.region for client in clients))
    homes = np.array([names.index(client.region) for client in clients], np.int32)
    sums = _zero(len(clients), len(names), classes)
    for batch, owners in _batches(parts, examples):
        sums = _add(model, loss, variables, sums, batch, owners, homes)
    sums = jax.device_get(sums)
    by_client = [metrics.result(_at(sums.clients, i)) for i in range(len(clients))]
    by_region = [metrics.result(_at(sums.regions, i)) for i in range(len(names))]
    return {
        "clients": [
            {"client": client.id, "region": client.region, **_pick(figures, _OF_A_CLIENT)}
            for client, figures in zip(clients, by_client, strict=True)
        ],
        "regions": [
            {"region": name, "clients": int(count), **_pick(figures, _OF_A_REGION)}
            for name, count, figures in zip(names, np.bincount(homes), by_region, strict=True)
        ],
        "client_percentiles": {"accuracy": _percentiles([each["accuracy"] for each in by_client])},
        "client_data": data,
    }


def _zero(clients: int, regions: int, classes: int) -> Sums:
    def repeat(sums: Any, n: int) -> Any:
        return jax.tree.map(lambda x: jnp.zeros((n, *x.shape), x.dtype), sums)

    return Sums(repeat(metrics.zero_tally(), clients), repeat(metrics.zero(classes), regions))


def _batches(parts: Sequence[np.ndarray], examples: Examples) -> Iterator[tuple[Batch, Any]]:
    """All parts one after another, in batches of one shape, with the owner [B] of each row."""
    index = np.concatenate(parts)
    owner = np.repeat(np.arange(len(parts), dtype=np.int32), [len(part) for part in parts])
    size = min(_BATCH, len(index))
    for start in range(0, len(index), size):
        rows = index[start : start + size]
        padding = (0, size - len(rows))
        own: Any = np.pad(owner[start : start + size], padding)
        images: Any = np.pad(examples.images[rows], (padding, (0, 0), (0, 0), (0, 0)))
        labels: Any = np.pad(examples.labels[rows], padding)
        mask: Any = np.arange(size) < len(rows)
        yield Batch(images, labels, mask), own


@partial(jax.jit, static_argnums=(0, 1))
def _add(
    model: Classifier,
    loss: Loss,
    variables: Variables,
    sums: Sums,
    batch: Batch,
    owners: Int32[Array, "B"],
    homes: Int32[Array, "C"],
) -> Sums:
    logits = model.apply(variables, batch.images)
    losses, labels, mask = loss(logits, batch.labels), batch.labels, batch.mask

    def one(*row: jax.Array) -> metrics.Tally:
        return metrics.tally(*(x[None] for x in row))

    def region(i: jax.Array) -> metrics.Metrics:
        return metrics.measure(losses, logits, labels, mask & (homes[owners] == i))

    rows = jax.vmap(one)(losses, logits, labels, mask)
    by_client = jax.tree.map(lambda x: jax.ops.segment_sum(x, owners, len(homes)), rows)
    by_region = jax.vmap(region)(jnp.arange(len(sums.regions.count), dtype=jnp.int32))
    return Sums(metrics.merge(sums.clients, by_client), metrics.merge(sums.regions, by_region))


def _at(sums: Any, i: int) -> Any:
    return jax.tree.map(lambda x: x[i], sums)


def _pick(figures: dict[str, Any], names: Sequence[str]) -> dict[str, Any]:
    return {name: figures[name] for name in names}


def _percentiles(values: Sequence[float | None]) -> dict[str, float | None]:
    known = [value for value in values if value is not None]
    return {
        name: float(np.percentile(known, at)) if known else None
        for name, at in _PERCENTILES.items()
    }
