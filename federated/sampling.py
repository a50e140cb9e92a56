"""Who takes part in a round, and the padded arrays that the round's compiled program is fed."""

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple, cast

import numpy as np
from jaxtyping import Array, Float32, Int32

from federated.shards import Client
from lepton_jax import config
from lepton_jax.cache import take_rows
from lepton_jax.data.splits import Examples
from lepton_jax.privacy.entropy import bernoulli, secure_source
from lepton_jax.typing import Batch, PyTree

# The selection's stream must be none of the clients': their numbers count up from 0.
_SELECTION = 2**31
_COHORT_BYTES = 256 * 2**20


class Cohort(NamedTuple):
    """One round's clients, their local steps side by side; what doesn't exist is padding.

    Attributes:
      ids: [C] the clients' numbers; -1 is an empty slot.
      batches: a `Batch` of images [C,T,B,H,W,F], labels [C,T,B], mask [C,T,B], or one with the
        noise of each step; a client's steps come first, and whatever follows them is masked.
      weight: [C] what the client's update counts: its examples, or 1; 0 for an empty slot.
      steps: [C] how many of the T steps are the client's own; 0 for an empty slot.
    """

    ids: Int32[Array, "C"]
    batches: PyTree
    weight: Float32[Array, "C"]
    steps: Int32[Array, "C"]


class Sampler(NamedTuple):
    """How a round's clients are chosen.

    Attributes:
      sample: round -> the chosen clients' numbers, ascending, int64 [n]; n may be 0.
      clients: how many there are.
      capacity: n -> how many slots [C] to lay out for n clients: few different values, since each
        one is a compilation.
      pass_length: of cohorts that go round: the rounds between two of a client; None otherwise.
    """

    sample: Callable[[int], np.ndarray]
    clients: int
    capacity: Callable[[int], int]
    pass_length: int | None = None


