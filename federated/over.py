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
from lepton_jax.typing import PyTree

Kind = Literal["auto", "scan", "vmap", "shard"]
Work = Callable[[PyTree, PyTree], PyTree]
Total = Callable[[Work, Channel, PyTree, PyTree], PyTree]
Each = Callable[[Work, PyTree, PyTree], PyTree]
_AXIS = "clients"
_CHUNK = 16  # clients side by side: enough to fill an accelerator, few enough for its memory


class Over(NamedTuple):
    """A way to go over the clients; all of them mean the same.

    Attributes:
      total: (work, channel, shared, slots) -> the channel's sum of `work(shared, slot)`, where
        `slots` is any tree of arrays [C,...], a cohort say, and `slot` that without its axis C. A
        slot of zeros must add nothing. What work needs besides comes in `shared`.
      each: (work, shared, slots) -> all of `work(shared, slot)`, [C,...], for a sum that is made
        elsewhere.
      place: puts a tree of arrays on every device that takes part.
      lay: prepares a cohort's host arrays for the round: its clients are dealt evenly to the
        devices and, where these are of several hosts, each host's are put on its own.
    """

    total: Total
    each: Each
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
    total, each = {"scan": _SCAN, "vmap": _VMAP, "auto": _on_one_device()}[kind]
    return Over(total, each, place=lambda tree: tree, lay=lambda cohort: cohort)


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


def _scan(work: Work, channel: Channel, shared: PyTree, slots: PyTree) -> PyTree:
    def add(total: PyTree, slot: PyTree) -> tuple[PyTree, None]:
        return channel.add(total, work(shared, slot)), None

    return lax.scan(add, _none(work, channel, shared, slots), slots)[0]


def _scan_each(work: Work, shared: PyTree, slots: PyTree) -> PyTree:
    return lax.map(lambda slot: work(shared, slot), slots)


def _vmap(work: Work, channel: Channel, shared: PyTree, slots: PyTree) -> PyTree:
    def add(total: PyTree, message: PyTree) -> tuple[PyTree, None]:
        return channel.add(total, message), None

    def add_chunk(total: PyTree, chunk: PyTree) -> tuple[PyTree, None]:
        messages = jax.vmap(work, in_axes=(None, 0))(shared, chunk)
        return lax.scan(add, total, messages)[0], None

    return lax.scan(add_chunk, _none(work, channel, shared, slots), _in_chunks(slots))[0]


def _vmap_each(work: Work, shared: PyTree, slots: PyTree) -> PyTree:
    chunked = lax.map(
        lambda chunk: jax.vmap(work, in_axes=(None, 0))(shared, chunk), _in_chunks(slots)
    )
    flat = jax.tree.map(lambda x: x.reshape(-1, *x.shape[2:]), chunked)
    return _first(flat, _count(slots))


def _in_chunks(slots: PyTree) -> PyTree:
    size = min(_CHUNK, _count(slots))
    return jax.tree.map(lambda x: x.reshape(-1, size, *x.shape[1:]), _pad(slots, size))


_SCAN: tuple[Total, Each] = (_scan, _scan_each)
_VMAP: tuple[Total, Each] = (_vmap, _vmap_each)


def _on_one_device() -> tuple[Total, Each]:
    return _SCAN if jax.default_backend() == "cpu" else _VMAP


def _shard(mesh: Mesh) -> Over:
    everywhere, split = PartitionSpec(), PartitionSpec(_AXIS)

    def over_devices(own: Callable[[PyTree, PyTree], PyTree], out: PartitionSpec) -> Callable:
        # Were replication checked, a gradient by the shared parameters would be summed over the
        # devices, as if their clients were one batch.
        return jax.shard_map(
            own, mesh=mesh, in_specs=(everywhere, split), out_specs=out, check_vma=False
        )

    def total(work: Work, channel: Channel, shared: PyTree, slots: PyTree) -> PyTree:
        def own(shared: PyTree, part: PyTree) -> PyTree:
            return channel.across(_on_one_device()[0](work, channel, shared, part), _AXIS)

        return over_devices(own, everywhere)(shared, _pad(slots, mesh.size))

    def each(work: Work, shared: PyTree, slots: PyTree) -> PyTree:
        def own(shared: PyTree, part: PyTree) -> PyTree:
            return _on_one_device()[1](work, shared, part)

        return _first(over_devices(own, split)(shared, _pad(slots, mesh.size)), _count(slots))

    def place(tree: PyTree) -> PyTree:
        return jax.device_put(tree, NamedSharding(mesh, everywhere))

    def lay(cohort: Cohort) -> Cohort:
        dealt = balance(cohort, mesh.size)
        if jax.process_count() == 1:
            return dealt  # the round splits them by itself
        dealt = _pad(dealt, mesh.size, np.pad)
        sharding = NamedSharding(mesh, split)
        return jax.tree.map(
            lambda x: jax.make_array_from_callback(x.shape, sharding, lambda part: x[part]), dealt
        )

    return Over(total, each, place, lay)


def _none(work: Work, channel: Channel, shared: PyTree, slots: PyTree) -> PyTree:
    slot = jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape[1:], x.dtype), slots)
    return channel.zero(jax.eval_shape(work, shared, slot))


def _count(slots: PyTree) -> int:
    return jax.tree.leaves(slots)[0].shape[0]


def _first(slots: PyTree, count: int) -> PyTree:
    return jax.tree.map(lambda x: x[:count], slots)


def _pad(slots: PyTree, multiple: int, pad: Callable = jnp.pad) -> PyTree:
    """Adds slots of zeros up to a multiple, with the `pad` of jax or numpy."""
    missing = -_count(slots) % multiple
    if not missing:
        return slots
    return jax.tree.map(lambda x: pad(x, [(0, missing), *[(0, 0)] * (x.ndim - 1)]), slots)
