"""What the server learns from a round: a mean, and with noise nothing that one client decides."""

import math
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from federated.aggregate import Aggregator, Message, State, aggregate
from federated.channel import HostChannel, plain
from federated.client import Update
from federated.privacy.client_noise import local
from federated.privacy.noise import MOST_SUM, Drawn, gaussian
from federated.stages import Stage, clip
from lepton_jax import metrics
from lepton_jax.checks import UserError
from lepton_jax.privacy.entropy import seeded_source
from lepton_jax.typing import Variables
from tests.federated import tiny

ELSEWHERE = HostChannel("sums elsewhere", lambda round, ids, sent: sent)


def update(*values: float, mean: float = 0.0) -> Update:
    tally = metrics.Tally(jnp.float32(1), jnp.int32(2), jnp.int32(3))
    return Update({"w": jnp.array(values, jnp.float32)}, {"mean": jnp.float32(mean)}, tally)


def without_noise(drawn: Drawn) -> Drawn:
    """The same, but that all noise came out as 0."""
    return jax.tree.map(np.zeros_like, drawn)._replace(expected=drawn.expected)


def messages(
    aggregator: Aggregator, state: State, drawn: Drawn, *sent: tuple[Update, float]
) -> list[Message]:
    """What these clients send, with these weights."""
    own = [jax.tree.map(lambda x, i=i: x[i], drawn.clients) for i in range(len(sent))]
    return [
        aggregator.encode(state, each, jnp.float32(weight), mine)
        for (each, weight), mine in zip(sent, own, strict=True)
    ]


def total(sent: list[Message]) -> Message:
    """Their sum, as a round makes it."""
    channel = plain()
    out = channel.zero(sent[0])
    for message in sent:
        out = channel.add(out, message)
    return out


def start(aggregator: Aggregator, first: Update) -> tuple[Variables, State]:
    stats = {} if math.isfinite(aggregator.bound) else first.stats
    variables = Variables(first.delta, stats)
    return variables, aggregator.init(variables)


def mean(
    aggregator: Aggregator, *sent: tuple[Update, float], silent: bool = False
) -> tuple[Variables, Any]:
    variables, state = start(aggregator, sent[0][0])
    present = sum(weight > 0 for _, weight in sent)
    drawn = aggregator.draw(variables.params, seeded_source(0), present, len(sent))
    drawn = without_noise(drawn) if silent else drawn
    summed = total(messages(aggregator, state, drawn, *sent))
    out, _, report = aggregator.decode(state, summed, drawn, variables)
    return out, report


def whole(aggregator: Aggregator, *sent: tuple[Update, float]) -> list[np.ndarray]:
    """The whole numbers that each client sends."""
    state = start(aggregator, sent[0][0])[1]
    return [
        np.asarray(each.delta["w"], np.int64)
        for each in messages(aggregator, state, Drawn(), *sent)
    ]


def test_without_noise_the_mean_is_weighted() -> None:
    out, report = mean(aggregate([], plain(), None), (update(1, 2, mean=4), 1), (update(5, 2), 3))
    np.testing.assert_allclose(out.params["w"], [4.0, 2.0])
    assert float(out.stats["mean"]) == 1.0
    assert int(report.clients) == 2
    assert jax.tree.map(int, report.tally) == (2, 4, 6)


def test_an_infinite_clip_without_noise_is_the_plain_mean() -> None:
    sent = [(update(1e9, -2, mean=1), 1.5), (update(0.3, 0.1), 2.0), (update(7, 7), 0.25)]
    expected, _ = mean(aggregate([], plain(), None), *sent)
    tiny.same(mean(aggregate([clip(math.inf)], plain(), None), *sent)[0], expected)


def test_an_empty_slot_contributes_exactly_nothing() -> None:
    sent = [(update(1.1, 2.7), 3.0), (update(0.3, -0.1), 5.0)]
    empty = (update(0.0, 0.0)._replace(tally=metrics.zero_tally()), 0.0)
    for noise in (None, gaussian(0.5, clients=2)):
        aggregator = aggregate([clip(1.0)], plain(), noise)
        tiny.same(mean(aggregator, *sent), mean(aggregator, *sent, empty, empty))


def test_an_empty_slot_is_given_noise_and_adds_none() -> None:
    aggregator = aggregate([clip(1.0)], plain(), local(0.5, clients=2))
    sent = [(update(1.0, 2.0), 1.0), (update(7.0, math.nan), 0.0), (update(0.0, 0.0), 0.0)]
    variables, state = start(aggregator, sent[0][0])
    drawn = aggregator.draw(variables.params, seeded_source(0), 1, 3)
    assert np.count_nonzero(drawn.clients["w"]) == 6
    there, *empty = messages(aggregator, state, drawn, *sent)
    assert np.asarray(there.delta["w"]).all() and int(there.report.clients) == 1
    for each in empty:
        assert not np.asarray(each.delta["w"]).any()
        assert int(each.weight) == int(each.report.clients) == 0


