import errno
import json
import os
import shutil
from pathlib import Path
from typing import Any, cast

import numpy as np
import pytest

from lepton_jax import config, data
from lepton_jax.checks import UserError
from lepton_jax.export import appraise, export, inspect, metadata, open_model, run, verify_files
from lepton_jax.export import files as module_files
from lepton_jax.export.appraise import Reference, settle
from lepton_jax.export.settings import VARIANTS
from lepton_jax.report import files
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
        export=config.Export(calibration=config.Calibration(images_per_class=7)),
    )


@pytest.fixture(scope="module")
def exported(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, Any]]:
    folder = tmp_path_factory.mktemp("runs") / "tiny"
    finish(train(tiny(), folder))
    return folder, export(folder)


@pytest.fixture(autouse=True)
def measured_once(exported: tuple[Path, dict[str, Any]], monkeypatch: pytest.MonkeyPatch) -> None:
    """Phone figures take seconds a variant: those of the first export stand for all."""
    phone = exported[1]["variants"][0]["phone"]
    monkeypatch.setattr(appraise, "profile", lambda model: phone)


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
    assert figures["calibration"] == {"split": "train", "images": 70}
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
    with pytest.raises(UserError, match=r"gates: .* float32 logits .* float32 agreement 0\.00%"):
        export(copy)
    assert contents(copy) == before


def test_a_model_that_fails_is_kept_by_an_override_that_is_recorded(
    copy: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    labels = data.load(tiny().data).test.labels
    perfect = 10 * np.eye(10, dtype=np.float32)[labels]
    monkeypatch.setattr(run, "predict", lambda *args: perfect)
    with pytest.raises(UserError, match=r"gates: .* int8 accuracy \+\d\.\d\d points lost"):
        export(copy, variants=["int8"])
    (int8,) = export(copy, variants=["int8"], override=True)["variants"]
    assert int8["jax_accuracy"] == 1
    assert int8["overridden"] and not int8["within_tolerance"]
    failed = [gate["name"] for gate in int8["gates"] if not gate["passed"]]
    assert "accuracy" in failed


def test_figures_hold_what_the_report_reads(exported: tuple[Path, dict[str, Any]]) -> None:
    found = files.read(exported[0])
    assert found.export is not None
    for each in found.export.variants:
        assert each.phone is not None and each.pareto is not None
        assert all(gate.passed for gate in each.gates) and not each.overridden


def test_the_same_run_gives_the_same_files(copy: Path) -> None:
    before = contents(copy)
    export(copy)
    after = contents(copy)
    signed = [name for name in before if ".tflite" in name]
    assert sorted(signed) == [
        "float32.tflite", "float32.tflite.json", "int8.tflite", "int8.tflite.json",
    ]  # fmt: skip
    assert {name: after[name] for name in signed} == {name: before[name] for name in signed}


def test_what_was_exported_is_verified_and_speaks_many_languages(copy: Path) -> None:
    export(
        copy,
        variants=["int8"],
        overrides=['export.about.locales=["ar", "de"]', "export.about.author=Ada"],
    )
    (signed,) = verify_files(copy)
    assert (signed.file, signed.facts["run"]) == ("int8.tflite", "tiny")
    told = inspect(copy / "int8.tflite")["metadata"]
    assert (told["author"], told["locales"]) == ("Ada", ["ar", "de"])
    said = metadata.read((copy / "int8.tflite").read_bytes())
    assert said.labels["de"][1] == "eins"
    assert "| int8 |" in said.files["model_card.md"]
    path = copy / "int8.tflite"
    path.write_bytes(path.read_bytes()[:-1])
    with pytest.raises(UserError, match=r"int8\.tflite: expected [\d,]+ bytes"):
        verify_files(copy)


def test_a_full_disk_leaves_the_folder_as_it_was(
    copy: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    before, write = contents(copy), module_files._write

    def full(path: Path, content: bytes) -> None:
        if "int8" in path.name:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        write(path, content)

    monkeypatch.setattr(module_files, "_write", full)
    with pytest.raises(UserError, match="No space left on device; make room"):
        export(copy, overrides=["export.about.author=Ada"])
    assert contents(copy) == before


def test_every_variant_comes_of_one_command(copy: Path) -> None:
    figures = export(copy, variants=["all"])
    names = [each["name"] for each in figures["variants"]]
    assert names == list(VARIANTS)
    assert any(each["pareto"] for each in figures["variants"])
    sizes = {each["name"]: each["bytes"] for each in figures["variants"]}
    assert sizes["int4"] < sizes["int8"] < sizes["float16"] < sizes["float32"]
    int4 = figures["variants"][names.index("int4")]["fine_tuning"]
    assert int4["images"] > 100 and "variables" not in int4
    assert figures["variants"][0]["fine_tuning"] is None


def test_frames_of_a_camera_are_resized_inside(copy: Path) -> None:
    # Two matrices that resize are more than the gate on the size of so small a model has room for.
    figures = export(copy, overrides=["export.interface.frame=[20, 12]"], override=True)
    assert figures["input"]["shape"] == [1, 20, 12, 1]
    float32, int8 = figures["variants"]
    assert float32["top1_agreement"] == 1 and int8["top1_agreement"] > 0.97
    assert float32["accuracy"] > 0.8


@pytest.mark.parametrize("output", ["logits", "top_k"])
def test_other_outputs_are_compared_with_jax_as_well(copy: Path, output: str) -> None:
    changed = [f"export.interface.output={output}", "export.interface.batch=dynamic"]
    (float32,) = export(copy, variants=["float32"], overrides=changed)["variants"]
    assert float32["top1_agreement"] == 1 and float32["within_tolerance"]
    told = inspect(copy / "float32.tflite")["signatures"]["classify"]
    names = {"logits": ["logits"], "top_k": ["scores", "classes"]}[output]
    assert {each["name"] for each in told["outputs"]} == set(names)
    assert told["inputs"][0]["shape"] == [-1, 8, 8, 1]


@pytest.mark.parametrize(("epsilon", "count"), [(2.0, 3), (2.0, 0), (None, 3)])
def test_what_no_epsilon_covers_is_named(epsilon: float | None, count: int) -> None:
    result = {"epsilon": epsilon}
    saved = SavedRun(Path(), config.Run(), "simulate", result, Variables({}, {}))
    logits, nothing = np.zeros((count, 10), np.float32), cast(Any, None)
    against = Reference(nothing, nothing, logits, None, logits)
    names = run._not_private(saved, against).get("not_private", [])
    assert ("groups" in names) == (epsilon is not None and count > 0)


def test_a_missing_run_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="expected a run folder"):
        export(tmp_path / "none")


def test_an_unfinished_run_is_refused(copy: Path) -> None:
    (copy / "result.json").unlink()
    with pytest.raises(UserError, match="expected a finished run"):
        export(copy)


def test_equal_models_are_marked_alike_however_long_they_took() -> None:
    def figures(name: str, median: float, **changes: float) -> dict[str, Any]:
        measured = {"bytes": 9, "max_abs_diff": 0.1, "top1_agreement": 0.9, "accuracy": 0.8}
        told = {"name": name, "latency_ms": {"median": median}, "within_tolerance": True}
        return {**told, **measured, **changes}

    given = [figures("int8", 0.3), figures("int8-qat", 0.2), figures("dynamic", 0.3, bytes=10)]
    assert [each["pareto"] for each in settle(given, override=False)] == [True, True, False]
