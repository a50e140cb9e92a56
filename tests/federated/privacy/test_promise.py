"""What a config promises is what its run does: the same cohorts, the same noise, every release."""

import math
from typing import Any

import numpy as np
import pytest

from federated.privacy.promise import promise
from federated.sampling import Sampler, make_sampler
from lepton_jax import config
from lepton_jax.privacy.accounting import Passes, running_epsilon
from lepton_jax.privacy.promise import Promise

DELTA = 1e-5


def promised(**changes: Any) -> tuple[Promise, Sampler]:
    settings = config.Federated(
        **{
            "clients": 40,
            "clients_per_round": 10,
            "rounds": 8,
            "noise": config.Gaussian(multiplier=0.8),
            "stages": (config.Clip(max_norm=1.0),),
            "weights": "uniform",
            "sampling": "poisson",
            "accountant": "rdp",
            **changes,
        }
    )
    sampler = make_sampler(settings, 0)
    found = promise(settings, sampler, 1.0)
    assert found is not None
    return found, sampler


def test_the_rate_that_is_accounted_for_is_that_of_the_cohorts() -> None:
    found, sampler = promised()
    assert found.terms.sampling_rate == 0.25
    drawn = sum(len(sampler.sample(number)) for number in range(400))
    assert abs(drawn - 4000) < 6 * math.sqrt(16_000 * 0.25 * 0.75)


@pytest.mark.parametrize("size", [10, 7, 40, 1])
def test_no_client_takes_part_twice_in_a_pass_that_is_accounted_for(size: int) -> None:
    found, sampler = promised(sampling="cyclic", clients_per_round=size)
    length = found.terms.pass_length
    assert length == math.ceil(40 / size)
    for start in (1, 2, 5):
        chosen = np.concatenate([sampler.sample(start + i) for i in range(length)])
        assert sorted(chosen.tolist()) == list(range(40))


def test_a_cyclic_round_done_again_is_charged_a_whole_pass_and_a_poisson_one_once() -> None:
    found, _ = promised(sampling="cyclic")
    assert (found.releases(3, False), found.releases(3, True)) == (1, 4)
    found, _ = promised()
    assert (found.releases(3, False), found.releases(3, True)) == (1, 1)


def test_local_noise_hides_what_a_client_sends_and_each_time_that_it_does() -> None:
    found, sampler = promised(noise=config.Local(multiplier=3.0))
    assert found.terms.adjacency == "replace-one"
    expected = running_epsilon(
        Passes(1), noise_multiplier=1.5, delta=DELTA, accountant="rdp", adjacency="add-remove"
    )
    assert found.spent(3) == expected(3)
    taken = np.zeros(40, int)
    for number in range(1, 9):
        before = taken.max()
        taken[sampler.sample(number)] += 1
        assert found.releases(number, False) == taken.max() - before
        assert found.releases(number, True) == 1


def test_a_hypothetical_cohort_is_accounted_for_and_told() -> None:
    meant = config.Hypothetical(clients=6000, clients_per_round=300)
    found, _ = promised(hypothetical=meant)
    assert found.terms.hypothetical and found.terms.sampling_rate == 0.05
    assert not promised()[0].terms.hypothetical


def test_distributed_noise_is_accounted_for_as_whole_numbers() -> None:
    secure = config.Secure(dropouts=0.25)
    found, _ = promised(noise=config.Distributed(multiplier=0.8), channel=secure, sampling="cyclic")
    expected = running_epsilon(
        Passes(4), noise_multiplier=0.8, delta=DELTA, accountant="rdp", discrete=True
    )
    assert found.terms.mechanism == "distributed" and found.spent(9) == expected(9)


def test_every_local_step_is_a_release_of_the_examples_in_it() -> None:
    own = config.ClientPrivacy(noise_multiplier=0.8, sampling_rate=0.4, accountant="rdp")
    found, sampler = promised(example_privacy=own, noise=None, stages=(), local_epochs=2)
    first = found.releases(1, False)
    assert len(sampler.sample(1)) > 0 and first == 6  # two epochs of three steps
    assert found.releases(1, True) == 6
