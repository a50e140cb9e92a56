"""A federation of phones is the federation of JAX, round by round."""

import json
from pathlib import Path
from typing import Any

import jax
import msgspec
import numpy as np
import pytest

from federated.devices import simulate_on_devices
from federated.simulate import simulate
from lepton_jax import config
from lepton_jax.checks import UserError
from lepton_jax.export import learning
from lepton_jax.export.convert import convert
from lepton_jax.export.flatbuffer import add_notes
from lepton_jax.export.interface import classify
from lepton_jax.training.runs import load_run

BLOCKS = (config.ConvBlock(filters=4, stride=2), config.ConvBlock(filters=8, pool=2))


def make_run(model: dict[str, Any] | None = None, **changes: Any) -> config.Run:
    federated: dict[str, Any] = {
        "rounds": 2,
        "clients": 3,
        "clients_per_round": 2,
        "batch_size": 100,
        "over": "scan",
        "client": config.Sgd(learning_rate=0.05, momentum=0.5),
        "client_decay": 0.9,
        "server": config.Sgd(learning_rate=1.0, momentum=0.5),
        "stages": (config.Clip(max_norm=1.0),),
    }
    small: dict[str, Any] = {"name": "cnn", "blocks": BLOCKS, "conv": "matmul", "norm": "group"}
    return config.Run(
        name="phones",
        data=config.Data(name="digits"),
        model=config.Model(**{**small, **(model or {})}),
        federated=config.Federated(**{**federated, **changes}),
    )


def finished(kind: Any, run: config.Run, out: Path, **options: Any) -> tuple[Any, list[dict]]:
    """The parameters that a run ends with, and its rounds' records."""
    for _ in kind(run, out, **options):
        pass
    records = [json.loads(line) for line in (out / "metrics.jsonl").read_text().splitlines()]
    return load_run(out).variables.params, records


def assert_equal(ours: tuple, theirs: tuple, tolerance: float) -> None:
    jax.tree.map(
        lambda a, b: np.testing.assert_allclose(a, b, rtol=0, atol=tolerance), ours[0], theirs[0]
    )
    for a, b in zip(ours[1], theirs[1], strict=True):
        assert a["test"]["accuracy"] == b["test"]["accuracy"]
        assert a["train"]["accuracy"] == b["train"]["accuracy"]
        assert a["train"]["loss"] == pytest.approx(b["train"]["loss"], abs=1e-4)
        assert (a["clients"], a["examples"]) == (b["clients"], b["examples"])


def test_phones_learn_together_what_jax_learns(tmp_path: Path) -> None:
    run = make_run()
    ours = finished(simulate_on_devices, run, tmp_path / "phones")
    assert_equal(ours, finished(simulate, run, tmp_path / "jax"), 1e-4)
    assert len(ours[1]) == 2


@pytest.mark.slow
@pytest.mark.parametrize("norm", ["none", "group"])
def test_ten_rounds_of_eight_phones_are_those_of_jax(norm: str, tmp_path: Path) -> None:
    run = make_run(
        {"norm": norm, "dense": (16,)},
        rounds=10,
        clients=8,
        clients_per_round=8,
        batch_size=16,
        client=config.Sgd(learning_rate=0.1),
        client_decay=0.95,
        server=config.Sgd(learning_rate=1.0),
        stages=(),
    )
    ours = finished(simulate_on_devices, run, tmp_path / "phones")
    assert_equal(ours, finished(simulate, run, tmp_path / "jax"), 1e-4)
    assert ours[1][-1]["test"]["accuracy"] > ours[1][0]["test"]["accuracy"] + 0.2


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"client": config.Adam()}, r"federated\.client: expected sgd .* got Adam\("),
        ({"client": config.Sgd(weight_decay=0.1)}, r"federated\.client: .* weight_decay=0\.1"),
        ({"proximal": 0.1}, r"federated\.proximal: expected 0 where clients are phones"),
        ({"channel": config.Secure(), "weights": "uniform"}, r"federated\.channel: expected plain"),
        ({"policies": "policies"}, r"federated\.policies: expected none"),
        ({"model": {"norm": "batch"}}, r"model\.norm: expected 'group' or 'none'"),
        ({"model": {"dtype": "bfloat16"}}, r"model\.dtype: expected float32"),
        ({"model": {"dropout": 0.1}}, r"model\.dropout: expected 0"),
    ],
)
def test_what_phones_do_not_do_is_refused_at_once(
    changes: dict, message: str, tmp_path: Path
) -> None:
    with pytest.raises(UserError, match=message):
        simulate_on_devices(make_run(**changes), tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_augmented_images_are_refused(tmp_path: Path) -> None:
    run = make_run()
    data = msgspec.structs.replace(run.data, augment=(config.Flip(),))
    with pytest.raises(UserError, match=r"data\.augment: expected none"):
        simulate_on_devices(msgspec.structs.replace(run, data=data), tmp_path / "run")


FACTS = learning.Facts(batch_size=100, momentum=0.5, loss=config.CrossEntropy(), parameters=678)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"parameters": 30}, "model: parameters: expected 678, as of the run, got 30"),
        ({"momentum": 0.9}, r"model: momentum: expected 0\.5, as of the run, got 0\.9"),
        ({"loss": config.MeanSquaredError()}, "model: loss: expected CrossEntropy"),
        ({"batch_size": 99}, "model: batch_size: expected at least 100, as of the run, got 99"),
    ],
)
def test_a_file_of_another_run_is_refused(
    other_file: bytes, changes: dict, message: str, tmp_path: Path
) -> None:
    told = msgspec.json.encode(msgspec.structs.replace(FACTS, **changes)).decode()
    model = add_notes(other_file, {learning.NOTE: told})
    with pytest.raises(UserError, match=message):
        finished(simulate_on_devices, make_run(), tmp_path / "run", model=model)


def test_a_file_that_does_not_train_is_refused(other_file: bytes, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="model: expected a file that trains, got another one"):
        finished(simulate_on_devices, make_run(), tmp_path / "run", model=other_file)


@pytest.fixture(scope="module")
def other_file() -> bytes:
    def answer(pixels: Any) -> Any:
        return pixels.astype(np.float32).mean((1, 2))

    return convert([classify(answer, (8, 8, 3), config.Interface())], "jax2tf")
