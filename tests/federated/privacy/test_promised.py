"""What a federated run promises: its terms, kind by kind, and what each round is charged as."""

from typing import Any

import numpy as np
import pytest

from federated.privacy.promise import local_steps, promise
from federated.sampling import make_sampler
from lepton_jax import config
from lepton_jax.privacy.accounting import epsilon, spending
from lepton_jax.privacy.promise import Promise

GAUSSIAN = config.Gaussian(multiplier=0.8)


def promised(**changes: Any) -> Promise:
    settings = config.Federated(
        **{
            "clients": 30,
            "clients_per_round": 6,
            "rounds": 10,
            "noise": GAUSSIAN,
            "stages": (config.Clip(max_norm=0.5),),
            "weights": "uniform",
            "sampling": "poisson",
            **changes,
        }
    )
    found = promise(settings, make_sampler(settings, 0), 0.5)
    assert found is not None
    return found


def charges(promise: Promise, rounds: int = 10) -> list[int]:
    return [promise.releases(number, False) for number in range(1, rounds + 1)]


SECURE = config.Secure(dropouts=0.1, colluders=0.2)
ROWS: list[tuple[dict[str, Any], dict[str, Any]]] = [
    ({}, {"mechanism": "gaussian", "sampler": "poisson", "sampling_rate": 0.2}),
    ({"sampling": "cyclic"}, {"mechanism": "gaussian", "sampler": "cyclic", "pass_length": 5}),
    ({"adjacency": "replace-one", "sampling": "cyclic"}, {"adjacency": "replace-one"}),
    (
        {"noise": config.Tree(multiplier=0.8), "sampling": "cyclic"},
        {"mechanism": "tree", "pass_length": 5, "sampling_rate": None, "bands": None},
    ),
    (
        {"noise": config.Banded(multiplier=0.8, bands=3), "sampling": "cyclic"},
        {"mechanism": "banded", "pass_length": 5, "bands": 3},
    ),
    (
        {"noise": config.Local(multiplier=0.8), "sampling": "fixed"},
        {"mechanism": "local", "sampler": "fixed", "adjacency": "replace-one"},
    ),
    (
        {
            "noise": config.Distributed(multiplier=0.8),
            "channel": SECURE,
            "accountant": "rdp",
            "sampling": "cyclic",
        },
        {"mechanism": "distributed", "dropouts": 0.1, "colluders": 0.2, "accountant": "rdp"},
    ),
    ({"channel": SECURE}, {"mechanism": "gaussian", "dropouts": 0.1, "colluders": 0.2}),
    (
        {"hypothetical": config.Hypothetical(clients=3000, clients_per_round=300)},
        {"hypothetical": True, "sampling_rate": 0.1},
    ),
    ({"randomness": "reproducible", "delta": 1e-7}, {"randomness": "reproducible", "delta": 1e-7}),
]


@pytest.mark.parametrize(("changes", "expected"), ROWS)
def test_the_terms_are_the_config_s(changes: dict[str, Any], expected: dict[str, Any]) -> None:
    terms = promised(**changes).terms
    assert {name: getattr(terms, name) for name in expected} == expected
    assert (terms.unit, terms.noise_multiplier, terms.clip_norm) == ("client", 0.8, 0.5)
    if "channel" not in changes:
        assert terms.dropouts is None and terms.colluders is None
    assert set(terms.not_private) >= {"clients", "examples", "train", "stages"}


def test_who_has_to_be_trusted_depends_on_channel_and_noise() -> None:
    trusted = [promised(**changes).terms.trust for changes, _ in ROWS]
    assert trusted[0].startswith("the server, with each client's update")
    assert trusted[5].startswith("nobody: noise is on each update")
    assert trusted[6].startswith("nobody with an update; the server knows who took part")
    assert trusted[7].startswith("the server, with the sum of a round's updates")


