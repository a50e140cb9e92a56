"""Who is chosen, how often, and that a cohort holds exactly what it should."""

from collections import Counter
from itertools import chain
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from federated import sampling
from federated.sampling import Cohort, cohort, make_sampler
from federated.shards import Client
from lepton_jax import config
from lepton_jax.data.splits import Examples


def federated(**changes: Any) -> config.Federated:
    return config.Federated(**{"clients": 20, "clients_per_round": 5, **changes})


# --- sampling -------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["fixed", "poisson"])
def test_a_round_s_choice_depends_on_seed_and_round_alone(kind: str) -> None:
    def choices(seed: int) -> list[list[int]]:
        sampler = make_sampler(federated(sampling=kind), seed)
        return [sampler.sample(round).tolist() for round in range(30)]

    backwards = make_sampler(federated(sampling=kind), 1)
    assert [backwards.sample(round).tolist() for round in reversed(range(30))][::-1] == choices(1)
    assert choices(1) != choices(2)
    assert len({tuple(ids) for ids in choices(1)}) > 25


def test_fixed_takes_so_many_without_repeats_and_each_as_often() -> None:
    sampler = make_sampler(federated(), seed=0)
    rounds = [sampler.sample(round) for round in range(2000)]
    assert all(len(set(ids.tolist())) == 5 == sampler.capacity(5) for ids in rounds)
    times = np.bincount(np.concatenate(rounds), minlength=20)
    # 500 expected, with a deviation of sqrt(2000 * 1/4 * 3/4) = 19.4.
    assert np.abs(times - 500).max() < 4 * 19.4
    assert (sampler.clients, sampler.pass_length) == (20, None)


def test_poisson_takes_each_independently() -> None:
    sampler = make_sampler(federated(sampling="poisson"), seed=0)
    rounds = [sampler.sample(round) for round in range(2000)]
    chosen = np.array([np.isin(np.arange(20), ids) for ids in rounds])
    assert np.abs(chosen.sum(axis=0) - 500).max() < 4 * 19.4
    # Of independent clients the number has the binomial's variance, and pairs don't correlate.
    assert chosen.sum(axis=1).var() == pytest.approx(20 * 0.25 * 0.75, rel=0.15)
    correlation = np.corrcoef(chosen.T) - np.eye(20)
    assert np.abs(correlation).max() < 5 / np.sqrt(2000)
    assert (sampler.clients, sampler.pass_length) == (20, None)


def test_poisson_may_take_none_and_all() -> None:
    one = make_sampler(federated(clients=3, clients_per_round=1, sampling="poisson"), seed=0)
    assert {0, 1, 2, 3} == {len(one.sample(round)) for round in range(200)}
    all_of_them = make_sampler(federated(clients_per_round=20, sampling="poisson"), seed=0)
    assert all_of_them.sample(0).tolist() == list(range(20))


