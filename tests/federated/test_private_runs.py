"""Private runs: every kind of noise, from config to ledger, in secure and in reproducible mode."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec
import pytest

from federated import simulate
from lepton_jax import config
from lepton_jax.checks import UserError
from lepton_jax.privacy.accounting import spending
from lepton_jax.privacy.terms import Terms
from lepton_jax.training import Result, finish
from lepton_jax.training.ledger import read_ledger
from lepton_jax.training.records import read_json, read_records
from tests.federated import tiny

CLIP = (config.Clip(max_norm=0.5),)
SETTINGS: dict[str, Any] = {
    "rounds": 4,
    "clients": 6,
    "regions": ("north", "south"),
    "partition": config.Iid(size_sigma=0.5),
    "clients_per_round": 3,
    "batch_size": 4,
    "client": config.Sgd(learning_rate=1.0),
    "over": "scan",
    "evaluate_every": 2,
    "weights": "uniform",
    "stages": CLIP,
}
KINDS: dict[str, dict[str, Any]] = {
    "gaussian": {"noise": config.Gaussian(multiplier=0.8), "sampling": "poisson"},
    "weighted": {
        "noise": config.Gaussian(multiplier=0.8),
        "sampling": "poisson",
        "weights": "examples",
        "weight_cap": 8,
    },
    "cyclic": {"noise": config.Gaussian(multiplier=0.8), "sampling": "cyclic"},
    "adaptive": {
        "noise": config.Gaussian(multiplier=0.8),
        "sampling": "poisson",
        "stages": (config.AdaptiveClip(), config.Rotate()),
    },
    "tree": {"noise": config.Tree(multiplier=0.8), "sampling": "cyclic"},
    "banded": {"noise": config.Banded(multiplier=0.8, bands=2), "sampling": "cyclic"},
    "local": {"noise": config.Local(multiplier=0.8)},
    "example": {
        "example_privacy": config.ClientPrivacy(noise_multiplier=0.8, sampling_rate=0.4),
        "stages": (),
    },
    "distributed": {
        "noise": config.Distributed(multiplier=0.8),
        "sampling": "cyclic",
        "clients": 8,
        "clients_per_round": 4,
        "channel": config.Secure(dropouts=0.25),
        "accountant": "rdp",
    },
}


def make_run(**changes: Any) -> config.Run:
    return config.Run(
        name="tiny",
        data=config.Data(normalization="unit"),
        model=config.Model(norm="group"),
        federated=config.Federated(**{**SETTINGS, **changes}),
    )


@pytest.fixture(scope="module", autouse=True)
def replaced() -> Iterator[None]:
    yield from tiny.replaced_by(tiny.make_model())


def terms_of(folder: Path) -> Terms:
    return msgspec.convert(read_ledger(folder)[0]["body"]["terms"], Terms)


def charged(folder: Path) -> list[tuple[int, int]]:
    bodies = [each["body"] for each in read_ledger(folder) if each["kind"] == "release"]
    return [(body["number"], body["releases"]) for body in bodies]


def check_books(folder: Path, result: Result) -> None:
    """Fails where the told epsilon isn't that of the ledger's charges under the ledger's terms."""
    terms = terms_of(folder)
    assert result.epsilon == spending(terms)(sum(releases for _, releases in charged(folder)))
    assert (result.delta, result.randomness) == (terms.delta, terms.randomness)


def reproducible(settings: dict[str, Any]) -> config.Run:
    local = settings.get("example_privacy")
    if local is None:
        return make_run(**settings, randomness="reproducible")
    local = msgspec.structs.replace(local, randomness="reproducible")
    return make_run(**{**settings, "example_privacy": local})


@pytest.mark.parametrize("kind", KINDS)
def test_every_kind_of_noise_trains_and_keeps_its_books(kind: str, tmp_path: Path) -> None:
    result = finish(simulate(make_run(**KINDS[kind]), tmp_path / "run"))
    assert [number for number, _ in charged(tmp_path / "run")] == [1, 2, 3, 4]
    records = read_records(tmp_path / "run" / "metrics.jsonl")
    assert records[-1]["epsilon"] == result.epsilon
    told = read_json(tmp_path / "run" / "evaluation.json")["not_private"]
    assert told == ["clients", "regions", "client_percentiles"]
    assert {*told, *records[-1]["not_private"]} == set(result.not_private or ())
    check_books(tmp_path / "run", result)


@pytest.mark.parametrize("kind", KINDS)
def test_a_reproducible_run_resumes_bitwise_and_is_charged_once(kind: str, tmp_path: Path) -> None:
    run = reproducible(KINDS[kind])
    whole = finish(simulate(run, tmp_path / "whole"))
    progress = simulate(run, tmp_path / "parts")
    for _ in range(3):
        next(progress)
    progress.close()
    resumed = finish(simulate(run, tmp_path / "parts", resume=True))
    assert resumed.params_sha256 == whole.params_sha256
    assert resumed.epsilon == whole.epsilon
    assert charged(tmp_path / "parts") == charged(tmp_path / "whole")


