"""Bugs that a config would be: each is refused in one line, before any data are loaded."""

import re

import pytest

from federated.aggregate import aggregate
from federated.channel import plain
from federated.parts import check
from federated.privacy.make import make_noise
from federated.privacy.promise import promise
from federated.sampling import make_sampler
from federated.stages import make_stage
from lepton_jax import config_files
from lepton_jax.checks import UserError
from lepton_jax.training.private import check_private
from lepton_jax.training.private_run import private_promise

CLIENTS = (
    'federated.noise={kind="gaussian", multiplier=1.0}',
    "federated.sampling=poisson",
    "federated.weights=uniform",
    'federated.stages=[{kind="clip", max_norm=1.0}]',
    "data.normalization=unit",
)
EXAMPLES = (
    "train.privacy.noise_multiplier=1.0",
    "model.norm=group",
    "data.normalization=unit",
)
OWN = ("federated.noise=none", "federated.stages=[]", "federated.example_privacy={epsilon=1.0}")


def begin_clients(*changes: str) -> None:
    """What a simulation does before it loads data."""
    run = config_files.load("digits_federated", (*CLIENTS, *changes))
    check(run, None)
    sampler = make_sampler(run.federated, run.seed)
    promised = promise(run.federated, sampler, 1.0)
    assert promised is not None
    noise = make_noise(run.federated, promised.terms, sampler)
    aggregate([make_stage(each) for each in run.federated.stages], plain(), noise)


def begin_examples(*changes: str) -> None:
    """What a training run does before it loads data, and what it promises."""
    run = config_files.load("digits_central", (*EXAMPLES, *changes))
    check_private(run, "train.privacy")
    private_promise(run, 1000)


def test_what_is_right_is_not_refused() -> None:
    begin_clients()
    begin_clients(*OWN)
    begin_examples()


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        (("model.norm=batch",), "model.norm: expected 'group' or 'none'"),
        (("data.normalization=standard",), "data.normalization: expected one that tells nothing"),
        (("federated.weights=examples",), "sum unbounded"),
        (("federated.stages=[]",), "need a finite bound, but `stages` has none"),
        (('federated.stages=[{kind="rotate"}]',), "need a finite bound, but `stages` has none"),
        (('federated.stages=[{kind="clip", max_norm=inf}]',), "expected a finite"),
        (("federated.noise.multiplier=0.0",), "noise.multiplier: expected float > 0.0"),
        (("federated.noise.multiplier=none",), "expected noise.multiplier, epsilon or both"),
        (("federated.sampling=fixed",), "Poisson-sampled or known beforehand"),
        (("federated.noise.kind=tree",), "cohorts that are not chosen at random"),
        (("federated.noise.kind=banded",), "cohorts that are not chosen at random"),
        (
            ('federated.noise={kind="banded", multiplier=1.0, bands=9}', "federated.sampling=cyclic"),
            "bands: expected at most the 2 releases",
        ),
        (("federated.noise.kind=distributed",), "a plain channel shows each update"),
        (
            (
                "federated.noise.kind=distributed",
                'federated.channel={kind="secure", dropouts=0.1}',
                "federated.accountant=rdp",
            ),
            "would tell how many were chosen at random",
        ),
        (
            ("federated.noise.kind=distributed", 'federated.channel={kind="secure"}'),
            "discrete noise is accounted by Renyi divergence",
        ),
        (
            ("federated.accountant=rdp", "federated.adjacency=replace-one"),
            "adjacency: expected add-remove for Poisson sampling with rdp",
        ),
        (("federated.noise=none", "federated.epsilon=1.0"), "are of noise, but `noise` is unset"),
        (("federated.delta=0.0",), "federated.delta: expected float > 0.0"),
        (OWN[2:], "a run keeps one promise"),
        ((*OWN, "federated.weights=examples"), "tell what a client has"),
        ((*OWN, "model.norm=batch"), "model.norm: expected 'group' or 'none'"),
        ((*OWN, "data.normalization=standard"), "expected one that tells nothing"),
    ],
)  # fmt: skip
def test_a_federated_misuse_is_refused(changes: tuple[str, ...], words: str) -> None:
    with pytest.raises(UserError, match=re.escape(words)) as refusal:
        begin_clients(*changes)
    assert "\n" not in str(refusal.value)


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        (("model.norm=batch",), "model.norm: expected 'group' or 'none'"),
        (("data.normalization=standard",), "data.normalization: expected one that tells nothing"),
        (("train.privacy.noise_multiplier=0.0",), "noise_multiplier: expected float > 0.0"),
        (("train.privacy.noise_multiplier=none",), "expected noise_multiplier, epsilon or both"),
        (("train.privacy.delta=1.0",), "delta: expected float < 1.0"),
        (("train.clip_norm=1.0",), "remove clip_norm"),
        (
            ("train.privacy.accountant=rdp", "train.privacy.adjacency=replace-one"),
            "adjacency: expected add-remove for Poisson sampling with rdp",
        ),
    ],
)
def test_a_central_misuse_is_refused(changes: tuple[str, ...], words: str) -> None:
    with pytest.raises(UserError, match=re.escape(words)) as refusal:
        begin_examples(*changes)
    assert "\n" not in str(refusal.value)
