"""A run keeps to its regions' policies or doesn't begin, and no region spends beyond its own."""

import math
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from federated.egress import check_policies, contributing, large_enough
from federated.policy import Policy
from federated.sampling import make_sampler
from lepton_jax import config
from lepton_jax.checks import UserError
from tests.federated.egress.policies import a_policy, silent

CLIENTS = {"africa": 10, "asia": 10, "europe": 10}


def a_run(**changes: Any) -> config.Federated:
    """30 clients, 9 of them a round: 3 of each region's 10 are expected."""
    settings = {"clients": 30, "clients_per_round": 9, "weights": "uniform"}
    return config.Federated(**{**settings, **changes})


def noised(**changes: Any) -> config.Federated:
    noise: dict[str, Any] = {
        "stages": (config.Clip(max_norm=1.0),),
        "noise": config.Gaussian(multiplier=1.0),
        "weights": "uniform",
        "sampling": "poisson",
    }
    return a_run(**{**noise, **changes})


def each(**changes: Any) -> dict[str, Policy]:
    return {region: a_policy(region, **changes) for region in CLIENTS}


def test_a_run_that_its_policies_allow_has_every_region() -> None:
    bounded = each(epsilon=4.0, delta=1e-5)
    assert check_policies(bounded, noised(), CLIENTS) == {}
    assert check_policies(each(), a_run(), CLIENTS) == {}


# --- the table of `check_policies` ----------------------------------------------------------------


def test_a_region_that_lets_no_update_out_is_named_and_asks_for_nothing() -> None:
    none = silent("asia", epsilon=1e-9, delta=1e-12, minimum_cohort=999)
    policies = {"africa": a_policy("africa"), "asia": none}
    assert list(check_policies(policies, a_run(), CLIENTS)) == ["asia"]


def test_a_region_without_clients_is_named() -> None:
    assert list(check_policies(each(), a_run(), {**CLIENTS, "asia": 0})) == ["asia"]


def test_a_run_to_which_no_region_contributes_is_refused() -> None:
    with pytest.raises(
        UserError, match=r"^federated\.policies: expected a region that contributes"
    ):
        check_policies({"asia": silent("asia")}, a_run(), CLIENTS)


def test_an_epsilon_needs_noise_of_one_kind_or_the_other() -> None:
    policies = each(epsilon=4.0, delta=1e-5)
    with pytest.raises(UserError, match=r"^policy of region africa: expected noise, for its epsil"):
        check_policies(policies, a_run(), CLIENTS)
    examples = config.ClientPrivacy(noise_multiplier=1.0)
    assert not check_policies(policies, a_run(example_privacy=examples), CLIENTS)


def test_a_hypothetical_epsilon_meets_no_policy() -> None:
    larger = config.Hypothetical(clients=10**6, clients_per_round=10**3)
    with pytest.raises(UserError, match=r"got federated\.hypothetical; leave it out"):
        check_policies(each(epsilon=4.0, delta=1e-5), noised(hypothetical=larger), CLIENTS)
    assert not check_policies(each(), noised(hypothetical=larger), CLIENTS)


def test_a_larger_delta_than_a_policys_is_refused() -> None:
    policies = each() | {"asia": a_policy("asia", epsilon=4.0, delta=1e-6)}
    assert not check_policies(policies, noised(delta=1e-6), CLIENTS)
    with pytest.raises(
        UserError, match=r"^federated\.delta: expected at most 1e-06, by the policy"
    ):
        check_policies(policies, noised(delta=1.1e-6), CLIENTS)
    examples = config.ClientPrivacy(noise_multiplier=1.0, delta=1e-5)
    with pytest.raises(UserError, match=r"^federated\.example_privacy\.delta: expected at most"):
        check_policies(policies, a_run(example_privacy=examples, delta=1e-9), CLIENTS)
    # What is never told is not compared: without noise for clients, there is no delta of theirs.
    few = config.ClientPrivacy(noise_multiplier=1.0, delta=1e-7)
    assert not check_policies(policies, a_run(example_privacy=few, delta=0.1), CLIENTS)


