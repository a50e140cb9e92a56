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
    "noise": {"kind": "gaussian", "multiplier": 1.0},
    "stages": [{"kind": "clip", "max_norm": 1.0}],
    "weights": "uniform",
    "sampling": "poisson",
}
SECURE = {"kind": "secure"}
TREE = {"kind": "tree", "multiplier": 1.0}
BANDED = {"kind": "banded", "multiplier": 1.0}
LOCAL = {"kind": "local", "multiplier": 1.0}
DISTRIBUTED = {"kind": "distributed", "multiplier": 1.0}
HYPOTHETICAL = {"clients": 1000, "clients_per_round": 100}


def test_noise_with_all_that_its_guarantee_needs_is_accepted() -> None:
    assert msgspec.convert(NOISED, config.Federated).noise == config.Gaussian(multiplier=1.0)


@pytest.mark.parametrize(
    "change",
    [
        {"stages": [{"kind": "adaptive_clip"}, {"kind": "rotate"}]},
        {"weights": "examples", "weight_cap": 20},
        {"sampling": "cyclic"},
        {"noise": {"kind": "gaussian"}, "epsilon": 2.0},
        {"channel": SECURE},
        {"noise": TREE, "sampling": "cyclic"},
        {"noise": BANDED, "sampling": "cyclic"},
        {"noise": LOCAL, "sampling": "fixed"},
        {"noise": LOCAL},
        {"noise": DISTRIBUTED, "channel": SECURE, "accountant": "rdp"},
        {"hypothetical": HYPOTHETICAL},
        {"noise": None, "channel": SECURE, "sampling": "fixed"},
        {"noise": None, "channel": SECURE, "weights": "examples", "weight_cap": 20},
        {"noise": None, "example_privacy": {"noise_multiplier": 1.0}, "sampling": "fixed"},
    ],
)
def test_what_a_guarantee_can_be_made_of_is_accepted(change: dict) -> None:
    msgspec.convert(NOISED | change, config.Federated)


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"stages": []}, "need a finite bound"),
        ({"stages": [{"kind": "rotate"}]}, "need a finite bound"),
        ({"noise": None, "channel": SECURE, "stages": []}, "need a finite bound"),
        ({"weights": "examples"}, "unbounded"),
        ({"sampling": "fixed"}, "Poisson"),
        ({"noise": {"kind": "gaussian"}}, "noise.multiplier, epsilon or both, got neither"),
        ({"noise": {"kind": "gaussian", "multiplier": 0.0}}, "> 0"),
        ({"noise": TREE}, "correlated over rounds"),
        ({"noise": TREE, "sampling": "fixed"}, "Poisson"),
        ({"noise": BANDED}, "correlated over rounds"),
        ({"noise": BANDED | {"bands": 1}, "sampling": "cyclic"}, ">= 2"),
        ({"noise": DISTRIBUTED, "accountant": "rdp"}, "a plain channel shows each update"),
        ({"noise": DISTRIBUTED, "channel": SECURE}, 'set accountant = "rdp"'),
        ({"noise": LOCAL, "hypothetical": HYPOTHETICAL}, "hypothetical is for"),
        ({"sampling": "cyclic", "hypothetical": HYPOTHETICAL}, "hypothetical is for"),
        (
            {"hypothetical": {"clients": 10, "clients_per_round": 11}},
            r"clients_per_round <= clients \(10\), got 11",
        ),
        ({"noise": None, "epsilon": 1.0}, "are of noise, but `noise` is unset"),
        ({"noise": None, "hypothetical": HYPOTHETICAL}, "are of noise, but `noise` is unset"),
        ({"noise": None, "weight_cap": 3}, "weight_cap is of noise and secure sums"),
        ({"noise": None, "channel": SECURE, "weights": "examples"}, "secure sum unbounded"),
        ({"example_privacy": {"noise_multiplier": 1.0}}, "a run keeps one promise"),
        (
            {
                "noise": None,
                "example_privacy": {"noise_multiplier": 1.0},
                "weights": "examples",
            },
            "tell what a client has",
        ),
        ({"noise": None, "example_privacy": {}}, "noise_multiplier, epsilon or both"),
        ({"noise": None, "channel": SECURE | {"dropouts": 1.0}}, "< 1"),
    ],
)
def test_noise_without_its_guarantee_is_refused(change: dict, reason: str) -> None:
    with pytest.raises(msgspec.ValidationError, match=reason):
        msgspec.convert(NOISED | change, config.Federated)


def test_client_privacy_and_gradient_clipping_are_not_asked_for_together() -> None:
    tree = {"train": {"privacy": {"noise_multiplier": 1.0}, "clip_norm": 1.0}}
    with pytest.raises(msgspec.ValidationError, match="`privacy` clips each example's gradient"):
        msgspec.convert(tree, config.Run)