def test_a_client_that_diverged_does_not_spread_behind_a_clip() -> None:
    good = (update(0.3, 0.4, mean=0.2), 1.0)
    bad = (update(math.nan, 1.0, mean=math.inf), 1.0)
    out, report = mean(aggregate([clip(math.inf)], plain(), None), good, bad)
    np.testing.assert_allclose(out.params["w"], [0.15, 0.2])
    assert float(out.stats["mean"]) == pytest.approx(0.1)
    assert jax.tree.map(int, report.counts) == ({"clipped": 0, "discarded": 1},)


def test_without_stages_a_client_that_diverged_is_noticed() -> None:
    out, _ = mean(aggregate([], plain(), None), (update(1.0), 1.0), (update(math.nan), 1.0))
    assert np.isnan(out.params["w"]).all()


def test_an_empty_cohort_leaves_the_mean_at_zero_or_releases_noise_alone() -> None:
    empty = (update(*[0.0] * 5000), 0.0)
    still, report = mean(aggregate([clip(1.0)], plain(), None), empty)
    assert not np.asarray(still.params["w"]).any() and int(report.clients) == 0
    noised, _ = mean(aggregate([clip(3.0)], plain(), gaussian(2.0, clients=10)), empty)
    assert np.std(noised.params["w"]) == pytest.approx(2.0 * 3.0 / 10, rel=0.05)


# --- with noise -----------------------------------------------------------------------------------


def test_noise_needs_a_finite_bound() -> None:
    nothing = "chain [], which has none; put clip(max_norm) before it"
    with pytest.raises(UserError) as refusal:
        aggregate([], plain(), gaussian(1.0, clients=10))
    assert str(refusal.value) == f"gaussian noise: expected a finite bound before it, got {nothing}"
    with pytest.raises(UserError, match=r"got chain \[clip\], which has none"):
        aggregate([clip(math.inf)], plain(), gaussian(1.0, clients=10))


def test_noise_is_refused_after_a_stage_that_loses_the_bound() -> None:
    loose = Stage(
        "loose", lambda p: (), lambda s, u: (u, {}), lambda s, m, c: (m, s), lambda n: math.inf
    )
    with pytest.raises(UserError, match=r"got chain \[clip, loose\], which has none"):
        aggregate([clip(1.0), loose], plain(), gaussian(1.0, clients=10))


def test_noise_takes_its_deviation_from_the_chain_s_bound() -> None:
    zero = (update(*[0.0] * 5000), 1.0)
    aggregator = aggregate([clip(4.0), clip(0.5)], plain(), gaussian(3.0, clients=5))
    assert aggregator.bound == 0.5
    out, _ = mean(aggregator, zero)
    assert np.std(out.params["w"]) == pytest.approx(3.0 * 0.5 / 5, rel=0.05)


def test_with_noise_a_client_counts_1_and_the_divisor_is_the_expected_number() -> None:
    noise = gaussian(1.0, clients=4)
    sent = (update(1.0, 2.0), 500.0), (update(3.0, 0.0), 1.0)
    out, _ = mean(aggregate([clip(10.0)], plain(), noise), *sent, silent=True)
    np.testing.assert_allclose(out.params["w"], [1.0, 0.5], rtol=0, atol=noise.grid(10.0).unit)


def test_a_weight_below_1_counts_as_much_and_the_divisor_stays() -> None:
    noise = gaussian(1.0, clients=4)
    sent = (update(1.0, 2.0), 0.25), (update(3.0, 0.0), 0.5)
    out, _ = mean(aggregate([clip(10.0)], plain(), noise), *sent, silent=True)
    np.testing.assert_allclose(out.params["w"], [0.4375, 0.125], atol=noise.grid(10.0).unit)


LOUD = [
    (update(1e20, 1e30), 1e9),
    (update(3.0, 4.0), math.inf),
    (update(-3.0, 4.0), math.nan),
    (update(math.inf, 0.0), 1.0),
    (update(math.nan, 0.0), 1.0),
    (update(3e38, 3e38), 1.0),
    (update(0.6, 0.8), 1.0),
    (update(1e-40, -1e-40), 1.0),
]