def test_with_noise_the_expected_cohort_decides_and_the_largest_does_not() -> None:
    assert not check_policies(each(minimum_cohort=3), noised(), CLIENTS)
    with pytest.raises(UserError, match="minimum_cohort: expected at most 3, the expected cohort"):
        check_policies(each(minimum_cohort=4), noised(), CLIENTS)


@settings(max_examples=200, deadline=None, derandomize=True)
@given(st.integers(1, 500), st.integers(1, 500), st.integers(1, 500), st.integers(1, 30))
def test_the_expected_cohort_is_compared_without_rounding(
    drawn: int, others: int, clients: int, least: int
) -> None:
    run = noised(clients=clients + others + 2, clients_per_round=min(drawn, clients + others + 2))
    enough = run.clients_per_round * clients >= least * run.clients
    try:
        check_policies({"asia": a_policy(minimum_cohort=least)}, run, {"asia": clients})
    except UserError:
        assert not enough
    else:
        assert enough


def test_without_noise_a_minimum_that_no_cohort_reaches_is_refused() -> None:
    assert not check_policies(each(minimum_cohort=9), a_run(), CLIENTS)
    assert not check_policies(each(minimum_cohort=10), a_run(sampling="poisson"), CLIENTS)
    for least, run in ((10, a_run()), (11, a_run(sampling="poisson"))):
        with pytest.raises(UserError, match="the largest cohort of its 10 clients"):
            check_policies(each(minimum_cohort=least), run, CLIENTS)


# --- rounds ---------------------------------------------------------------------------------------

BUDGETS = {
    "africa": a_policy("africa", epsilon=4.0, delta=1e-5),
    "asia": a_policy("asia"),
    "europe": a_policy("europe", epsilon=2.0, delta=1e-5),
    "oceania": silent("oceania", epsilon=8.0, delta=1e-5),
}


@pytest.mark.parametrize(
    ("spent", "left"),
    [
        (0.0, ("africa", "asia", "europe")),
        (2.0, ("africa", "asia", "europe")),
        (math.nextafter(2.0, 3), ("africa", "asia")),
        (4.0, ("africa", "asia")),
        (4.1, ("asia",)),
        (math.inf, ("asia",)),
    ],
)
def test_a_region_at_its_budget_stops_and_the_others_go_on(
    spent: float, left: tuple[str, ...]
) -> None:
    assert contributing(BUDGETS, spent) == left


def test_above_every_budget_nobody_is_left() -> None:
    assert contributing({"africa": BUDGETS["africa"]}, 4.1) == ()


@pytest.mark.parametrize("spent", [math.nan, -1e-9, -math.inf])
def test_what_is_no_epsilon_is_refused(spent: float) -> None:
    with pytest.raises(UserError, match=r"^spent: expected an epsilon"):
        contributing(BUDGETS, spent)


@settings(max_examples=100, deadline=None, derandomize=True)
@given(st.floats(0, 10), st.floats(0, 10))
def test_who_has_stopped_stays_so(a: float, b: float) -> None:
    less, more = sorted((a, b))
    assert set(contributing(BUDGETS, more)) <= set(contributing(BUDGETS, less))


def test_a_drawn_cohort_counts_from_the_minimum_on() -> None:
    policies = each(minimum_cohort=3)
    assert large_enough(policies, {"africa": 2, "asia": 3, "europe": 4}) == ("asia", "europe")
    assert large_enough(policies, {}) == ()


def test_leaving_small_cohorts_out_would_break_the_bound_that_noise_relies_on() -> None:
    """Why, with noise, the drawn cohort decides nothing: it moves the sum by more than one update."""
    policies, clip = {"asia": a_policy(minimum_cohort=3)}, 1.0
    sampler = make_sampler(noised(), seed=0)
    drawn = [int((sampler.sample(i) < 10).sum()) for i in range(100)]
    assert {2, 3} <= set(drawn)  # both sides of the minimum are drawn

    def total(clients: int, rule: bool) -> float:
        kept = not rule or large_enough(policies, {"asia": clients})
        return clients * clip if kept else 0.0

    moved = [abs(total(n + 1, True) - total(n, True)) for n in drawn]
    assert max(moved) == 3 * clip
    assert np.ptp([total(n + 1, False) - total(n, False) for n in drawn]) == 0