def make_sampler(federated: config.Federated, seed: int) -> Sampler:
    """The sampler that the config asks for.

    `fixed` takes `clients_per_round` clients, uniformly without replacement; `poisson` takes each
    client independently with probability clients_per_round / clients, and may take none; `cyclic`
    deals all clients once into blocks of `clients_per_round`, and takes one block after another. A
    round's choice depends on (seed, round) alone, but for Poisson sampling with secure noise on the
    sum: who was chosen is then as secret as the noise, and comes from the system's entropy.

    Args:
      federated: names the sampling and its numbers.
      seed: the run's seed.

    Returns:
      The sampler.

    >>> sampler = make_sampler(config.Federated(clients=6, clients_per_round=3), seed=0)
    >>> len(sampler.sample(1)), sampler.pass_length, sampler.capacity(3)
    (3, None, 3)
    """
    expected, clients = federated.clients_per_round, federated.clients
    if federated.sampling == "poisson":
        return Sampler(
            _poisson(federated, seed),
            clients,
            capacity=lambda n: _poisson_capacity(n, expected, clients),
        )
    if federated.sampling == "cyclic":
        length = -(-clients // expected)
        blocks = np.split(_rng(seed, 0).permutation(clients), range(expected, clients, expected))
        return Sampler(
            lambda round: np.sort(blocks[(round - 1) % length]),
            clients,
            capacity=lambda n: expected,
            pass_length=length,
        )
    return Sampler(
        lambda round: np.sort(_rng(seed, round).choice(clients, expected, replace=False)),
        clients,
        capacity=lambda n: expected,
    )


def _poisson(federated: config.Federated, seed: int) -> Callable[[int], np.ndarray]:
    rate, clients = federated.clients_per_round / federated.clients, federated.clients
    secret = federated.noise is not None and not isinstance(federated.noise, config.Local)
    if not secret or federated.randomness == "reproducible":
        return lambda round: np.flatnonzero(_rng(seed, round).random(clients) < rate)
    source = secure_source()
    return lambda round: np.flatnonzero(bernoulli(source, rate, clients))


def _rng(seed: int, round: int) -> np.random.Generator:
    return np.random.default_rng([seed, round, _SELECTION])


def _poisson_capacity(n: int, expected: int, clients: int) -> int:
    """Half again what is expected, doubled until n fit: nearly always the first."""
    slots = -(-3 * expected // 2)
    while slots < n:
        slots *= 2
    return min(slots, clients)


# --- a cohort's arrays ----------------------------------------------------------------------------


def cohort(
    clients: Sequence[Client],
    ids: np.ndarray,
    examples: Examples,
    federated: config.Federated,
    *,
    seed: int,
    round: int,
    slots: int | None = None,
    steps: int | None = None,
) -> Cohort:
    """Lays out the local steps of the chosen clients, read from the images' memory map.

    Each local epoch goes over all of a client's training examples once, in a new order that
    depends on (seed, round, client) alone. The last batch of an epoch is padded.

    Args:
      clients: all clients of the run; the shape [T,B] depends on the largest.
      ids: [n] the numbers of the chosen ones.
      examples: the training split, which the clients' indices point into.
      federated: batch size, local epochs and weights.
      seed: the run's seed.
      round: the round's number.
      slots: C, at least n and 1; unset, just that.
      steps: T; unset, the smallest of `step_sizes` that holds these clients' steps.

    Returns:
      The cohort as arrays on the host.
    """
    batch = batch_size(clients, federated)
    chosen = [clients[i] for i in ids]
    own = [_steps(client, batch, federated) for client in chosen]
    sizes = step_sizes(clients, federated, examples.images[0].nbytes)
    shape = (
        slots or max(1, len(chosen)),
        steps or next(size for size in sizes if size >= max(own, default=0)),
        batch,
    )
    index = np.full(shape, -1, np.int64)
    for slot, client in enumerate(chosen):
        rng = np.random.default_rng([seed, round, client.id])
        index[slot, : own[slot]] = _shuffled(rng, client.train, batch, federated.local_epochs)
    return Cohort(
        ids=slots_of([client.id for client in chosen], shape[0], -1, np.int32),
        batches=gather(examples, index),
        weight=slots_of([_weight(c, federated) for c in chosen], shape[0], 0, np.float32),
        steps=slots_of(own, shape[0], 0, np.int32),
    )


def batch_size(clients: Sequence[Client], federated: config.Federated) -> int:
    """B: the config's, or the largest client's examples where it says "all"."""
    if federated.batch_size == "all":
        return max(len(client.train) for client in clients)
    return federated.batch_size


def step_sizes(
    clients: Sequence[Client], federated: config.Federated, image_bytes: int
) -> tuple[int, ...]:
    """The values, ascending, that T may take in a run, each of them a compilation.

    One, which fits the largest client; where a cohort of that depth would be very large on the
    host, its half and its quarter too, for cohorts without the largest clients.
    """
    batch = batch_size(clients, federated)
    full = max(_steps(client, batch, federated) for client in clients)
    if federated.clients_per_round * full * batch * image_bytes <= _COHORT_BYTES:
        return (full,)
    return tuple(sorted({-(-full // 4), -(-full // 2), full}))


def _steps(client: Client, batch: int, federated: config.Federated) -> int:
    return federated.local_epochs * -(-len(client.train) // batch)


def _shuffled(rng: np.random.Generator, indices: np.ndarray, batch: int, epochs: int) -> np.ndarray:
    """Indices by step and row [epochs * ceil(n / batch), batch]; -1 is padding."""
    padding = np.full(-len(indices) % batch, -1)
    orders = [np.concatenate([rng.permutation(indices), padding]) for _ in range(epochs)]
    return np.concatenate(orders).reshape(-1, batch)


def gather(examples: Examples, index: np.ndarray) -> Batch:
    """The examples at `index`, of any shape; -1 is padding."""
    mask = index >= 0
    images: Any = np.zeros((*index.shape, *examples.images.shape[1:]), np.uint8)
    labels: Any = np.zeros(index.shape, np.int32)
    images[mask] = take_rows(examples.images, index[mask])
    labels[mask] = examples.labels[index[mask]]
    return Batch(images, labels, cast(Any, mask))


def _weight(client: Client, federated: config.Federated) -> int | float:
    if federated.weights == "uniform":
        return 1
    cap, count = federated.weight_cap, len(client.train)
    return count if cap is None else min(count, cap) / cap


def slots_of(values: Sequence[int | float], width: int, empty: int, dtype: type) -> Any:
    """A value for each slot, `empty` for those without."""
    return np.array([*values, *[empty] * (width - len(values))], dtype)
