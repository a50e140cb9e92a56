"""Published figures, the edge table row by row, and the laws of composition."""

import math
import sys
from importlib.metadata import version
from typing import Any

import numpy as np
import pytest

from lepton_jax.checks import UserError
from lepton_jax.privacy import accounting
from lepton_jax.privacy.accounting import (
    Accountant,
    Adjacency,
    Event,
    Passes,
    Poisson,
    TreePasses,
    accountant_version,
    calibrate,
    running_epsilon,
)

ACCOUNTANTS: tuple[Accountant, ...] = ("pld", "rdp")
ADJACENCIES: tuple[Adjacency, ...] = ("add-remove", "replace-one")
UNSAMPLED = {"sampling_rate": 1.0, "adjacency": "replace-one"}
GOLDEN = [
    (0.01, 1.0, 1000, 2.1014, 1.8282),
    (0.01, 1.0, 10000, 6.7128, 6.1877),
    (0.01, 0.5, 1000, 15.4721, 13.3608),
    (256 / 60000, 1.1, 3515, 1.2811, 1.1337),
]


def epsilon(
    sampling_rate: float = 0.3,
    noise_multiplier: float = 1.5,
    steps: int = 10,
    delta: float = 1e-5,
    accountant: Accountant = "pld",
    adjacency: Adjacency = "add-remove",
) -> float:
    return accounting.epsilon(
        sampling_rate=sampling_rate,
        noise_multiplier=noise_multiplier,
        steps=steps,
        delta=delta,
        accountant=accountant,
        adjacency=adjacency,
    )


def noise(
    epsilon: float = 2.0,
    sampling_rate: float = 0.3,
    steps: int = 10,
    delta: float = 1e-5,
    accountant: Accountant = "pld",
    adjacency: Adjacency = "add-remove",
) -> float:
    return accounting.noise_multiplier(
        epsilon=epsilon,
        sampling_rate=sampling_rate,
        steps=steps,
        delta=delta,
        accountant=accountant,
        adjacency=adjacency,
    )


@pytest.mark.parametrize(("rate", "sigma", "steps", "rdp", "pld"), GOLDEN)
def test_known_figures(rate: float, sigma: float, steps: int, rdp: float, pld: float) -> None:
    assert epsilon(rate, sigma, steps, accountant="rdp") == pytest.approx(rdp, abs=1e-3)
    assert epsilon(rate, sigma, steps, accountant="pld") == pytest.approx(pld, rel=1e-3)


def test_known_figures_of_a_replaced_unit_and_of_a_tree() -> None:
    assert epsilon(0.01, 1.0, 1000, adjacency="replace-one") == pytest.approx(2.8434, rel=1e-3)
    tree = running_epsilon(TreePasses(1024), noise_multiplier=2.0, delta=1e-5, accountant="rdp")
    assert tree(1024) == pytest.approx(8.5519, abs=1e-3)


# --- against closed forms and integrals -----------------------------------------------------------


def normal_cdf(x: float) -> float:
    return 0.5 * math.erfc(-x / math.sqrt(2))


@pytest.mark.parametrize(
    ("event", "releases", "length"),
    [
        (Poisson(1.0), 1, 1.0),
        (Poisson(1.0), 9, 3.0),
        (Passes(1), 9, 3.0),
        (Passes(4), 13, 2.0),
        (TreePasses(8), 8, 2.0),
        (TreePasses(8), 23, math.sqrt(11)),
    ],
    ids=str,
)
@pytest.mark.parametrize("adjacency", ["add-remove", "replace-one"])
def test_unsampled_releases_are_one_gaussian_mechanism(
    event: Event, releases: int, length: float, adjacency: Adjacency
) -> None:
    """The exact delta is that of Balle and Wang (2018), theorem 5; `length` is what a unit moves."""
    noise = 2.0
    found = running_epsilon(event, noise_multiplier=noise, delta=1e-5, adjacency=adjacency)(
        releases
    )
    sigma = noise / length / (2 if adjacency == "replace-one" else 1)
    delta = normal_cdf(0.5 / sigma - found * sigma) - math.exp(found) * normal_cdf(
        -0.5 / sigma - found * sigma
    )
    assert delta == pytest.approx(1e-5, rel=0.01)
    assert delta <= 1e-5


@pytest.mark.parametrize("accountant", ACCOUNTANTS)
def test_sampling_at_rate_1_is_no_sampling(accountant: Accountant) -> None:
    for adjacency in ADJACENCIES:
        sampled, passes = (
            running_epsilon(
                event,
                noise_multiplier=1.5,
                delta=1e-5,
                accountant=accountant,
                adjacency=adjacency,
            )
            for event in (Poisson(1.0), Passes(1))
        )
        assert [sampled(n) for n in (1, 5, 30)] == [passes(n) for n in (1, 5, 30)]


