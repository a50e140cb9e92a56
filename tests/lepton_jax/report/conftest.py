"""Run folders as a finished run leaves them: real shapes and plausible figures, made in no time."""

import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from lepton_jax import config_files, data
from lepton_jax.data.splits import DatasetInfo, Examples, Splits

DIGITS = tuple(str(digit) for digit in range(10))
REGIONS = ("africa", "asia", "europe")
MakeRun = Callable[..., Path]


def make_splits(classes: Sequence[str], *, test: int = 360, side: int = 8) -> Splits:
    """Noise for images; the label of test image i is i modulo the number of classes."""
    rng = np.random.default_rng(0)

    def examples(count: int) -> Examples:
        images = rng.integers(256, size=(count, side, side, 1)).astype(np.uint8)
        return Examples(images, (np.arange(count) % len(classes)).astype(np.int32), None)

    info = DatasetInfo("digits", tuple(classes), (), (0.3,), (0.4,))
    return Splits(examples(900), examples(0), examples(test), info)


@pytest.fixture(autouse=True)
def use_classes(monkeypatch: pytest.MonkeyPatch) -> Callable[[Sequence[str]], Splits]:
    """Stands in for loading: every run's data are noise of ten classes, or of those given here."""

    def use(classes: Sequence[str]) -> Splits:
        splits = make_splits(classes)
        monkeypatch.setattr(data, "load", lambda config: splits)
        return splits

    use(DIGITS)
    return use


@pytest.fixture
def make_run(tmp_path: Path) -> MakeRun:
    """(name, kind, private=, exported=, classes=) -> the folder of a finished run."""

    def make(name: str = "digits_run", kind: str = "train", **options: Any) -> Path:
        folder = tmp_path / name
        folder.mkdir()
        write_run(folder, name, kind, **options)
        return folder

    return make


def write_run(
    folder: Path,
    name: str,
    kind: str,
    *,
    private: bool = False,
    exported: bool = False,
    classes: Sequence[str] = DIGITS,
) -> None:
    """Leaves the files of a finished run."""
    evaluation = _evaluation(len(classes))
    result = {
        "run": name,
        "kind": kind,
        "test_accuracy": evaluation["test"]["accuracy"],
        "test_loss": evaluation["test"]["loss"],
        "seconds": 93.4,
        "images_per_second": 4321.0,
        "params_sha256": "c16b2901" * 8,
    }
    tree: dict[str, Any] = {"name": name, "data": {"name": "digits", "validation_fraction": 0.1}}
    if kind == "train":
        tree["train"] = {"epochs": 12}
        if private:
            tree["train"] |= {"privacy": {"noise_multiplier": 1.3, "clip_norm": 0.7}}
        _write_lines(folder / "metrics.jsonl", [_epoch(i, private) for i in range(1, 13)])
        _write_lines(folder / "timings.jsonl", [_timing("epoch", i) for i in range(1, 13)])
        result["steps"] = 12 * 22
    else:
        tree["federated"] = _federated(private)
        _write_lines(folder / "metrics.jsonl", [_round(i, private) for i in range(1, 41)])
        _write_lines(folder / "timings.jsonl", [_timing("round", i) for i in range(1, 41)])
        _write(folder / "partition.json", _partition(len(classes)))
        evaluation |= _served()
        result["rounds"] = 40
    if private:
        result |= {"epsilon": 3.2, "delta": 1e-5}
    if exported:
        _write(folder / "export.json", _export(name, classes))
    run = config_files.validate(tree)
    (folder / "config.toml").write_text(config_files.dumps(run), encoding="utf-8")
    _write(folder / "evaluation.json", evaluation)
    _write(folder / "result.json", result)


def _federated(private: bool) -> dict[str, Any]:
    common = {"rounds": 40, "clients": 30, "clients_per_round": 10, "regions": list(REGIONS)}
    if not private:
        return common
    return common | {
        "sampling": "poisson",
        "weights": "uniform",
        "stages": [{"kind": "clip", "max_norm": 0.5}],
        "noise": {"kind": "gaussian", "multiplier": 1.1},
    }


def _epoch(i: int, private: bool) -> dict[str, Any]:
    spent = {"epsilon": 0.5 * i**0.5} if private else {}
    return spent | {
        "epoch": i,
        "step": 22 * i,
        "learning_rate": 0.1,
        "train": _figures(i, 0.35),
        "validation": _figures(i, 0.3),
    }


def _round(i: int, private: bool) -> dict[str, Any]:
    record = {
        "round": i,
        "clients": 10,
        "examples": 400 + i,
        "train": _figures(i, 0.13),
        "bytes_up": 3_127_440 + i,
        "bytes_down": 3_127_440,
    }
    if i % 5 == 0:
        record["test"] = _figures(i, 0.12)
    if private:
        record["epsilon"] = 0.5 * i**0.5
    return record


def _figures(i: int, speed: float) -> dict[str, float]:
    left = float(np.exp(-speed * i))
    return {"loss": 0.06 + 2.2 * left, "accuracy": 0.98 - 0.8 * left}