def test_a_checkpoint_s_noise_is_not_covered_where_rounds_hang_together() -> None:
    for (changes, _), kept in zip(ROWS, [0, 0, 0, 1, 1, 0, 0, 0, 0, 0], strict=True):
        covers = promised(**changes).terms.covers
        assert ("every checkpoint, less the state of its noise" in covers) == bool(kept)
        assert ("every checkpoint" in covers) == (not kept)
    local = promised(noise=config.Local(multiplier=0.8), sampling="fixed").terms.covers
    assert local[0] == "each client's update"


def test_what_is_spent_is_the_accountant_s_figure() -> None:
    found = promised()
    for rounds in (1, 10):
        expected = epsilon(sampling_rate=0.2, noise_multiplier=0.8, steps=rounds, delta=1e-5)
        assert found.spent(rounds) == expected == spending(found.terms)(rounds)


# --- what a round is charged as -------------------------------------------------------------------


def test_a_round_is_a_release_and_so_is_one_that_is_done_again() -> None:
    found = promised()
    assert charges(found) == [1] * 10
    assert found.releases(3, True) == 1


@pytest.mark.parametrize(
    "noise", [GAUSSIAN, config.Tree(multiplier=0.8), config.Banded(multiplier=0.8, bands=2)]
)
def test_a_round_of_a_pass_that_is_done_again_is_charged_as_a_pass(noise: Any) -> None:
    found = promised(noise=noise, sampling="cyclic")
    assert charges(found) == [1] * 10
    assert found.releases(3, True) == 5


@pytest.mark.parametrize("sampling", ["fixed", "poisson", "cyclic"])
def test_local_noise_is_charged_by_the_client_who_took_part_most(sampling: str) -> None:
    changes: Any = {"noise": config.Local(multiplier=0.8), "sampling": sampling, "rounds": 40}
    found = promised(**changes)
    settings = config.Federated(
        clients=30, clients_per_round=6, sampling=changes["sampling"], weights="uniform"
    )
    sampler, taken = make_sampler(settings, 0), np.zeros(30, int)
    spent = 0
    for number in range(1, 41):
        taken[sampler.sample(number)] += 1
        spent += found.releases(number, False)
        assert spent == taken.max()
    assert found.releases(3, True) == 1
    if sampling == "cyclic":
        assert spent == 8 and charges(found)[:10] == [1, 0, 0, 0, 0, 1, 0, 0, 0, 0]


# --- examples -------------------------------------------------------------------------------------


def test_examples_are_charged_by_their_client_s_steps() -> None:
    privacy = config.ClientPrivacy(noise_multiplier=1.1, sampling_rate=0.3, clip_norm=2.0)
    found = promised(
        noise=None, stages=(), sampling="cyclic", local_epochs=2, example_privacy=privacy
    )
    terms = found.terms
    assert (terms.unit, terms.mechanism, terms.sampler) == ("example", "gaussian", "poisson")
    assert (terms.sampling_rate, terms.noise_multiplier, terms.clip_norm) == (0.3, 1.1, 2.0)
    assert charges(found)[:6] == [8, 0, 0, 0, 0, 8]
    assert found.releases(2, True) == 8


@pytest.mark.parametrize(
    ("epochs", "rate", "steps"), [(1, 1.0, 1), (1, 0.5, 2), (3, 0.3, 12), (1, 0.1, 10)]
)
def test_an_epoch_takes_as_many_steps_whatever_a_client_has(
    epochs: int, rate: float, steps: int
) -> None:
    assert local_steps(epochs, rate) == steps


# --- noise for a budget ---------------------------------------------------------------------------


@pytest.mark.parametrize("sampling", ["poisson", "cyclic"])
def test_unset_noise_is_the_least_that_keeps_the_budget_to_the_end(sampling: str) -> None:
    found = promised(noise=config.Gaussian(), epsilon=4.0, sampling=sampling)
    assert 3.99 < found.spent(sum(charges(found))) <= 4.0
    assert found.terms.budget == 4.0