def divergence(epsilon: float, rate: float, sigma: float, without: tuple, with_: tuple) -> float:
    """Hockey-stick divergence of two sampled normal sums in the plane, by adding up a fine grid."""
    axis = np.linspace(-9 * sigma - 1, 9 * sigma + 1, 500)

    def density(share: tuple) -> np.ndarray:
        at = [np.exp(-((axis - x) ** 2) / (2 * sigma**2)) for x in share]
        rest = np.exp(-(axis**2) / (2 * sigma**2))
        mixed = rate * np.outer(*at) + (1 - rate) * np.outer(rest, rest)
        return mixed * (axis[1] - axis[0]) ** 2 / (2 * math.pi * sigma**2)

    return float(np.maximum(density(with_) - math.exp(epsilon) * density(without), 0).sum())


@pytest.mark.parametrize(("rate", "sigma"), [(0.3, 0.7), (0.05, 0.5), (0.9, 1.5)])
def test_one_sampled_release_costs_what_the_integral_says(rate: float, sigma: float) -> None:
    unit, none = (1.0, 0.0), (0.0, 0.0)
    added = epsilon(rate, sigma, 1)
    exact = max(divergence(added, rate, sigma, *pair) for pair in ((unit, none), (none, unit)))
    assert exact == pytest.approx(1e-5, rel=0.02)
    replaced = epsilon(rate, sigma, 1, adjacency="replace-one")
    exact = divergence(replaced, rate, sigma, unit, (-1.0, 0.0))
    assert exact == pytest.approx(1e-5, rel=0.02)


@pytest.mark.parametrize("angle", [0.3, 1.0, 2.0, 3.0])
@pytest.mark.parametrize("shorter", [1.0, 0.6])
def test_no_replacement_costs_more_than_the_opposite_share(angle: float, shorter: float) -> None:
    found = epsilon(0.3, 0.7, 1, adjacency="replace-one")
    other = (shorter * math.cos(angle), shorter * math.sin(angle))
    assert divergence(found, 0.3, 0.7, (1.0, 0.0), other) < 1e-5
    assert divergence(found, 0.3, 0.7, other, (1.0, 0.0)) < 1e-5


# --- edges ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("accountant", ACCOUNTANTS)
@pytest.mark.parametrize("edge", [{"noise_multiplier": 2.0**40}, {"sampling_rate": 2.0**-60}])
def test_beyond_what_float64_can_tell_epsilon_is_no_more_than_at_the_end(
    edge: dict, accountant: Accountant
) -> None:
    end = {"noise_multiplier": 2.0**20} if "noise_multiplier" in edge else {"sampling_rate": 2**-40}
    few: dict[str, Any] = {"delta": 1e-30, "steps": 10, "noise_multiplier": 3.0}
    assert (
        0
        < epsilon(**few | edge, accountant=accountant)
        <= epsilon(**few | end, accountant=accountant)
    )


@pytest.mark.parametrize("accountant", ACCOUNTANTS)
@pytest.mark.parametrize(
    ("edge", "expected"),
    [
        ({"sampling_rate": 0.0}, 0.0),
        ({"steps": 0}, 0.0),
        ({"delta": 1.0}, 0.0),
        ({"noise_multiplier": math.inf}, 0.0),
        ({"delta": 0.0}, math.inf),
        ({"noise_multiplier": 0.0}, math.inf),
        ({"noise_multiplier": 2.0**-11}, math.inf),
        ({"noise_multiplier": 0.0, "steps": 0}, 0.0),
        ({"noise_multiplier": 0.0, "delta": 1.0}, 0.0),
        ({"delta": 0.0, "sampling_rate": 0.0}, 0.0),
        (UNSAMPLED | {"steps": 0}, 0.0),
        (UNSAMPLED | {"delta": 1.0}, 0.0),
        (UNSAMPLED | {"noise_multiplier": math.inf}, 0.0),
        (UNSAMPLED | {"delta": 0.0}, math.inf),
        (UNSAMPLED | {"noise_multiplier": 2.0**-10}, math.inf),
        ({"sampling_rate": 0.0, "adjacency": "replace-one"}, 0.0),
        ({"sampling_rate": 1e-300, "noise_multiplier": 2.0**-11}, math.inf),
        ({"sampling_rate": 1e-300}, 0.0),
        ({"noise_multiplier": 1e308}, 0.0),
        (UNSAMPLED | {"noise_multiplier": 1e308, "steps": 10**7}, 0.0),
    ],
    ids=str,
)
def test_edges_of_epsilon(edge: dict, expected: float, accountant: Accountant) -> None:
    assert epsilon(**edge, accountant=accountant) == expected


