"""What the server learns from a round: a mean, and with noise nothing that one client decides."""

import math
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from federated.aggregate import Aggregator, Collect, Encode, Message, aggregate
from federated.channel import Channel, plain
from federated.client import Update
from federated.privacy.noise import gaussian
from federated.stages import Stage, clip
from lepton_jax import metrics
from lepton_jax.checks import UserError
from lepton_jax.typing import PyTree, Variables
from tests.federated import tiny

KEY = jax.random.key(0)


def update(*values: float, mean: float = 0.0) -> Update:
    tally = metrics.Tally(jnp.float32(1), jnp.int32(2), jnp.int32(3))
    return Update({"w": jnp.array(values, jnp.float32)}, {"mean": jnp.float32(mean)}, tally)


def collector(aggregator: Aggregator, state: PyTree, *sent: tuple[Update, float]) -> Collect:
    """Goes over these updates and their weights as a round would."""

    def collect(encode: Encode, channel: Channel) -> Message:
        messages = [encode(state, each, jnp.float32(weight)) for each, weight in sent]
        total = channel.zero(messages[0])
        for message in messages:
            total = channel.add(total, message)
        return total

    return collect


def mean(aggregator: Aggregator, *sent: tuple[Update, float]) -> tuple[Variables, Any]:
    stats = {} if math.isfinite(aggregator.bound) else sent[0][0].stats
    state = aggregator.init(Variables(sent[0][0].delta, stats))
    out, _, report = aggregator.apply(state, collector(aggregator, state, *sent), KEY)
    return out, report


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
    loose = Stage("loose", lambda p: (), lambda s, u: (u, {}), lambda s, c: s, lambda n: math.inf)
    with pytest.raises(UserError, match=r"got chain \[clip, loose\], which has none"):
        aggregate([clip(1.0), loose], plain(), gaussian(1.0, clients=10))


def test_noise_takes_its_deviation_from_the_chain_s_bound() -> None:
    zero = (update(*[0.0] * 5000), 1.0)
    aggregator = aggregate([clip(4.0), clip(0.5)], plain(), gaussian(3.0, clients=5))
    assert aggregator.bound == 0.5
    out, _ = mean(aggregator, zero)
    assert np.std(out.params["w"]) == pytest.approx(3.0 * 0.5 / 5, rel=0.05)


def test_with_noise_a_client_counts_1_and_the_divisor_is_the_expected_number() -> None:
    aggregator = aggregate([clip(10.0)], plain(), gaussian(0.0, clients=4))
    out, _ = mean(aggregator, (update(1.0, 2.0), 500.0), (update(3.0, 0.0), 1.0))
    np.testing.assert_allclose(out.params["w"], [1.0, 0.5])


def test_no_client_moves_the_noised_sum_by_more_than_the_bound() -> None:
    aggregator = aggregate([clip(1.0)], plain(), gaussian(0.7, clients=1))
    others = [(update(0.2, 0.1), 1.0), (update(-5.0, 3.0), 1.0)]
    without, _ = mean(aggregator, *others)
    for loud in (update(1e20, 1e30), update(math.inf, 0.0), update(-3.0, 4.0)):
        with_it, _ = mean(aggregator, *others, (loud, 1e9))
        moved = np.asarray(with_it.params["w"], np.float64) - np.asarray(without.params["w"])
        assert np.linalg.norm(moved) <= 1.0 + 1e-6  # the difference of two rounded sums


def test_shared_statistics_are_refused_with_noise() -> None:
    aggregator = aggregate([clip(1.0)], plain(), gaussian(1.0, clients=10))
    with pytest.raises(UserError, match=r"^model\.norm: expected 'group' or 'none' with gaussian"):
        aggregator.init(Variables({"w": jnp.zeros(2)}, {"mean": jnp.float32(0)}))