@pytest.mark.parametrize(("clients", "expected"), [(20, 5), (20, 6), (7, 3), (5, 5), (4, 1)])
def test_cyclic_deals_each_client_once_a_pass_and_goes_round(clients: int, expected: int) -> None:
    asked = federated(clients=clients, clients_per_round=expected, sampling="cyclic")
    sampler = make_sampler(asked, seed=0)
    length = -(-clients // expected)
    assert sampler.pass_length == length
    rounds = [sampler.sample(round).tolist() for round in range(1, 3 * length + 1)]
    assert all(ids == sorted(ids) for ids in rounds)
    one_pass = rounds[:length]
    assert sorted(chain.from_iterable(one_pass)) == list(range(clients))
    assert rounds == 3 * one_pass
    short = clients % expected or expected
    assert [len(ids) for ids in one_pass] == [expected] * (length - 1) + [short]
    # Any two of a client's rounds are a whole pass apart, wherever one begins to count.
    for begin in range(2 * length):
        assert len(set(chain.from_iterable(rounds[begin : begin + length]))) == clients
    assert {sampler.capacity(len(ids)) for ids in rounds} == {expected}


def test_cyclic_blocks_depend_on_the_seed_alone() -> None:
    def passes(seed: int) -> list[list[int]]:
        sampler = make_sampler(federated(sampling="cyclic"), seed)
        return [sampler.sample(round).tolist() for round in (4, 1, 3, 2)]

    assert passes(0) == passes(0) != passes(1)


SECRET: dict[str, Any] = {
    "sampling": "poisson",
    "noise": config.Gaussian(multiplier=1.0),
    "stages": (config.Clip(max_norm=1.0),),
    "weights": "uniform",
}


def test_secret_poisson_takes_each_independently_at_the_rate() -> None:
    sampler = make_sampler(federated(**SECRET), seed=0)
    chosen = np.array([np.isin(np.arange(20), sampler.sample(1)) for _ in range(2000)])
    # No seed: of 7 deviations or so each, all of these together miss once in a million runs at most.
    assert np.abs(chosen.sum(axis=0) - 500).max() < 7 * 19.4
    assert chosen.sum(axis=1).var() == pytest.approx(20 * 0.25 * 0.75, rel=0.22)
    assert np.abs(np.corrcoef(chosen.T) - np.eye(20)).max() < 7 / np.sqrt(2000)


def test_secret_poisson_may_take_none_and_all() -> None:
    few = make_sampler(federated(clients=3, clients_per_round=1, **SECRET), seed=0)
    assert {0, 1, 2, 3} == {len(few.sample(round)) for round in range(400)}
    everybody = make_sampler(federated(clients_per_round=20, **SECRET), seed=0)
    assert everybody.sample(1).tolist() == list(range(20))


def choices_of(seed: int, **changes: Any) -> list[list[int]]:
    sampler = make_sampler(federated(**{**SECRET, **changes}), seed)
    return [sampler.sample(round).tolist() for round in range(30)]


def test_who_is_chosen_follows_from_no_seed_where_noise_is_secret() -> None:
    together = {
        "noise": config.Distributed(multiplier=1.0),
        "channel": config.Secure(),
        "accountant": "rdp",
    }
    for noise in ({}, together):
        assert choices_of(0, **noise) != choices_of(0, **noise)
    sampler = make_sampler(federated(**SECRET), 0)
    assert [sampler.sample(1).tolist() for _ in range(30)] != [sampler.sample(1).tolist()] * 30


@pytest.mark.parametrize(
    "changes",
    [{"randomness": "reproducible"}, {"noise": config.Local(multiplier=1.0)}, {"noise": None}],
)
def test_who_is_chosen_follows_from_the_seed_where_it_need_not_be_secret(
    changes: dict[str, Any],
) -> None:
    assert choices_of(0, **changes) == choices_of(0, **changes) != choices_of(1, **changes)


@settings(deadline=None)
@given(clients=st.integers(3, 500), data=st.data())
def test_poisson_has_few_capacities_and_room_for_everybody(clients: int, data: Any) -> None:
    expected = data.draw(st.integers(1, clients))
    asked = federated(clients=clients, clients_per_round=expected, sampling="poisson")
    capacities = [make_sampler(asked, seed=0).capacity(n) for n in range(clients + 1)]
    assert all(n <= slots <= clients for n, slots in enumerate(capacities))
    assert capacities[0] >= expected
    assert len(set(capacities)) <= 2 + np.log2(clients / expected)


# --- cohorts --------------------------------------------------------------------------------------


def toy(*sizes: int) -> tuple[tuple[Client, ...], Examples]:
    """Clients of these sizes; an example's image says its index, its label too."""
    total = sum(sizes)
    numbers = np.arange(total)
    images = np.stack([numbers % 256, numbers // 256], axis=-1).astype(np.uint8)
    owned = np.split(np.random.default_rng(0).permutation(total), np.cumsum(sizes)[:-1])
    none = np.zeros(0, np.int64)
    clients = tuple(Client(i, "here", np.sort(each), none) for i, each in enumerate(owned))
    return clients, Examples(images[:, None, None, :], numbers.astype(np.int32), None)


def indices(laid: Cohort, slot: int, steps: slice = slice(None)) -> list[int]:
    """The example indices that a slot's unmasked images say."""
    images = np.asarray(laid.batches.images)[slot, steps][
        np.asarray(laid.batches.mask)[slot, steps]
    ]
    return (images[:, 0, 0].astype(int) @ [1, 256]).tolist()


def lay(
    clients: tuple[Client, ...],
    ids: list[int],
    examples: Examples,
    *,
    round: int = 1,
    **changes: Any,
) -> Cohort:
    return cohort(clients, np.array(ids, int), examples, federated(**changes), seed=3, round=round)


@settings(deadline=None, max_examples=50)
@given(
    sizes=st.lists(st.integers(1, 40), min_size=2, max_size=5),
    batch=st.one_of(st.just("all"), st.integers(1, 17)),
    epochs=st.integers(1, 3),
    slots=st.integers(2, 5),
)
def test_each_epoch_covers_each_example_once(
    sizes: list[int], batch: Any, epochs: int, slots: int
) -> None:
    clients, examples = toy(*sizes)
    ids = np.array([1, 0])
    asked = federated(batch_size=batch, local_epochs=epochs)
    laid = cohort(clients, ids, examples, asked, seed=3, round=2, slots=slots)
    width = max(sizes) if batch == "all" else batch
    for slot, i in enumerate(ids):
        per_epoch = -(-sizes[i] // width)
        assert laid.steps[slot] == epochs * per_epoch
        for epoch in range(epochs):
            own = slice(epoch * per_epoch, (epoch + 1) * per_epoch)
            assert sorted(indices(laid, slot, own)) == clients[i].train.tolist()
        assert len(indices(laid, slot)) == epochs * sizes[i]
    mask = np.asarray(laid.batches.mask)
    assert mask.shape == (slots, epochs * -(-max(sizes) // width), width)
    # Only an epoch's last batch is padded, behind its examples; all that is padding is zero.
    assert (np.diff(mask.astype(int), axis=2) <= 0).all()
    assert not np.asarray(laid.batches.images)[~mask].any()
    assert not np.asarray(laid.batches.labels)[~mask].any()
    said = np.asarray(laid.batches.images)[mask][:, 0, 0].astype(int) @ [1, 256]
    assert np.array_equal(said, np.asarray(laid.batches.labels)[mask])


def test_a_cohort_s_arrays_have_the_types_of_its_fields() -> None:
    clients, examples = toy(5, 3)
    laid = lay(clients, [0], examples, batch_size=2)
    assert laid.ids.dtype == laid.steps.dtype == laid.batches.labels.dtype == np.int32
    assert (laid.weight.dtype, laid.batches.images.dtype) == (np.float32, np.uint8)
    assert laid.batches.mask.dtype == np.bool_
    assert laid.batches.images.shape == (1, 3, 2, 1, 1, 2)


@pytest.mark.parametrize(
    ("weights", "expected"), [("examples", [3.0, 7.0]), ("uniform", [1.0, 1.0])]
)
def test_weights(weights: str, expected: list[float]) -> None:
    clients, examples = toy(7, 3)
    assert lay(clients, [1, 0], examples, weights=weights).weight.tolist() == expected


def test_with_a_cap_no_client_counts_more_than_1() -> None:
    clients, examples = toy(7, 3, 5, 400)
    asked = {**SECRET, "weights": "examples", "weight_cap": 5}
    assert lay(clients, [0, 1, 2, 3], examples, **asked).weight.tolist() == pytest.approx(
        [1.0, 0.6, 1.0, 1.0]
    )


def test_empty_slots_weigh_nothing_and_step_nowhere() -> None:
    clients, examples = toy(7, 3)
    ids = np.array([1])
    laid = cohort(clients, ids, examples, federated(), seed=0, round=0, slots=3)
    assert laid.ids.tolist() == [1, -1, -1]
    assert laid.weight.tolist() == [3.0, 0.0, 0.0]
    assert laid.steps.tolist() == [1, 0, 0]
    assert not np.asarray(laid.batches.mask)[1:].any()


def test_a_cohort_of_nobody_is_one_empty_slot() -> None:
    clients, examples = toy(7, 3)
    laid = lay(clients, [], examples)
    assert (laid.ids.tolist(), laid.weight.tolist(), laid.steps.tolist()) == ([-1], [0.0], [0])
    assert not np.asarray(laid.batches.mask).any()


def test_a_client_s_order_depends_on_seed_round_and_itself_alone() -> None:
    clients, examples = toy(40, 40, 40)
    alone = lay(clients, [1], examples, local_epochs=2)
    among = lay(clients, [0, 1, 2], examples, local_epochs=2)
    later = lay(clients, [1], examples, local_epochs=2, round=2)
    assert indices(alone, 0) == indices(among, 1)
    assert indices(alone, 0) != indices(later, 0)
    assert indices(alone, 0)[:40] != indices(alone, 0)[40:]


def test_the_selection_s_stream_is_no_client_s() -> None:
    """SeedSequence pads with zeros, so that streams may coincide unless told apart."""
    selection = sampling._rng(3, 1).random(4)
    for client in (0, 1, 2**31 - 1):
        assert not np.array_equal(selection, np.random.default_rng([3, 1, client]).random(4))


def test_the_shape_is_the_same_whoever_takes_part() -> None:
    clients, examples = toy(50, 2, 3)
    shapes = Counter(lay(clients, [i], examples).batches.mask.shape for i in range(3))
    assert len(shapes) == 1


def test_very_large_cohorts_come_in_at_most_three_depths(monkeypatch: pytest.MonkeyPatch) -> None:
    clients, examples = toy(50, 2, 3)
    monkeypatch.setattr(sampling, "_COHORT_BYTES", 1)
    assert sampling.step_sizes(clients, federated(batch_size=1), 2) == (13, 25, 50)
    depths = [lay(clients, [i], examples, batch_size=1).batches.mask.shape[1] for i in range(3)]
    assert depths == [50, 13, 13]


def test_images_may_be_a_memory_map(tmp_path: Any) -> None:
    clients, examples = toy(7, 3)
    np.save(tmp_path / "images.npy", examples.images)
    mapped = examples._replace(images=np.load(tmp_path / "images.npy", mmap_mode="r"))
    assert indices(lay(clients, [0, 1], mapped), 0) == indices(lay(clients, [0, 1], examples), 0)
