import json
import logging
import shutil
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest

from lepton_jax import config, data
from lepton_jax.checks import UserError
from lepton_jax.data import Examples, Splits
from lepton_jax.export import export, open_model, run
from lepton_jax.training import SavedRun, finish, load_run, train
from lepton_jax.typing import Variables


def tiny() -> config.Run:
    """A CNN of two small convolutions with BatchNorm, on the embedded digits."""
    blocks = (config.ConvBlock(filters=8, pool=2), config.ConvBlock(filters=16))
    optimizer = config.Sgd(learning_rate=0.1, momentum=0.9)
    return config.Run(
        name="tiny",
        model=config.Model(name="cnn", blocks=blocks, norm="batch"),
        train=config.Train(epochs=3, batch_size=32, optimizer=optimizer),
        export=config.Export(calibration_images=64),
    )


@pytest.fixture(scope="module")
def exported(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, Any]]:
    folder = tmp_path_factory.mktemp("runs") / "tiny"
    finish(train(tiny(), folder))
    return folder, export(folder)


@pytest.fixture
def copy(exported: tuple[Path, dict[str, Any]], tmp_path: Path) -> Path:
    return Path(shutil.copytree(exported[0], tmp_path / "copy"))


def contents(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir() if path.is_file()}


def test_an_export_agrees_with_jax(exported: tuple[Path, dict[str, Any]]) -> None:
    folder, figures = exported
    float32, int8 = figures["variants"]
    result = load_run(folder).result
    assert float32["max_abs_diff"] <= 1e-4
    assert float32["top1_agreement"] == 1
    assert float32["accuracy"] == float32["jax_accuracy"] > 0.8
    assert float32["accuracy"] == pytest.approx(result["test_accuracy"], abs=1e-6)
    assert int8["accuracy"] >= float32["accuracy"] - 0.01
    assert float32["within_tolerance"] and int8["within_tolerance"]
    assert int8["bytes"] < float32["bytes"]


def test_an_export_leaves_models_and_figures(exported: tuple[Path, dict[str, Any]]) -> None:
    folder, figures = exported
    assert json.loads((folder / "export.json").read_text()) == figures
    assert figures["params_sha256"] == load_run(folder).result["params_sha256"]
    assert figures["signature"] == "classify"
    assert figures["input"] == {"name": "image", "dtype": "uint8", "shape": [1, 8, 8, 1]}
    assert figures["output"] == {"name": "probabilities", "dtype": "float32", "shape": [1, 10]}
    assert figures["classes"] == [str(digit) for digit in range(10)]
    assert figures["calibration"] == {"split": "train", "images": 64}
    for each in figures["variants"]:
        assert (folder / each["file"]).stat().st_size == each["bytes"]


def test_an_exported_model_classifies_the_test_images(
    exported: tuple[Path, dict[str, Any]],
) -> None:
    folder, figures = exported
    test = data.load(tiny().data).test
    for each in figures["variants"]:
        probabilities = open_model(folder / each["file"])(test.images)
        assert (probabilities.argmax(-1) == test.labels).mean() == each["accuracy"]


def test_another_export_leaves_nothing_of_the_one_before(copy: Path) -> None:
    figures = export(copy, variants=["int8"])
    assert [each["name"] for each in figures["variants"]] == ["int8"]
    assert (copy / "int8.tflite").exists()
    assert not (copy / "float32.tflite").exists()


def test_a_disagreement_changes_nothing(copy: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    predict = run.predict
    monkeypatch.setattr(run, "predict", lambda *args: np.roll(predict(*args), 1, axis=-1))
    before = contents(copy)
    with pytest.raises(UserError, match="float32: expected JAX's classes on all test images"):
        export(copy)
    assert contents(copy) == before


def test_a_loss_of_accuracy_is_flagged(
    copy: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    labels = data.load(tiny().data).test.labels
    perfect = 10 * np.eye(10, dtype=np.float32)[labels]
    monkeypatch.setattr(run, "predict", lambda *args: perfect)
    with caplog.at_level(logging.WARNING, logger=run.__name__):
        (int8,) = export(copy, variants=["int8"])["variants"]
    assert int8["jax_accuracy"] == 1
    assert not int8["within_tolerance"]
    assert "int8: accuracy" in caplog.text


@pytest.mark.parametrize("variants", [["int4"], ["float32", "int4"], []])
def test_unknown_variants_are_refused(copy: Path, variants: list[str]) -> None:
    with pytest.raises(UserError, match="variants: expected some of float32, int8, got"):
        export(copy, variants=variants)


def test_a_missing_run_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="expected a run folder"):
        export(tmp_path / "none")


def test_an_unfinished_run_is_refused(copy: Path) -> None:
    (copy / "result.json").unlink()
    with pytest.raises(UserError, match="expected a finished run"):
        export(copy)


def split(images: int, value: int) -> Examples:
    return Examples(np.full((images, 8, 8, 1), value, np.uint8), np.zeros(images, np.int32), None)


PRIVATE: dict[str, dict[str, Any]] = {
    "clients": {
        "stages": (config.Clip(max_norm=1.0),),
        "noise": config.Gaussian(multiplier=1.0),
        "weights": "uniform",
        "sampling": "poisson",
    },
    "clients' examples": {
        "example_privacy": config.ClientPrivacy(noise_multiplier=1.0),
        "weights": "uniform",
    },
}


def private_run(kind: str) -> SavedRun:
    if kind == "examples":
        examples = config.Train(privacy=config.Privacy(noise_multiplier=1.0))
        changed = msgspec.structs.replace(tiny(), train=examples)
        return SavedRun(Path(), changed, "train", {}, Variables({}, {}))
    changed = msgspec.structs.replace(tiny(), federated=config.Federated(**PRIVATE[kind]))
    return SavedRun(Path(), changed, "simulate", {}, Variables({}, {}))


@pytest.mark.parametrize("kind", [*PRIVATE, "examples"])
@pytest.mark.parametrize(("validation", "name", "value"), [(9, "validation", 1), (0, "test", 2)])
def test_private_images_calibrate_nothing(
    kind: str, validation: int, name: str, value: int
) -> None:
    info = data.load(tiny().data).info
    splits = Splits(split(9, 0), split(validation, 1), split(9, 2), info)
    chosen, images = run.calibration_images(private_run(kind), splits)
    assert chosen == name
    assert (images == value).all()
