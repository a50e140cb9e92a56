"""Published figures, the edge table row by row, and the laws of composition."""

import math
import sys

import pytest

from lepton_jax.checks import UserError
from lepton_jax.privacy import accounting
from lepton_jax.privacy.accounting import Accountant, Poisson

ACCOUNTANTS: tuple[Accountant, ...] = ("pld", "rdp")
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
) -> float:
    return accounting.epsilon(
        sampling_rate=sampling_rate,
        noise_multiplier=noise_multiplier,
        steps=steps,
        delta=delta,
        accountant=accountant,
    )


def noise(
    epsilon: float = 2.0,
    sampling_rate: float = 0.3,
    steps: int = 10,
    delta: float = 1e-5,
    accountant: Accountant = "pld",
) -> float:
    return accounting.noise_multiplier(
        epsilon=epsilon,
        sampling_rate=sampling_rate,
        steps=steps,
        delta=delta,
        accountant=accountant,
    )


@pytest.mark.parametrize(("rate", "sigma", "steps", "rdp", "pld"), GOLDEN)
def test_known_figures(rate: float, sigma: float, steps: int, rdp: float, pld: float) -> None:
    assert epsilon(rate, sigma, steps, accountant="rdp") == pytest.approx(rdp, abs=1e-3)
    assert epsilon(rate, sigma, steps, accountant="pld") == pytest.approx(pld, rel=1e-3)


def test_one_unsampled_round_is_the_gaussian_mechanism() -> None:
    """The exact delta is that of Balle and Wang (2018), theorem 5."""
    sigma, found = 2.0, epsilon(1.0, 2.0, 1)

    def normal_cdf(x: float) -> float:
        return 0.5 * math.erfc(-x / math.sqrt(2))

    delta = normal_cdf(0.5 / sigma - found * sigma) - math.exp(found) * normal_cdf(
        -0.5 / sigma - found * sigma
    )
    assert delta == pytest.approx(1e-5, rel=0.01)
    assert delta <= 1e-5


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
    with pytest.raises(UserError, match=rf"^{place}: expected a number"):
        epsilon(**edge)


@pytest.mark.parametrize("target", [math.nan, -1.0])
def test_an_impossible_target_is_refused(target: float) -> None:
    with pytest.raises(UserError, match=r"^epsilon: expected a number of at least 0"):
        noise(target)


def test_a_target_that_no_noise_reaches_is_refused() -> None:
    with pytest.raises(UserError, match="raise epsilon or delta"):
        noise(1e-6, delta=1e-12, accountant="rdp")


@pytest.mark.parametrize("accountant", ACCOUNTANTS)
@pytest.mark.parametrize("rate", [0.1, 1.0])
def test_the_noise_found_is_enough_and_hardly_more(rate: float, accountant: Accountant) -> None:
    found = noise(2.0, rate, accountant=accountant)
    assert epsilon(rate, found, accountant=accountant) <= 2.0
    assert epsilon(rate, found * 0.999, accountant=accountant) > 2.0


@pytest.mark.parametrize("accountant", ACCOUNTANTS)
def test_more_rounds_more_clients_and_less_noise_cost_more(accountant: Accountant) -> None:
    base = epsilon(accountant=accountant)
    assert epsilon(steps=11, accountant=accountant) > base
    assert epsilon(sampling_rate=0.31, accountant=accountant) > base
    assert epsilon(noise_multiplier=1.45, accountant=accountant) > base
    assert epsilon(delta=1e-6, accountant=accountant) > base


@pytest.mark.parametrize("accountant", ACCOUNTANTS)
def test_the_running_figure_is_the_final_one_whenever_it_is_asked(accountant: Accountant) -> None:
    run = accounting.running_epsilon(
        Poisson(0.3), noise_multiplier=1.5, delta=1e-5, accountant=accountant
    )
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
    assert not caplog.records


def test_without_the_extra_the_way_to_it_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "dp_accounting", None)
    with pytest.raises(UserError, match=r"pip install 'lepton-jax\[privacy\]'"):
        epsilon()
