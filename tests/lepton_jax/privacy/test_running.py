"""What a budget affords and what a run's terms cost, row by row; and the divergences, by brute force."""

import math
from itertools import accumulate

import numpy as np
import pytest
from scipy.special import logsumexp

from lepton_jax.checks import UserError
from lepton_jax.privacy.accounting import (
    Event,
    Passes,
    Poisson,
    TreePasses,
    affordable,
    running_epsilon,
    spending,
)
from lepton_jax.privacy.terms import Terms

DELTA = 1e-5


# --- budgets --------------------------------------------------------------------------------------


def test_the_last_affordable_release_is_found_in_few_questions() -> None:
    rng = np.random.default_rng(0)
    for most in (1, 2, 3, 50, 100):
        costs = [0.0, *accumulate(rng.choice([0.0, 0.5, 1.0], most))]
        for budget in (0.0, 0.4, 1.0, costs[-1] / 2, costs[-1], 1e9):
            asked: list[int] = []

            def spent(releases: int, costs: list = costs, asked: list = asked) -> float:
                asked.append(releases)
                return costs[releases]

            fits = [n for n, cost in enumerate(costs) if cost <= budget]
            assert affordable(spent, budget, most) == max(fits)
            assert len(asked) <= 2 + math.log2(most)


def test_one_release_more_would_pass_the_budget() -> None:
    spent = running_epsilon(Poisson(0.05), noise_multiplier=1.0, delta=DELTA, accountant="rdp")
    found = affordable(spent, 3.0, 10_000)
    assert spent(found) <= 3.0 < spent(found + 1)


@pytest.mark.parametrize(
    ("budget", "most", "costs", "expected"),
    [
        (1.0, 0, 0.1, 0),
        (math.inf, 7, math.inf, 7),
        (0.0, 7, 0.1, 0),
        (0.0, 7, 0.0, 7),
        (1.0, 7, 1.1, 0),
        (1.0, 7, math.nan, 0),
    ],
)
def test_edges_of_a_budget(budget: float, most: int, costs: float, expected: int) -> None:
    assert affordable(lambda releases: costs * releases, budget, most) == expected


def test_releases_that_cost_nothing_fit_no_budget() -> None:
    assert affordable(lambda releases: max(0.0, releases - 3.0), 0.0, 7) == 3


@pytest.mark.parametrize(
    ("budget", "most", "place"),
    [
        (math.nan, 7, "epsilon"),
        (-1.0, 7, "epsilon"),
        (1.0, -1, "releases"),
        (1.0, 10**7 + 1, "releases"),
    ],
)
def test_an_impossible_budget_is_refused(budget: float, most: int, place: str) -> None:
    with pytest.raises(UserError, match=f"^{place}: expected a"):
        affordable(lambda releases: 0.0, budget, most)


# --- a run's terms --------------------------------------------------------------------------------


def terms(**changes: object) -> Terms:
    """Those of a run with Poisson-sampled clients, but for what is changed."""
    given: dict = {
        "unit": "client",
        "adjacency": "add-remove",
        "mechanism": "gaussian",
        "noise_multiplier": 2.0,
        "clip_norm": 1.0,
        "sampler": "poisson",
        "sampling_rate": 0.1,
        "delta": DELTA,
        "accountant": "rdp",
        "accountant_version": "",
        "randomness": "secure",
        "trust": "",
        "covers": (),
        "not_private": (),
    }
    return Terms(**(given | changes))


CYCLIC = {"sampler": "cyclic", "sampling_rate": None, "pass_length": 4}
LOCAL = {"mechanism": "local", "adjacency": "replace-one"}


@pytest.mark.parametrize(
    ("changes", "event", "settings"),
    [
        ({}, Poisson(0.1), {}),
        ({"accountant": "pld"}, Poisson(0.1), {"accountant": "pld"}),
        (
            {"accountant": "pld", "adjacency": "replace-one"},
            Poisson(0.1),
            {"accountant": "pld", "adjacency": "replace-one"},
        ),
        ({"mechanism": "distributed"}, Poisson(0.1), {"discrete": True}),
        (CYCLIC, Passes(4), {}),
        (CYCLIC | {"adjacency": "replace-one"}, Passes(4), {"adjacency": "replace-one"}),
        (CYCLIC | {"mechanism": "banded", "bands": 4}, Passes(4), {}),
        (CYCLIC | {"mechanism": "distributed"}, Passes(4), {"discrete": True}),
        (CYCLIC | {"mechanism": "tree"}, TreePasses(4), {}),
        (LOCAL, Passes(1), {"adjacency": "replace-one"}),
        (LOCAL | CYCLIC, Passes(1), {"adjacency": "replace-one"}),
        (LOCAL | {"sampler": "fixed"}, Passes(1), {"adjacency": "replace-one"}),
    ],
    ids=str,
)
def test_terms_are_accounted_for_what_they_say(changes: dict, event: Event, settings: dict) -> None:
    expected = running_epsilon(
        event, **({"noise_multiplier": 2.0, "delta": DELTA, "accountant": "rdp"} | settings)
    )
    spent = spending(terms(**changes))
    assert [spent(n) for n in (0, 1, 9)] == [expected(n) for n in (0, 1, 9)]