@pytest.mark.parametrize("multiplier", [0.01, 0.7, 50.0])
def test_no_client_moves_the_noised_sum_by_more_than_the_bound(multiplier: float) -> None:
    noise = gaussian(multiplier, clients=1, most=64)
    steps = noise.grid(1.0).bound
    sent = whole(aggregate([clip(1.0)], plain(), noise), *LOUD)
    squares = [int(each @ each) for each in sent]
    assert max(squares) <= steps**2
    assert squares[6] >= (steps * (1 - 2**-16) - 2) ** 2  # and the bound is not wasted
    assert not any(sent[i].any() for i in (2, 3, 4, 7))


@pytest.mark.parametrize("size", [10_000, 300_000])
def test_rounding_lengthens_no_share_beyond_the_bound(size: int) -> None:
    noise = gaussian(8.0, clients=1)  # so coarse that most numbers are 0 or 1 steps
    steps, rng = noise.grid(1.0).bound, np.random.default_rng(0)
    aggregator = aggregate([clip(1.0)], plain(), noise)
    for values in (rng.standard_normal(size), np.full(size, 1.0), rng.standard_cauchy(size)):
        sent = Update({"w": jnp.array(values, jnp.float32)}, {}, metrics.zero_tally())
        (share,) = whole(aggregator, (sent, 1.0))
        assert 0 < int(share @ share) <= steps**2


def test_shared_statistics_are_refused_with_noise() -> None:
    aggregator = aggregate([clip(1.0)], plain(), gaussian(1.0, clients=10))
    with pytest.raises(UserError, match=r"^model\.norm: expected 'group' or 'none' with gaussian"):
        aggregator.init(Variables({"w": jnp.zeros(2)}, {"mean": jnp.float32(0)}))


# --- whole numbers --------------------------------------------------------------------------------


@pytest.mark.parametrize("most", [1, 64, 4096])
@pytest.mark.parametrize("multiplier", [0.01, 1.0, 60.0])
def test_no_sum_of_most_clients_and_the_greatest_noise_wraps(multiplier: float, most: int) -> None:
    noise = gaussian(multiplier, clients=1, most=most)
    grid = noise.grid(1.0)
    aggregator = aggregate([clip(1.0)], plain(), noise)
    assert aggregator.most == most
    for sign in (1.0, -1.0):
        (share,) = whole(aggregator, (update(sign), 1.0))
        assert abs(int(share[0])) >= grid.bound * (1 - 2**-16) - 2
        assert abs(most * int(share[0])) + math.ceil(13.5 * grid.deviation) < MOST_SUM


def test_without_noise_a_sum_made_elsewhere_is_of_whole_numbers_that_do_not_wrap() -> None:
    aggregator = aggregate([clip(2.0)], ELSEWHERE, None)
    assert (aggregator.bound, aggregator.most) == (2.0, 4096)
    for sign in (1.0, -1.0):
        (share,) = whole(aggregator, (update(9.0 * sign), 1.0))
        assert 500_000 < sign * int(share[0]) <= MOST_SUM // 4096


def test_without_noise_a_sum_made_elsewhere_gives_the_weighted_mean() -> None:
    sent = [(update(1.0, 2.0), 1.0), (update(5.0, -2.0), 0.25), (update(9.0, 9.0), 0.0)]
    expected, _ = mean(aggregate([clip(9.0)], plain(), None), *sent)
    variables, state = start(aggregator := aggregate([clip(9.0)], ELSEWHERE, None), sent[0][0])
    out, _, report = aggregator.decode(
        state, total(messages(aggregator, state, Drawn(), *sent)), Drawn(), variables
    )
    np.testing.assert_allclose(
        out.params["w"], np.asarray(expected.params["w"]), atol=9.0 / (MOST_SUM // 4096)
    )
    assert int(report.clients) == 2


def test_a_sum_made_elsewhere_needs_a_bound_and_no_statistics() -> None:
    with pytest.raises(UserError, match=r"^sums elsewhere: expected a finite bound before it"):
        aggregate([], ELSEWHERE, None)
    aggregator = aggregate([clip(1.0)], ELSEWHERE, None)
    with pytest.raises(UserError, match=r"^model\.norm: .* with sums elsewhere"):
        aggregator.init(Variables({"w": jnp.zeros(2)}, {"mean": jnp.float32(0)}))


def test_without_noise_nothing_is_drawn_and_no_source_is_read() -> None:
    def fails(n: int) -> np.ndarray:
        raise AssertionError("a word was drawn")

    source = seeded_source(0)._replace(words=fails)
    for aggregator in (aggregate([], plain(), None), aggregate([clip(1.0)], ELSEWHERE, None)):
        assert aggregator.draw({"w": jnp.zeros(2)}, source, 1, 1) == Drawn()
    assert math.inf == aggregate([], plain(), None).most
