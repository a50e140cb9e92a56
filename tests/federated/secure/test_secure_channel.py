"""Secure aggregation as a round's channel: the sum of whole numbers, or nothing."""

from typing import Any

import jax
import msgspec
import numpy as np
import optax
import pytest

from federated.aggregate import aggregate
from federated.algorithms import fed_avg, rounds
from federated.channel import Channel, HostChannel, RoundMark, plain
from federated.client import local_update
from federated.over import make_over
from federated.privacy.client_noise import distributed
from federated.privacy.noise import gaussian
from federated.secure.channel import check_cohorts, secure
from federated.secure.session import Outcome, simulate_round
from federated.stages import clip
from lepton_jax import config
from lepton_jax.checks import UserError
from lepton_jax.privacy.entropy import seeded_source
from lepton_jax.typing import PyTree
from tests.federated import tiny

SETTINGS = config.Secure(dropouts=0.25)


def whole(clients: int, low: int = -(2**31), high: int = 2**31) -> PyTree:
    rng = np.random.default_rng(clients)
    return {
        "a": rng.integers(low, high, (clients, 2, 3), dtype=np.int32),
        "b": (rng.integers(low, high, clients, dtype=np.int32),),
    }


def total(settings: config.Secure, sent: PyTree, round: int = 1) -> Any:
    ids = np.arange(10, 10 + len(jax.tree.leaves(sent)[0]))
    return secure(settings, 0).total(RoundMark(round, ""), ids, sent)


@pytest.mark.parametrize("clients", [3, 4, 9])
def test_the_sum_is_that_of_whole_numbers_modulo_2_to_the_32(clients: int) -> None:
    sent = whole(clients)
    tiny.same(total(config.Secure(), sent), jax.tree.map(lambda x: x.sum(0, dtype=np.int32), sent))


def test_the_greatest_numbers_that_may_be_summed_do_not_wrap() -> None:
    for sign in (1, -1):
        sent = {"a": np.full((4, 1), sign * ((2**31 - 1) // 4), np.int32)}
        assert total(config.Secure(), sent)["a"].tolist() == [sign * 4 * ((2**31 - 1) // 4)]


def test_two_sums_of_a_round_have_neither_context_nor_keys_in_common(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Two regions sum in each round: nothing said in one passes for the other's, or for a seed's."""
    views = []

    def noted(*given: Any) -> Outcome:
        outcome = simulate_round(*given)
        views.append(outcome.view)
        return outcome

    monkeypatch.setattr("federated.secure.channel.simulate_round", noted)
    for _ in range(2):
        assert total(config.Secure(), whole(4)) is not None
    adverts = [advert for view in views for advert in view.adverts.values()]
    assert len({each.context for each in adverts}) == 2
    assert {each.context.round for each in adverts} == {1}
    assert len({key for each in adverts for key in (each.mask_key, each.seal_key)}) == 16


@pytest.mark.parametrize("clients", [0, 1, 2])
def test_no_sum_of_fewer_than_3_is_opened(clients: int) -> None:
    assert total(config.Secure(), whole(clients)) is None


@pytest.mark.parametrize("round", [1, 2, 3, 4])
def test_of_those_who_drop_out_all_is_in_the_sum_or_nothing(round: int) -> None:
    """Each client's numbers are bits of its own, so that the sum tells who is in it."""
    bits = np.int32(2) ** np.arange(8, dtype=np.int32)
    found = total(SETTINGS, {"a": np.stack([bits, bits + 0], axis=1), "b": bits[:, None]}, round)
    assert found["a"][0] == found["a"][1] == found["b"][0]
    assert 6 <= int(found["a"][0]).bit_count() <= 8


def test_who_drops_out_follows_from_seed_and_round() -> None:
    bits = {"a": (np.int32(2) ** np.arange(12, dtype=np.int32))[:, None]}
    settings = config.Secure(dropouts=0.3)
    first = [int(total(settings, bits, round)["a"][0]) for round in range(1, 7)]
    again = [int(total(settings, bits, round)["a"][0]) for round in range(1, 7)]
    assert first == again and len(set(first)) > 1


# --- in a round -----------------------------------------------------------------------------------

MODEL = tiny.make_model()
CLIENT = local_update(MODEL, lambda round: optax.sgd(0.5), tiny.LOSS, augment=tiny.as_floats)


def play(channel: Channel | HostChannel, noise: Any, *ids: int) -> PyTree:
    """The parameters after one round."""
    aggregator = aggregate([clip(0.1)], channel, noise)
    algorithm = fed_avg(CLIENT, optax.sgd(1.0), aggregator, make_over("scan"))
    laid = tiny.make_cohort(9, 2, 5, 7, ids=list(ids), slots=4)
    state = algorithm.init(MODEL.init(jax.random.key(0)))
    sources = lambda number: seeded_source(number)  # noqa: E731
    *_, (_, state, _) = rounds(algorithm, state, [laid], jax.random.key(7), sources)
    return jax.device_get(state.params)


@pytest.mark.parametrize(
    "noise", [gaussian(0.5, clients=3), distributed(0.5, 3, config.Secure(), most=64)]
)
def test_a_secure_round_is_the_plain_round_with_the_same_noise(noise: Any) -> None:
    tiny.close(play(secure(config.Secure(), 0), noise, 3, 0, 2), play(plain(), noise, 3, 0, 2))


@pytest.mark.parametrize("noise", [None, gaussian(0.5, clients=3)])
def test_a_round_of_two_leaves_the_model(noise: Any) -> None:
    before = jax.device_get(MODEL.init(jax.random.key(0)).params)
    tiny.same(play(secure(config.Secure(), 0), noise, 3, 0), before)


def test_turns_of_which_a_region_has_too_few_are_refused() -> None:
    federated = config.Federated(
        clients=12,
        clients_per_round=4,
        regions=("north", "south"),
        weights="uniform",
        stages=(config.Clip(max_norm=1.0),),
        channel=config.Secure(),
    )
    with pytest.raises(UserError, match=r"at least 3 clients of each region .* got 2;"):
        check_cohorts(federated, [6, 6])
    check_cohorts(msgspec.structs.replace(federated, clients_per_round=6), [6, 6])


@pytest.mark.parametrize(("clients", "drawn"), [(6, 4), (7, 3), (2, 2)])
def test_turns_with_a_cohort_too_small_for_a_secure_sum_are_refused(
    clients: int, drawn: int
) -> None:
    federated = config.Federated(
        clients=clients,
        clients_per_round=drawn,
        regions=("all",),
        sampling="cyclic",
        weights="uniform",
        stages=(config.Clip(max_norm=1.0),),
        channel=config.Secure(),
    )
    with pytest.raises(UserError, match="at least 3 clients in each cohort of a secure sum"):
        check_cohorts(federated, [clients])