def _timing(unit: str, i: int) -> dict[str, float]:
    return {unit: i, "seconds": 1.5 + 0.1 * (i % 3), "images_per_second": 4321.0}


def _evaluation(classes: int) -> dict[str, Any]:
    rng = np.random.default_rng(1)
    each = 360 // classes or 1
    confusion = np.diag(np.full(classes, each))
    for i, j in rng.integers(classes, size=(14, 2)):
        if confusion[i, i] > 0:
            confusion[i, i] -= 1
            confusion[i, j] += 1
    hits, support, predicted = np.diag(confusion), confusion.sum(1), confusion.sum(0)
    precision, recall = hits / np.maximum(predicted, 1), hits / support
    f1 = 2 * hits / (support + predicted)
    test = {
        "loss": 0.1234,
        "accuracy": int(hits.sum()) / int(support.sum()),
        "examples": int(support.sum()),
        "top5_accuracy": 0.998,
        "precision_macro": float(precision.mean()),
        "recall_macro": float(recall.mean()),
        "f1_macro": float(f1.mean()),
        "per_class": {
            "precision": precision.tolist(),
            "recall": recall.tolist(),
            "f1": f1.tolist(),
            "support": support.tolist(),
        },
        "confusion": confusion.tolist(),
    }
    return {"test": test, "samples": [_sample(i, classes) for i in range(24)]}


def _sample(i: int, classes: int) -> dict[str, Any]:
    label = i % classes
    predicted = (label + 3) % classes if i < 10 else label
    return {"index": i, "label": label, "predicted": predicted, "confidence": 0.99 - 0.01 * i}


def _served() -> dict[str, Any]:
    rng = np.random.default_rng(2)
    accuracy = np.clip(rng.normal(0.94, 0.05, size=30), 0, 1).tolist()
    clients = [
        {
            "client": i,
            "region": REGIONS[i // 10],
            "examples": int(rng.integers(2, 20)),
            "loss": 0.2,
            "accuracy": accuracy[i] if i != 7 else None,
        }
        for i in range(30)
    ]
    regions = [
        {
            "region": region,
            "clients": 10,
            "examples": 120,
            "loss": 0.21,
            "accuracy": 0.9 + 0.03 * i,
            "f1_macro": 0.89 + 0.03 * i,
        }
        for i, region in enumerate(REGIONS)
    ]
    at = {"min": 0, "p5": 5, "p25": 25, "p50": 50, "p75": 75, "p95": 95, "max": 100}
    spread = {name: float(np.percentile(accuracy, value)) for name, value in at.items()}
    return {
        "clients": clients,
        "regions": regions,
        "client_percentiles": {"accuracy": spread},
        "client_data": "holdout",
    }


def _partition(classes: int) -> dict[str, Any]:
    rng = np.random.default_rng(3)
    mixes = rng.dirichlet(np.full(classes, 0.5), size=30)
    counts = [rng.multinomial(rng.integers(10, 80), mix).tolist() for mix in mixes]
    clients = [
        {
            "client": i,
            "region": REGIONS[i // 10],
            "examples": [3 * i, 3 * i + 1],
            "holdout": [3 * i + 2],
            "labels": labels,
        }
        for i, labels in enumerate(counts)
    ]
    return {"version": 1, "kind": "by_region", "seed": 0, "clients": clients, "sha256": "0" * 64}


def _export(name: str, classes: Sequence[str]) -> dict[str, Any]:
    def variant(kind: str, size: int, accuracy: float) -> dict[str, Any]:
        return {
            "name": kind,
            "file": f"{kind}.tflite",
            "bytes": size,
            "max_abs_diff": 2e-6 if kind == "float32" else 0.04,
            "top1_agreement": 1.0 if kind == "float32" else 0.9972,
            "accuracy": accuracy,
            "jax_accuracy": 0.9722,
            "latency_ms": {"median": 0.031, "p95": 0.044},
            "ops": {"CONV_2D": 9, "ADD": 3, "MEAN": 1, "FULLY_CONNECTED": 1, "SOFTMAX": 1},
            "within_tolerance": True,
        }

    return {
        "run": name,
        "params_sha256": "c16b2901" * 8,
        "signature": "classify",
        "input": {"name": "image", "dtype": "uint8", "shape": [1, 8, 8, 1]},
        "output": {"name": "probabilities", "dtype": "float32", "shape": [1, len(classes)]},
        "classes": list(classes),
        "test_images": 360,
        "calibration": {"split": "train", "images": 256},
        "variants": [variant("float32", 318_512, 0.9722), variant("int8", 98_312, 0.9694)],
    }


def _write(path: Path, value: Any) -> None:
    path.write_text(json.dumps(value, indent=1) + "\n", encoding="utf-8")


def _write_lines(path: Path, records: list[dict[str, Any]]) -> None:
    path.write_text("".join(json.dumps(record) + "\n" for record in records), encoding="utf-8")
