"""Regions with policies: who contributes, what leaves, and that gates change no sum."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from federated import evaluate_run, simulate
from federated.borders import open_borders
from federated.channel import RoundMark, host_sums
from federated.policy import load_policies
from federated.shards import Client
from lepton_jax import config, console
from lepton_jax.checks import UserError
from lepton_jax.training import finish
from lepton_jax.training.records import read_json, read_records
from tests.federated import tiny

SETTINGS: dict[str, Any] = {
    "rounds": 4,
    "clients": 8,
    "regions": ("north", "south"),
    "partition": config.Iid(),
    "clients_per_round": 6,
    "batch_size": 4,
    "client": config.Sgd(learning_rate=1.0),
    "over": "scan",
    "weights": "uniform",
    "stages": (config.Clip(max_norm=0.5),),
}
NOISE: dict[str, Any] = {
    "noise": config.Gaussian(multiplier=0.8),
    "sampling": "poisson",
    "randomness": "reproducible",
}


@pytest.fixture(scope="module", autouse=True)
def replaced() -> Iterator[None]:
    yield from tiny.replaced_by(tiny.make_model())


def write_policies(folder: Path, **by_region: str) -> str:
    folder.mkdir()
    for region, changes in by_region.items():
        base = {
            "region": f'"{region}"',
            "language": '"en"',
            "outputs": '["update", "figures"]',
            "metrics": '["accuracy", "examples"]',
            "minimum_cohort": "2",
            "cross_border": '"sum"',
            "retention_days": "30",
        }
        lines = dict(each.split("=", 1) for each in changes.splitlines() if each)
        text = "\n".join(f"{key} = {value}" for key, value in {**base, **lines}.items())
        (folder / f"{region}.toml").write_text(text + "\n")
    return str(folder)


def make_run(policies: str | None, **changes: Any) -> config.Run:
    return config.Run(
        name="tiny",
        data=config.Data(normalization="unit"),
        model=config.Model(norm="group"),
        federated=config.Federated(**{**SETTINGS, **changes}, policies=policies),
    )


@pytest.mark.parametrize("crossing", ["sum", "updates"])
def test_gates_change_no_bit_of_a_run(crossing: str, tmp_path: Path) -> None:
    rule = f'cross_border="{crossing}"'
    policies = write_policies(tmp_path / "policies", north=rule, south=rule)
    plain = finish(simulate(make_run(None, **NOISE), tmp_path / "plain"))
    gated = finish(simulate(make_run(policies, **NOISE), tmp_path / "gated"))
    assert gated.params_sha256 == plain.params_sha256


@pytest.mark.parametrize("noised", [True, False])
def test_noise_lets_a_sum_leave_of_however_few_and_its_absence_does_not(
    noised: bool, tmp_path: Path
) -> None:
    """That a small cohort stays home would tell of one client's presence (`check_policies`)."""
    policies = load_policies(
        Path(write_policies(tmp_path / "policies", north="", south="")), ("north", "south")
    )
    federated = make_run(None, **(NOISE if noised else {})).federated
    none = np.zeros(0, np.int64)
    clients = [Client(i, ("north", "south")[i // 4], none, none) for i in range(8)]
    borders = open_borders(policies, federated, clients, host_sums())
    sent = {"w": np.array([[1], [10], [100]], np.int32)}  # one of the north, two of the south
    summed = borders.channel.total(RoundMark(1, "0" * 64), np.array([0, 4, 5]), sent)
    assert summed is not None and summed["w"].tolist() == [111 if noised else 110]
    passed = borders.passed()
    assert (passed["north"]["sum"] > 0) is noised and passed["south"]["sum"] > 0


def test_bytes_that_leave_are_counted_by_region(tmp_path: Path) -> None:
    policies = write_policies(tmp_path / "policies", north="", south='cross_border="updates"')
    finish(simulate(make_run(policies), tmp_path / "run"))
    last = read_records(tmp_path / "run" / "metrics.jsonl")[-1]["egress"]
    assert last["north"]["sum"] > 0 and last["north"]["update"] == 0
    assert last["south"]["update"] > 2 * last["north"]["sum"] and last["south"]["sum"] == 0


def test_a_region_at_its_budget_stops_and_the_others_go_on(tmp_path: Path) -> None:
    everybody: dict[str, Any] = {**NOISE, "clients_per_round": 8}
    free = finish(simulate(make_run(None, **everybody), tmp_path / "free"))
    spent = [each["epsilon"] for each in read_records(tmp_path / "free" / "metrics.jsonl")]
    budget = f"epsilon={(spent[1] + spent[2]) / 2}\ndelta=1e-5"
    policies = write_policies(tmp_path / "policies", north=budget, south="epsilon=1e3\ndelta=1e-5")
    result = finish(simulate(make_run(policies, **everybody), tmp_path / "run"))
    records = read_records(tmp_path / "run" / "metrics.jsonl")
    assert [each["clients"] for each in records] == [8, 8, 4, 4]
    assert result.rounds == 4 and result.epsilon == free.epsilon
    assert "egress" in records[-1]["not_private"] and "egress" in (result.not_private or ())


def test_a_run_ends_when_every_region_has_stopped(tmp_path: Path) -> None:
    finish(simulate(make_run(None, **NOISE), tmp_path / "free"))
    spent = [each["epsilon"] for each in read_records(tmp_path / "free" / "metrics.jsonl")]
    budget = f"epsilon={spent[1]}\ndelta=1e-5"
    policies = write_policies(tmp_path / "policies", north=budget, south=budget)
    assert finish(simulate(make_run(policies, **NOISE), tmp_path / "run")).rounds == 2


def test_a_region_that_lets_nothing_out_contributes_nothing(tmp_path: Path) -> None:
    rule = 'outputs=["figures"]\ncross_border="none"'
    policies = write_policies(tmp_path / "policies", north=rule, south="")
    run = make_run(policies, clients_per_round=8)
    finish(simulate(run, tmp_path / "run"))
    records = read_records(tmp_path / "run" / "metrics.jsonl")
    assert [each["clients"] for each in records] == [4] * 4
    assert records[-1]["egress"]["north"]["sum"] == 0


def test_only_the_figures_that_a_policy_names_leave_its_region(tmp_path: Path) -> None:
    rule = 'outputs=["update"]\nmetrics=[]'
    policies = write_policies(tmp_path / "policies", north='metrics=["accuracy"]', south=rule)
    finish(simulate(make_run(policies), tmp_path / "run"))
    figures = read_json(tmp_path / "run" / "evaluation.json")
    north, south = figures["regions"]
    assert north["accuracy"] is not None and north["loss"] is None
    assert south["accuracy"] is None and south["loss"] is None
    assert figures["clients"] == []


def test_the_policies_are_recorded_and_a_run_does_not_go_on_with_others(tmp_path: Path) -> None:
    policies = write_policies(tmp_path / "policies", north="", south="")
    run = make_run(policies)
    progress = simulate(run, tmp_path / "run")
    next(progress)
    progress.close()
    told = read_json(tmp_path / "run" / "policies.json")
    assert told["north"]["retention_days"] == 30 and told["south"]["language"] == "en"
    south = tmp_path / "policies" / "south.toml"
    before = south.read_text()
    south.write_text(before.replace("minimum_cohort = 2", "minimum_cohort = 3"))
    with pytest.raises(UserError, match="the policy of region south that the run began with"):
        finish(simulate(run, tmp_path / "run", resume=True))
    south.write_text(before)
    finish(simulate(run, tmp_path / "run", resume=True))


def test_secure_sums_within_regions_are_the_plain_sums(tmp_path: Path) -> None:
    policies = write_policies(tmp_path / "policies", north="", south="")
    run = make_run(policies, clients_per_round=8, channel=config.Secure())
    plain = finish(simulate(make_run(policies, clients_per_round=8), tmp_path / "plain"))
    secure = finish(simulate(run, tmp_path / "secure"))
    assert secure.params_sha256 == plain.params_sha256


def test_a_region_whose_secure_sums_would_stay_closed_is_refused(tmp_path: Path) -> None:
    policies = write_policies(tmp_path / "policies", north="", south="")
    run = make_run(policies, clients_per_round=4, channel=config.Secure())
    with pytest.raises(UserError, match=r"at least 3 clients of each region .* got 2;"):
        finish(simulate(run, tmp_path / "run"))


def test_what_a_policy_forbids_is_refused_before_the_first_round(tmp_path: Path) -> None:
    policies = write_policies(tmp_path / "policies", north="epsilon=1.0\ndelta=1e-5", south="")
    with pytest.raises(UserError, match="policy of region north: expected noise"):
        finish(simulate(make_run(policies), tmp_path / "run"))


def test_noise_that_a_region_s_sum_has_only_a_part_of_is_refused(tmp_path: Path) -> None:
    policies = write_policies(tmp_path / "policies", north="", south="")
    run = make_run(
        policies,
        noise=config.Distributed(multiplier=0.8),
        sampling="cyclic",
        channel=config.Secure(),
        accountant="rdp",
    )
    with pytest.raises(UserError, match=r"federated.policies: expected noise that hides each"):
        finish(simulate(run, tmp_path / "run"))


def test_secure_sums_of_poisson_cohorts_that_may_be_too_few_are_refused(tmp_path: Path) -> None:
    run = make_run(None, **NOISE, channel=config.Secure())
    with pytest.raises(UserError, match="a round with too few clients for a secure sum"):
        finish(simulate(run, tmp_path / "run"))


def test_a_run_with_policies_is_measured_again_within_them(tmp_path: Path) -> None:
    policies = write_policies(tmp_path / "policies", north='metrics=["accuracy"]', south="")
    finish(simulate(make_run(policies), tmp_path / "run"))
    before = read_json(tmp_path / "run" / "evaluation.json")
    figures = evaluate_run(tmp_path / "run")
    assert figures["regions"] == before["regions"] and figures["clients"] == []
    told = console.evaluation(figures)
    assert "north" in told and "accuracy over clients" not in told