def test_a_secure_round_that_is_done_again_is_charged_again(tmp_path: Path) -> None:
    run = msgspec.structs.replace(
        make_run(**KINDS["gaussian"]), checkpoint=config.Checkpoint(every=2)
    )
    progress = simulate(run, tmp_path / "run")
    for _ in range(3):
        next(progress)
    progress.close()
    result = finish(simulate(run, tmp_path / "run", resume=True))
    numbers = [number for number, _ in charged(tmp_path / "run")]
    assert numbers == [1, 2, 3, 3, 4]
    check_books(tmp_path / "run", result)


def test_a_cyclic_round_that_is_done_again_costs_a_whole_pass(tmp_path: Path) -> None:
    run = msgspec.structs.replace(make_run(**KINDS["tree"]), checkpoint=config.Checkpoint(every=2))
    progress = simulate(run, tmp_path / "run")
    for _ in range(3):
        next(progress)
    progress.close()
    finish(simulate(run, tmp_path / "run", resume=True))
    assert charged(tmp_path / "run") == [(1, 1), (2, 1), (3, 1), (3, 2), (4, 1)]


def test_secure_noise_is_new_in_every_run_and_reproducible_noise_is_not(tmp_path: Path) -> None:
    ends: dict[str, list[str]] = {"secure": [], "reproducible": []}
    for randomness, found in ends.items():
        for i in range(2):
            run = make_run(**KINDS["gaussian"], randomness=randomness)
            found.append(finish(simulate(run, tmp_path / f"{randomness}{i}")).params_sha256)
    assert ends["secure"][0] != ends["secure"][1]
    assert ends["reproducible"][0] == ends["reproducible"][1]


def test_the_budget_ends_a_run_before_the_round_that_would_pass_it(tmp_path: Path) -> None:
    whole = finish(simulate(make_run(**KINDS["gaussian"]), tmp_path / "whole"))
    spent = [each["epsilon"] for each in read_records(tmp_path / "whole" / "metrics.jsonl")]
    budget = (spent[1] + spent[2]) / 2
    result = finish(simulate(make_run(**KINDS["gaussian"], epsilon=budget), tmp_path / "run"))
    assert (result.rounds, result.stopped, result.epsilon) == (2, "budget", spent[1])
    assert whole.stopped is None
    assert [each["kind"] for each in read_ledger(tmp_path / "run")][-2:] == ["stop", "end"]


def test_noise_is_calibrated_to_a_budget_where_none_is_given(tmp_path: Path) -> None:
    changes = {**KINDS["gaussian"], "noise": config.Gaussian(), "epsilon": 3.0}
    result = finish(simulate(make_run(**changes), tmp_path / "run"))
    assert result.rounds == 4 and result.stopped is None
    assert 2.99 < (result.epsilon or 0) <= 3.0


def test_a_budget_that_no_round_fits_in_is_refused_and_leaves_nothing(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"epsilon: expected at least .* the first release spends"):
        finish(simulate(make_run(**KINDS["gaussian"], epsilon=0.1), tmp_path / "run"))
    assert not (tmp_path / "run" / "ledger.jsonl").exists()


def test_a_hypothetical_cohort_is_named_wherever_epsilon_is(tmp_path: Path) -> None:
    meant = config.Hypothetical(clients=6000, clients_per_round=300)
    result = finish(simulate(make_run(**KINDS["gaussian"], hypothetical=meant), tmp_path / "run"))
    records = read_records(tmp_path / "run" / "metrics.jsonl")
    assert result.hypothetical and all(each["hypothetical"] for each in records)
    terms = terms_of(tmp_path / "run")
    assert terms.hypothetical and terms.sampling_rate == 300 / 6000


def test_local_noise_is_charged_by_the_busiest_client(tmp_path: Path) -> None:
    finish(simulate(make_run(**KINDS["local"], rounds=6), tmp_path / "run"))
    total = sum(releases for _, releases in charged(tmp_path / "run"))
    assert 3 <= total < 6  # six clients, three a round: somebody took part in half of them


def test_examples_are_charged_by_local_steps_of_the_busiest_client(tmp_path: Path) -> None:
    finish(simulate(make_run(**KINDS["example"]), tmp_path / "run"))
    releases = [releases for _, releases in charged(tmp_path / "run")]
    assert set(releases) <= {0, 3} and releases[0] == 3  # steps of an epoch at a rate of 0.4
    terms = terms_of(tmp_path / "run")
    assert (terms.unit, terms.sampler, terms.sampling_rate) == ("example", "poisson", 0.4)


def test_a_reproducible_round_done_again_is_recorded_as_if_it_were_not(tmp_path: Path) -> None:
    run = msgspec.structs.replace(
        reproducible(KINDS["gaussian"]), checkpoint=config.Checkpoint(every=4)
    )
    finish(simulate(run, tmp_path / "whole"))
    progress = simulate(run, tmp_path / "parts")
    for _ in range(3):
        next(progress)
    progress.close()
    finish(simulate(run, tmp_path / "parts", resume=True))
    whole, parts = ((tmp_path / name / "metrics.jsonl").read_bytes() for name in ("whole", "parts"))
    assert parts == whole
