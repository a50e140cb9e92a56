"""A round is charged before it is made: whatever ends it midway, its noise may have been seen."""

import importlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from federated import simulate
from federated.parts import Parts
from lepton_jax import config
from lepton_jax.training import finish
from lepton_jax.training.ledger import read_ledger
from tests.federated import tiny


@pytest.fixture(scope="module", autouse=True)
def replaced() -> Iterator[None]:
    yield from tiny.replaced_by(tiny.make_model())


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
    run = config.Run(
        data=config.Data(normalization="unit"),
        model=config.Model(norm="group"),
        federated=federated,
    )
    with pytest.raises(KeyboardInterrupt):
        finish(simulate(run, tmp_path / "run"))
    entries = read_ledger(tmp_path / "run")
    assert [each["body"]["number"] for each in entries if each["kind"] == "release"] == [1]
