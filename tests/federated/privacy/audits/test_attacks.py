"""Membership inference and gradient inversion: chance where nothing is told, more where it is."""

import jax
import numpy as np
import pytest

from federated.privacy.audits.inversion import Attacker, inversion, psnr
from federated.privacy.audits.membership import attack, confidence, membership
from federated.privacy.audits.picture import picture
from lepton_jax.checks import UserError
from lepton_jax.training.losses import cross_entropy
from tests.federated import tiny


def logits(rng: np.random.Generator, count: int, sure: float) -> tuple[np.ndarray, np.ndarray]:
    labels = rng.integers(4, size=count).astype(np.int32)
    scores = rng.normal(size=(count, 4)).astype(np.float32)
    scores[np.arange(count), labels] += np.float32(sure)
    return scores, labels


def test_who_cannot_be_told_apart_is_found_by_chance() -> None:
    rng = np.random.default_rng(0)
    found = membership(logits(rng, 3000, 2.0), logits(rng, 3000, 2.0))
    for each in (found.loss, found.likelihood):
        assert each.auc == pytest.approx(0.5, abs=0.03)
        assert each.hits < 0.03
        assert each.advantage < 0.06
    assert (found.members, found.others) == (3000, 3000)


def test_who_is_memorized_is_found() -> None:
    rng = np.random.default_rng(1)
    found = membership(logits(rng, 500, 9.0), logits(rng, 500, 1.0))
    for each in (found.loss, found.likelihood):
        assert each.auc > 0.95
        assert each.hits > 0.5


def test_an_attack_s_figures_are_those_of_counting_pairs() -> None:
    rng = np.random.default_rng(2)
    members, others = rng.integers(9, size=50) / 1.0, rng.integers(7, size=200) / 1.0
    wins = np.mean(members[:, None] > others) + np.mean(members[:, None] == others) / 2
    cut = np.sort(others)[-3]  # at most 2 of 200 are above
    found = attack(members, others)
    assert found.auc == pytest.approx(float(wins))
    assert found.hits == pytest.approx(float(np.mean(members > cut)))


def test_confidence_is_the_log_odds_and_does_not_overflow() -> None:
    scores = np.array([[1.0, 2.0, 0.5], [1e4, 0.0, 0.0]], np.float32)
    p = np.exp(1.0) / np.exp(scores[0]).sum()
    found = confidence(scores, np.array([0, 0], np.int32))
    assert found[0] == pytest.approx(np.log(p / (1 - p)), rel=1e-6)
    assert np.isfinite(found).all() and found[1] > 9000


def test_too_few_examples_are_refused() -> None:
    rng = np.random.default_rng(3)
    with pytest.raises(UserError, match=r"^membership"):
        membership(logits(rng, 10, 1.0), logits(rng, 2, 1.0))


# --- inversion ------------------------------------------------------------------------------------


def test_an_image_is_seen_in_its_own_update_and_not_in_a_noised_sum() -> None:
    model, examples = tiny.make_model(), tiny.make_examples(8)
    attacker = Attacker(
        model, cross_entropy(), model.init(jax.random.key(0)), clip_norm=0.5, multiplier=2.0
    )
    found = inversion(attacker, examples.images, examples.labels, victims=3, key=jax.random.key(1))
    assert found.plain.shape == found.original.shape == (3, *tiny.SHAPE)
    assert np.median(found.decibels["plain"]) > 20
    assert np.median(found.decibels["noised"]) < 14
    assert np.median(found.decibels["plain"]) > np.median(found.decibels["aggregated"]) + 5
    assert picture(found).startswith(b"\x89PNG")


def test_decibels_are_bounded_where_nothing_differs() -> None:
    same = np.zeros((1, 2, 2, 1))
    assert psnr(same, same).tolist() == [100.0]