@pytest.mark.parametrize(
    ("changes", "place"),
    [
        ({"mechanism": "tree"}, "sampling"),
        ({"mechanism": "banded", "bands": 2}, "sampling"),
        ({"sampler": "fixed"}, "sampling"),
        ({"sampler": "fixed", "mechanism": "distributed"}, "sampling"),
        ({"sampling_rate": None}, "sampling_rate"),
        (CYCLIC | {"pass_length": None}, "pass_length"),
        (CYCLIC | {"pass_length": 0}, "pass_length"),
        (CYCLIC | {"mechanism": "banded"}, "bands"),
        (CYCLIC | {"mechanism": "banded", "bands": 5}, "bands"),
        ({"mechanism": "local"}, "adjacency"),
        ({"adjacency": "replace-one"}, "adjacency"),
        ({"mechanism": "distributed", "accountant": "pld"}, "accountant"),
    ],
    ids=str,
)
def test_terms_that_nothing_accounts_for_are_refused(changes: dict, place: str) -> None:
    with pytest.raises(UserError, match=rf"^{place}: expected ") as refusal:
        spending(terms(**changes))
    assert "\n" not in str(refusal.value)


# --- discrete noise, by brute force ---------------------------------------------------------------


def _log_moments(rate: float, sigma: float, shift: tuple[int, ...], order: int) -> list[float]:
    """log E[(Q/P)^order] over P, and of P and Q swapped: discrete noise, and it shifted at a rate."""
    reach = int(order * max(shift) + 16 * sigma)
    axes = np.meshgrid(*[np.arange(-reach, reach + 1)] * len(shift), indexing="ij")

    def log_density(at: tuple[int, ...]) -> np.ndarray:
        squares = np.sum([(axis - x) ** 2 for axis, x in zip(axes, at, strict=True)], axis=0)
        logs = (-squares / (2 * sigma**2)).ravel()
        return logs - logsumexp(logs)

    without = log_density((0,) * len(shift))
    sampled = np.logaddexp(math.log1p(-rate) + without, math.log(rate) + log_density(shift))
    return [
        float(logsumexp(order * upper + (1 - order) * lower))
        for upper, lower in ((sampled, without), (without, sampled))
    ]


@pytest.mark.parametrize(
    ("rate", "sigma", "shift"),
    [(0.2, 0.7, (1,)), (0.2, 2.4, (3,)), (0.5, 0.4, (1,)), (0.05, 0.6, (1, 0)), (0.3, 2.0, (1, 2))],
)
def test_discrete_noise_costs_what_its_divergences_say(
    rate: float, sigma: float, shift: tuple[int, ...]
) -> None:
    """Converted by proposition 12 of Canonne, Kamath and Steinke (2020), written out once more."""
    steps, bounds = 5, []
    for order in range(2, 20):
        ours, swapped = _log_moments(rate, sigma, shift, order)
        assert swapped <= ours + 1e-9
        divergence = steps * ours / (order - 1)
        bounds.append(divergence + math.log1p(-1 / order) - math.log(DELTA * order) / (order - 1))
    assert bounds.index(min(bounds)) < len(bounds) - 1
    spent = running_epsilon(
        Poisson(rate),
        noise_multiplier=sigma / math.hypot(*shift),
        delta=DELTA,
        accountant="rdp",
        discrete=True,
    )
    assert spent(steps) == pytest.approx(min(bounds), rel=1e-9)


@pytest.mark.parametrize("event", [Poisson(0.2), Poisson(1.0), Passes(3), TreePasses(3)], ids=str)
def test_fewer_orders_cost_little_and_never_gain(event: Event) -> None:
    def spent(discrete: bool) -> float:
        return running_epsilon(
            event, noise_multiplier=1.5, delta=DELTA, accountant="rdp", discrete=discrete
        )(10)

    assert spent(False) <= spent(True) <= 1.03 * spent(False)
