"""Whichever way a round goes over its clients, the sum is the same."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from federated import over as over_module
from federated.channel import plain
from federated.over import Kind, balance, make_over
from federated.sampling import Cohort
from lepton_jax.typing import PyTree
from tests.federated import tiny


def work(shared: jax.Array, client: Cohort) -> PyTree:
    """Sums that tell clients, steps and shared figures apart."""
    pixels = jnp.sum(client.batches.images.astype(jnp.float32)) * shared
    present = (client.weight > 0).astype(jnp.int32)
    return {"pixels": pixels * client.weight, "steps": client.steps, "present": present}


def total(kind: Kind, laid: Cohort) -> Any:
    over = make_over(kind)
    shared = over.place(jnp.float32(0.5))
    return jax.jit(lambda s, c: over.total(work, plain(), s, c))(shared, laid)


@pytest.mark.parametrize("clients", [1, 3, 4, 6])
@pytest.mark.parametrize("kind", ["scan", "vmap", "shard"])
def test_scan_vmap_and_shard_mean_the_same(
    kind: Kind, clients: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(over_module, "_CHUNK", 4)
    laid = tiny.make_cohort(9, 2, 5, 7, 3, 6, ids=list(range(clients)))
    each = [jax.tree.map(lambda x, i=i: jnp.asarray(x[i]), laid) for i in range(clients)]
    expected = jax.tree.map(lambda *x: np.sum(x), *(work(jnp.float32(0.5), c) for c in each))
    tiny.close(total(kind, laid), expected)


@pytest.mark.parametrize("clients", [1, 3, 4, 6])
@pytest.mark.parametrize("kind", ["scan", "vmap", "shard"])
def test_each_client_s_own_comes_out_in_its_place(
    kind: Kind, clients: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(over_module, "_CHUNK", 4)
    laid = tiny.make_cohort(9, 2, 5, 7, 3, 6, ids=list(range(clients)))
    over = make_over(kind)
    shared = over.place(jnp.float32(0.5))
    found = jax.jit(lambda s, c: over.each(work, s, c))(shared, laid)
    each = [jax.tree.map(lambda x, i=i: jnp.asarray(x[i]), laid) for i in range(clients)]
    expected = jax.tree.map(lambda *x: np.stack(x), *(work(jnp.float32(0.5), c) for c in each))
    tiny.close(found, expected)
    assert jax.tree.map(jnp.shape, found) == {x: (clients,) for x in found}


@pytest.mark.parametrize("devices", [1, 2, 3, 4])
@pytest.mark.parametrize("slots", [6, 9])
def test_balancing_deals_each_client_once_and_evenly(devices: int, slots: int) -> None:
    laid = tiny.make_cohort(90, 2, 85, 7, 33, 56, slots=slots)
    dealt = balance(laid, devices)
    assert sorted(dealt.ids.tolist()) == sorted(laid.ids.tolist())
    for at, client in enumerate(dealt.ids.tolist()):
        before = laid.ids.tolist().index(client)
        tiny.same(*(jax.tree.map(lambda x, i=i: x[i], c) for c, i in ((dealt, at), (laid, before))))
    block = -(-slots // devices)
    loads = [dealt.steps[i : i + block].sum() for i in range(0, slots, block)]
    even = laid.steps.sum() / devices
    assert max(loads) <= even + laid.steps.max() / 2
    if devices == 1:
        assert dealt is laid


def test_auto_shards_over_several_devices() -> None:
    assert jax.device_count() == 4
    assert len(make_over("auto").place(jnp.float32(1)).devices()) == 4


def test_laying_out_a_cohort_balances_it_over_the_devices() -> None:
    laid = tiny.make_cohort(90, 2, 85, 7, 33, 56)
    tiny.same(make_over("shard").lay(laid), balance(laid, 4))
    assert make_over("scan").lay(laid) is laid


@pytest.mark.parametrize(("backend", "expected"), [("cpu", "_scan"), ("gpu", "_vmap")])
def test_auto_on_one_device_goes_by_its_kind(
    monkeypatch: pytest.MonkeyPatch, backend: str, expected: str
) -> None:
    monkeypatch.setattr(jax, "device_count", lambda: 1)
    monkeypatch.setattr(jax, "default_backend", lambda: backend)
    assert make_over("auto").total.__name__ == expected


@pytest.mark.parametrize("kind", ["scan", "vmap"])
def test_a_running_sum_keeps_the_memory_of_a_round_flat(kind: Kind) -> None:
    over = make_over(kind)

    def temporary(clients: int) -> int:
        def large(shared: jax.Array, client: Cohort) -> jax.Array:
            return jnp.full(100_000, client.weight)

        laid = tiny.make_cohort(*[1] * clients)
        lowered = jax.jit(lambda c: over.total(large, plain(), jnp.float32(0), c)).lower(laid)
        analysis: Any = lowered.compile().memory_analysis()
        return analysis.temp_size_in_bytes

    assert temporary(64) <= temporary(16) + 4 * 100_000