@pytest.mark.parametrize("accountant", ACCOUNTANTS)
@pytest.mark.parametrize(
    ("edge", "expected"),
    [
        ({"sampling_rate": 0.0}, 0.0),
        ({"steps": 0}, 0.0),
        ({"delta": 1.0}, 0.0),
        ({"epsilon": math.inf}, 0.0),
        ({"delta": 0.0}, math.inf),
        ({"epsilon": 0.0}, math.inf),
        ({"epsilon": 0.0, "steps": 0}, 0.0),
        (UNSAMPLED | {"epsilon": math.inf}, 0.0),
        (UNSAMPLED | {"epsilon": 0.0}, math.inf),
    ],
    ids=str,
)
def test_edges_of_the_noise(edge: dict, expected: float, accountant: Accountant) -> None:
    assert noise(**edge, accountant=accountant) == expected


@pytest.mark.parametrize(
    ("edge", "place"),
    [
        ({"sampling_rate": math.nan}, "sampling_rate"),
        ({"sampling_rate": -0.1}, "sampling_rate"),
        ({"sampling_rate": 1.1}, "sampling_rate"),
        ({"noise_multiplier": math.nan}, "noise_multiplier"),
        ({"noise_multiplier": -1.0}, "noise_multiplier"),
        ({"steps": -1}, "steps"),
        ({"steps": 10**7 + 1}, "steps"),
        ({"delta": math.nan}, "delta"),
        ({"delta": -1e-5}, "delta"),
        ({"delta": 1.5}, "delta"),
    ],
    ids=str,
)
def test_what_is_out_of_range_is_refused(edge: dict, place: str) -> None:
    with pytest.raises(UserError, match=rf"^{place}: expected a (whole )?number"):
        epsilon(**edge)


@pytest.mark.parametrize("target", [math.nan, -1.0])
def test_an_impossible_target_is_refused(target: float) -> None:
    with pytest.raises(UserError, match=r"^epsilon: expected a number of at least 0"):
        noise(target)


def test_a_target_that_no_noise_reaches_is_refused() -> None:
    with pytest.raises(UserError, match="raise epsilon or delta"):
        noise(1e-6, delta=1e-12, accountant="rdp")


def test_a_replaced_unit_that_is_always_there_needs_twice_the_noise() -> None:
    for accountant in ACCOUNTANTS:
        added = epsilon(1.0, 1.5, accountant=accountant)
        assert epsilon(1.0, 3.0, accountant=accountant, adjacency="replace-one") == added


@pytest.mark.parametrize("length", [0, -1, 2.5, math.nan, math.inf, 10**7 + 1])
@pytest.mark.parametrize("event", [Passes, TreePasses])
def test_a_pass_of_no_whole_length_is_refused(event: type, length: float) -> None:
    with pytest.raises(
        UserError, match=r"^pass_length: expected a whole number in \[1, 10000000\]"
    ):
        running_epsilon(event(length), noise_multiplier=1.0, delta=1e-5)


def test_what_no_accountant_knows_is_refused_with_a_reason() -> None:
    common: dict = {"noise_multiplier": 1.0, "delta": 1e-5}
    with pytest.raises(UserError, match=r"^adjacency: .*Poisson sampling.*accountant = pld$"):
        running_epsilon(Poisson(0.1), accountant="rdp", adjacency="replace-one", **common)
    with pytest.raises(UserError, match=r"^adjacency: .*set adjacency = add-remove$"):
        running_epsilon(
            Poisson(0.1), accountant="rdp", adjacency="replace-one", discrete=True, **common
        )
    with pytest.raises(UserError, match=r"^accountant: expected rdp for discrete noise"):
        running_epsilon(Poisson(0.0), accountant="pld", discrete=True, **common)
    with pytest.raises(UserError, match=r"^adjacency: .*Poisson sampling"):
        noise(accountant="rdp", adjacency="replace-one")


def test_a_refusal_comes_before_any_row_of_the_table() -> None:
    with pytest.raises(UserError, match=r"^steps: expected a whole number"):
        epsilon(0.0, steps=-1)
    with pytest.raises(UserError, match=r"^sampling_rate: expected a number"):
        noise(math.inf, 1.5)


