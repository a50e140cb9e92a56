"""What the command line refuses, and a runner of our own at work."""

from pathlib import Path

import pytest

from benchmarks import environments, run
from benchmarks.job import write_job
from benchmarks.measure import take_turns
from benchmarks.sides import Side
from lepton_jax.checks import UserError
from tests.benchmarks.tiny import CENTRAL, FEDERATED


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["W9"], "WORKLOAD: expected one of W1.* got 'W9'"),
        (["central-resnet8"], "did you mean"),
        (["W2", "--against", "tensorflow"], "--against: expected one of torch.*'tensorflow'"),
        (["W2", "--against", "keras"], r"peers of W2 \(torch, pfl, flower, fedjax\), got 'keras'"),
        (["clients", "--against", "torch"], "lepton-jax alone"),
        (
            ["secure-aggregation", "--against", "flower"],
            r"peers of .* \(secaggplus\), got 'flower'",
        ),
        (["secure-aggregation-large", "--against", "secaggplus"], "lepton-jax alone"),
        (["W2", "--repetitions", "0"], "--repetitions: expected a whole number of at least 1"),
        (["W2", "--repetitions", "two"], "arguments as in --help"),
        ([], "arguments as in --help"),
        (["W2", "--against", "torch"], "python -m benchmarks.environments torch"),
    ],
)
def test_bad_input_is_refused_in_one_line(arguments: list[str], words: str) -> None:
    with pytest.raises(UserError, match=words) as refusal:
        run.main(arguments)
    assert "\n" not in str(refusal.value)


def test_an_unknown_environment_is_refused_before_any_is_made() -> None:
    with pytest.raises(UserError, match="did you mean flower"):
        environments.main(["torch", "flowers"])


def test_our_own_runner_learns_in_turns(tmp_path: Path) -> None:
    sides = []
    for workload in (FEDERATED, CENTRAL):
        folder = tmp_path / workload.name
        folder.mkdir()
        write_job(folder, workload, rounds=3)
        sides.append(Side("lepton", "", folder, workload.rounds, 100, workload.name))
    outcomes = take_turns(sides, repetitions=1)
    assert all(each.accuracy is not None and each.accuracy > 0.2 for each in outcomes)
    assert all(each.peak_rss > 2**26 and each.seconds[0] > 0 for each in outcomes)
    assert outcomes[0].versions["lepton-jax"]


def test_a_runner_that_dies_is_told_of(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="runner of lepton"):
        take_turns([Side("lepton", "", tmp_path, 1, 1)], repetitions=1)
