"""How a round goes over its clients: one after another, batched, or split over the devices."""

from collections.abc import Callable
from typing import Literal, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from federated.channel import Channel
from federated.sampling import Cohort
from lepton_jax.typing import Batch, PyTree

Kind = Literal["auto", "scan", "vmap", "shard"]
Work = Callable[[PyTree, Cohort], PyTree]
Total = Callable[[Work, Channel, PyTree, Cohort], PyTree]
_AXIS = "clients"
_CHUNK = 16  # clients side by side: enough to fill an accelerator, few enough for its memory


class Over(NamedTuple):
    """A way to go over the clients; all of them mean the same sum.

    Attributes:
      total: (work, channel, shared, cohort) -> the channel's sum of `work(shared, client)`, where
        `client` is the cohort without its axis C. What work needs besides comes in `shared`.
      place: puts a tree of arrays on every device that takes part.
      lay: prepares a cohort's host arrays for the round: its clients are dealt evenly to the
        devices and, where these are of several hosts, each host's are put on its own.
    """

    total: Total
    place: Callable[[PyTree], PyTree]
    lay: Callable[[Cohort], Cohort]


def make_over(kind: Kind) -> Over:
    """The way that the config names.

    `scan` takes one client after another, `vmap` 16 at once, `shard` splits them over all devices.
    `auto` is `shard` where there are several devices; on one it is, and inside `shard` each device
    does, `scan` on a CPU, whose core one client's batch fills, and `vmap` elsewhere.
    """
    if kind == "shard" or (kind == "auto" and jax.device_count() > 1):
        return _shard(Mesh(np.array(jax.devices()), (_AXIS,)))
    totals = {"scan": _scan, "vmap": _vmap, "auto": _on_one_device()}
    return Over(totals[kind], place=lambda tree: tree, lay=lambda cohort: cohort)


def _on_one_device() -> Total:
    return _scan if jax.default_backend() == "cpu" else _vmap


def balance(cohort: Cohort, devices: int) -> Cohort:
    """Reorders a cohort on the host, so that each device gets about as many steps as the others.

    The longest clients are dealt first, each to the device with the fewest steps so far.

    >>> from lepton_jax.typing import Batch
    >>> steps = np.array([1, 1, 7, 8], np.int32)
    >>> balance(Cohort(steps, Batch(steps, steps, steps), steps, steps), 2).steps.tolist()
    [8, 1, 7, 1]
    """
    if devices == 1:
        return cohort
    clients = len(cohort.ids)
    block = -(-clients // devices)
    room = [min(block, max(0, clients - device * block)) for device in range(devices)]
    hands: list[list[int]] = [[] for _ in range(devices)]
    steps = np.asarray(cohort.steps)
    for client in np.argsort(-steps, kind="stable"):
        open_hands = (hand for hand, most in zip(hands, room, strict=True) if len(hand) < most)
        min(open_hands, key=lambda hand: steps[hand].sum()).append(int(client))
    order = [client for hand in hands for client in hand]
    return jax.tree.map(lambda x: x[order], cohort)


def _scan(work: Work, channel: Channel, shared: PyTree, cohort: Cohort) -> PyTree:
    def add(total: PyTree, client: Cohort) -> tuple[PyTree, None]:
        return channel.add(total, work(shared, client)), None

    return lax.scan(add, _none(work, channel, shared, cohort), cohort)[0]


def _vmap(work: Work, channel: Channel, shared: PyTree, cohort: Cohort) -> PyTree:
    def add(total: PyTree, message: PyTree) -> tuple[PyTree, None]:
        return channel.add(total, message), None

    def add_chunk(total: PyTree, chunk: Cohort) -> tuple[PyTree, None]:
        messages = jax.vmap(work, in_axes=(None, 0))(shared, chunk)
        return lax.scan(add, total, messages)[0], None

    size = min(_CHUNK, len(cohort.ids))
    chunks = jax.tree.map(lambda x: x.reshape(-1, size, *x.shape[1:]), _pad(cohort, size))
    return lax.scan(add_chunk, _none(work, channel, shared, cohort), chunks)[0]


def _shard(mesh: Mesh) -> Over:
    everywhere = PartitionSpec()

    def total(work: Work, channel: Channel, shared: PyTree, cohort: Cohort) -> PyTree:
        def own(shared: PyTree, part: Cohort) -> PyTree:
            return channel.across(_on_one_device()(work, channel, shared, part), _AXIS)

        # Were replication checked, a gradient by the shared parameters would be summed over the
        # devices, as if their clients were one batch.
        return jax.shard_map(
            own,
            mesh=mesh,
            in_specs=(everywhere, PartitionSpec(_AXIS)),
            out_specs=everywhere,
            check_vma=False,
        )(shared, _pad(cohort, mesh.size))

    def place(tree: PyTree) -> PyTree:
        return jax.device_put(tree, NamedSharding(mesh, everywhere))

    def lay(cohort: Cohort) -> Cohort:
        dealt = balance(cohort, mesh.size)
        if jax.process_count() == 1:
            return dealt  # the round splits them by itself
        dealt = _pad(dealt, mesh.size, np.pad)
        split = NamedSharding(mesh, PartitionSpec(_AXIS))
        return jax.tree.map(
            lambda x: jax.make_array_from_callback(x.shape, split, lambda part: x[part]), dealt
        )

    return Over(total, place, lay)


def _none(work: Work, channel: Channel, shared: PyTree, cohort: Cohort) -> PyTree:
    client = jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape[1:], x.dtype), cohort)
    return channel.zero(jax.eval_shape(work, shared, client))


def _pad(cohort: Cohort, multiple: int, pad: Callable = jnp.pad) -> Cohort:
    """Adds empty clients up to a multiple, with the `pad` of jax or numpy."""
    missing = -cohort.ids.shape[0] % multiple
    if not missing:
        return cohort

    def longer(x: jax.Array, value: int = 0) -> jax.Array:
        return pad(x, [(0, missing), *[(0, 0)] * (x.ndim - 1)], constant_values=value)

    batches = Batch(*(longer(x) for x in cohort.batches))
    return Cohort(longer(cohort.ids, -1), batches, longer(cohort.weight), longer(cohort.steps))
