"""A round is charged before it is made: whatever ends it midway, its noise may have been seen."""

import importlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from federated import simulate
from federated.parts import Parts
from lepton_jax import config
from lepton_jax.checks import UserError
from lepton_jax.training import finish
from lepton_jax.training.ledger import read_ledger
from tests.federated import tiny


@pytest.fixture(scope="module", autouse=True)
def replaced() -> Iterator[None]:
    yield from tiny.replaced_by(tiny.make_model())


def make_run() -> config.Run:
    federated = config.Federated(
        clients=6,
        regions=("north", "south"),
        clients_per_round=3,
        batch_size=4,
        over="scan",
        weights="uniform",
        sampling="poisson",
        stages=(config.Clip(max_norm=0.5),),
        noise=config.Gaussian(multiplier=0.8),
    )
    return config.Run(
        data=config.Data(normalization="unit"),
        model=config.Model(norm="group"),
        checkpoint=config.Checkpoint(every=1),
        federated=federated,
    )


def test_a_round_that_dies_is_charged(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    module = importlib.import_module("federated.simulate")
    set_up = module.set_up

    def dies(*given: Any) -> Any:
        raise KeyboardInterrupt

    def deadly(run: config.Run, target: float | None) -> tuple[Parts, Any]:
        parts, state = set_up(run, target)
        return parts._replace(algorithm=parts.algorithm._replace(apply=dies)), state

    monkeypatch.setattr(module, "set_up", deadly)
    monkeypatch.setattr(module, "_compile", lambda parts, state: None)
    run = make_run()
    with pytest.raises(KeyboardInterrupt):
        finish(simulate(run, tmp_path / "run"))
    entries = read_ledger(tmp_path / "run")
    assert [each["body"]["number"] for each in entries if each["kind"] == "release"] == [1]


def test_a_run_does_not_go_on_with_a_ledger_older_than_its_checkpoint(tmp_path: Path) -> None:
    progress = simulate(make_run(), tmp_path / "run")
    next(progress)
    before = {path: path.read_bytes() for path in (tmp_path / "run").glob("ledger.*")}
    next(progress)
    next(progress)
    progress.close()
    assert len(before) == 2
    for path, content in before.items():
        path.write_bytes(content)
    with pytest.raises(UserError, match="the ledger that it was made with"):
        finish(simulate(make_run(), tmp_path / "run", resume=True))
