"""Noise that clients add: enough of it from each alone, or from those who stay together."""

import math

import jax.numpy as jnp
import numpy as np
import pytest

from federated.privacy.client_noise import distributed, local, staying
from federated.privacy.noise import Drawn, Noise
from lepton_jax import config
from lepton_jax.checks import UserError
from lepton_jax.privacy.entropy import seeded_source

SIZE = 20_000
LIKE = {"a": jnp.zeros(SIZE)}
OFF = 4 / math.sqrt(2 * SIZE)  # four deviations of a sample's deviation


def draw(noise: Noise, present: int, slots: int) -> tuple[np.ndarray, Drawn]:
    """Each slot's noise over the bound [C,D], and all that was drawn."""
    grid = noise.grid(1.0)
    drawn = noise.draw(grid, LIKE, seeded_source(0), present, slots)
    assert drawn.clients["a"].shape == (slots, SIZE)
    assert drawn.clients["a"].dtype == np.int32
    return drawn.clients["a"] / grid.bound, drawn


def test_local_noise_is_enough_on_each_client_whoever_else_is_there() -> None:
    for present, slots in ((1, 1), (3, 4)):
        own, _ = draw(local(0.7, clients=3), present, slots)
        for each in own:
            assert np.std(each) == pytest.approx(0.7, rel=OFF)
        correlation = np.corrcoef(own) - np.eye(slots)
        assert np.abs(correlation).max() < 5 / math.sqrt(SIZE)


@pytest.mark.parametrize("noise", [local(0.7, 3), distributed(0.7, 3, config.Secure())])
def test_the_server_adds_nothing_to_clients_noise(noise: Noise) -> None:
    _, drawn = draw(noise, 3, 3)
    assert drawn.server == () and noise.init(LIKE) == ()
    total = {"a": jnp.arange(SIZE, dtype=jnp.int32)}
    out, state = noise.add((), total, ())
    assert state == () and np.array_equal(out["a"], total["a"])


@pytest.mark.parametrize(
    ("present", "dropouts", "colluders", "stay"),
    [(8, 0.25, 0.25, 4), (8, 0.0, 0.0, 8), (7, 0.1, 0.0, 6), (3, 0.9, 0.9, 1)],
)
def test_those_who_stay_have_all_the_noise_that_was_asked_for(
    present: int, dropouts: float, colluders: float, stay: int
) -> None:
    secure = config.Secure(dropouts=dropouts, colluders=colluders)
    assert staying(present, secure) == stay
    # Slots are what a cohort is laid out for; who isn't there adds no part.
    own, _ = draw(distributed(1.5, 8, secure, most=100), present, present + 3)
    own = own[:present]
    assert np.std(own[:stay].sum(0)) == pytest.approx(1.5, rel=OFF)
    assert np.std(own.sum(0)) == pytest.approx(1.5 * math.sqrt(present / stay), rel=OFF)


def test_whoever_drops_out_leaves_at_least_the_noise_that_was_asked_for() -> None:
    for present in range(1, 200):
        for dropouts in (0.0, 0.01, 0.1, 0.3, 0.5):
            gone = math.floor(present * dropouts)  # as `secure.channel` lets drop out
            assert 1 <= staying(present, config.Secure(dropouts=dropouts)) <= present - gone or (
                present == 1
            )


def test_a_round_of_nobody_still_draws() -> None:
    own, _ = draw(distributed(1.5, 8, config.Secure(dropouts=0.2), most=100), 0, 2)
    assert np.std(own[0]) == pytest.approx(1.5, rel=OFF)


def test_parts_too_small_to_add_up_to_discrete_normal_noise_are_refused() -> None:
    with pytest.raises(UserError) as refusal:
        distributed(0.001, 10, config.Secure(), most=4096).grid(1.0)
    assert str(refusal.value) == (
        "distributed noise: expected parts of a deviation of at least 16 units from each of 4096 "
        "clients, got 8.08; raise the multiplier, or take fewer clients a round"
    )
    distributed(0.001, 10, config.Secure(), most=400).grid(1.0)
