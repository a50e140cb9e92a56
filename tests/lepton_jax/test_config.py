"""Combinations that can't work are refused when they are written, not when they are reached."""

import msgspec
import pytest

from lepton_jax import config


def test_every_default_is_a_valid_run() -> None:
    assert msgspec.convert({}, config.Run) == config.Run()


def test_a_run_is_frozen() -> None:
    with pytest.raises(AttributeError):
        config.Run().seed = 1


@pytest.mark.parametrize(
    ("tree", "place", "reason"),
    [
        ({"data": {"name": "folder"}}, "data", "needs `path`"),
        (
            {"data": {"augment": [{"kind": "contrast", "lower": 2.0}]}},
            "augment[0]",
            "lower <= upper",
        ),
        ({"model": {"name": "cnn"}}, "model", "needs `blocks`"),
        (
            {"train": {"optimizer": {"kind": "sgd", "nesterov": True}}},
            "optimizer",
            "momentum above 0",
        ),
        ({"train": {"epochs": 2, "warmup_epochs": 2}}, "train", "warmup_epochs < epochs"),
        ({"federated": {"regions": []}}, "federated", "at least one name"),
        ({"federated": {"regions": ["a", "a"]}}, "federated", "distinct"),
        ({"federated": {"clients": 2}}, "federated", "at least one client a region"),
        ({"federated": {"clients_per_round": 31}}, "federated", "clients_per_round <= clients"),
    ],
)
def test_an_impossible_combination_is_refused(tree: dict, place: str, reason: str) -> None:
    with pytest.raises(msgspec.ValidationError) as refusal:
        msgspec.convert(tree, config.Run)
    assert reason in str(refusal.value)
    assert place in str(refusal.value)


NOISED: dict = {
    "noise": {"multiplier": 1.0},
    "stages": [{"kind": "clip", "max_norm": 1.0}],
    "weights": "uniform",
    "sampling": "poisson",
}


def test_noise_with_all_that_its_guarantee_needs_is_accepted() -> None:
    assert msgspec.convert(NOISED, config.Federated).noise == config.Gaussian(multiplier=1.0)


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"stages": []}, "needs a finite bound"),
        ({"weights": "examples"}, "unbounded"),
        ({"sampling": "fixed"}, "Poisson"),
    ],
)
def test_noise_without_its_guarantee_is_refused(change: dict, reason: str) -> None:
    with pytest.raises(msgspec.ValidationError, match=reason):
        msgspec.convert(NOISED | change, config.Federated)