# --- laws -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("event", "accountant", "adjacency", "discrete"),
    [
        (Poisson(0.1), "rdp", "add-remove", False),
        (Poisson(0.1), "pld", "replace-one", False),
        (Poisson(1.0), "rdp", "replace-one", False),
        (Poisson(0.1), "rdp", "add-remove", True),
        (Passes(4), "pld", "add-remove", False),
        (Passes(4), "rdp", "replace-one", True),
        (TreePasses(4), "rdp", "add-remove", False),
    ],
    ids=str,
)
def test_calibrating_to_what_was_spent_gives_the_noise_back_on_the_safe_side(
    event: Event, accountant: Accountant, adjacency: Adjacency, discrete: bool
) -> None:
    method: dict = {"accountant": accountant, "adjacency": adjacency, "discrete": discrete}

    def spent(noise: float) -> float:
        return running_epsilon(event, noise_multiplier=noise, delta=1e-5, **method)(10)

    found = calibrate(event, epsilon=spent(1.7), releases=10, delta=1e-5, **method)
    assert spent(found) <= spent(1.7)
    assert found == pytest.approx(1.7, rel=1e-3)


@pytest.mark.parametrize("accountant", ACCOUNTANTS)
@pytest.mark.parametrize("rate", [0.1, 1.0])
def test_the_noise_found_is_enough_and_hardly_more(rate: float, accountant: Accountant) -> None:
    found = noise(2.0, rate, accountant=accountant)
    assert epsilon(rate, found, accountant=accountant) <= 2.0
    assert epsilon(rate, found * 0.999, accountant=accountant) > 2.0


@pytest.mark.parametrize(
    ("accountant", "adjacency"),
    [("pld", "add-remove"), ("rdp", "add-remove"), ("pld", "replace-one")],
)
def test_more_rounds_more_clients_and_less_noise_cost_more(
    accountant: Accountant, adjacency: Adjacency
) -> None:
    def cost(**changes: float) -> float:
        given: dict = {"accountant": accountant, "adjacency": adjacency, **changes}
        return epsilon(**given)

    assert cost(steps=11) > cost()
    assert cost(sampling_rate=0.31) > cost()
    assert cost(noise_multiplier=1.45) > cost()
    assert cost(delta=1e-6) > cost()


def test_less_chance_shorter_passes_and_trees_cost_more() -> None:
    def cost(event: Event) -> float:
        return running_epsilon(event, noise_multiplier=1.5, delta=1e-5, accountant="rdp")(12)

    events = (Passes(12), Passes(6), TreePasses(6), TreePasses(3), Passes(1))
    costs = [cost(event) for event in events]
    assert costs == sorted(costs)
    assert len(set(costs)) == len(costs)


def test_replacing_a_unit_costs_more_than_adding_it_and_at_most_as_doing_both() -> None:
    added, replaced = epsilon(), epsilon(adjacency="replace-one")
    assert added < replaced < epsilon(1.0, 0.75)


@pytest.mark.parametrize("accountant", ACCOUNTANTS)
def test_the_running_figure_is_the_final_one_whenever_it_is_asked(accountant: Accountant) -> None:
    run = running_epsilon(Poisson(0.3), noise_multiplier=1.5, delta=1e-5, accountant=accountant)
    assert run(0) == 0.0
    assert [run(3), run(10), run(3)] == [
        epsilon(steps=steps, accountant=accountant) for steps in (3, 10, 3)
    ]


@pytest.mark.parametrize("sigma", [2.0**-10, 0.02, 1e3, 2.0**20])
@pytest.mark.parametrize("rate", [1e-7, 0.3, 1.0])
def test_extremes_stay_ordered_and_silent(
    rate: float, sigma: float, caplog: pytest.LogCaptureFixture
) -> None:
    found = {each: epsilon(rate, sigma, 5, accountant=each) for each in ACCOUNTANTS}
    assert 0 <= found["pld"] <= found["rdp"] * 1.001 < math.inf
    replaced = epsilon(rate, sigma, 5, adjacency="replace-one")
    # The two are rounded onto grids of their own.
    assert found["pld"] * 0.999 <= replaced <= epsilon(1.0, sigma / 2, 5) * 1.001
    assert not caplog.records


def test_without_the_extra_the_way_to_it_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "dp_accounting", None)
    with pytest.raises(UserError, match=r"pip install 'lepton-jax\[privacy\]'"):
        epsilon()


def test_the_accountants_version_is_the_installed_one(monkeypatch: pytest.MonkeyPatch) -> None:
    assert accountant_version() == f"dp-accounting {version('dp-accounting')}"
    monkeypatch.setitem(sys.modules, "dp_accounting", None)
    with pytest.raises(UserError, match=r"pip install 'lepton-jax\[privacy\]'"):
        accountant_version()
