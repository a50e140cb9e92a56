"""The section on phone models: what export.json says stands on the page, and nothing else gets in."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from lepton_jax.checks import UserError
from lepton_jax.report import files, phone, report
from lepton_jax.report.blocks import Points, Prose, Table
from tests.lepton_jax.report.test_report import Outline

MakeRun = Callable[..., Path]


def figures(**changes: Any) -> dict[str, Any]:
    """What came to a variant's figures after their first form."""
    settings = [
        {"threads": n, "xnnpack": on, "min_ms": 0.1, "median_ms": 0.2, "p95_ms": 0.3, "runs": 99}
        for on in (True, False)
        for n in (1, 2)
    ]
    shared = {"multiply_adds": 12_501_632, "bytes_moved": 370_762}
    group = {"images": 321, "accuracy": 0.9, "jax_accuracy": 0.9123, "agreement": 0.97}
    return {
        "logit_diff": None,
        "gates": [
            {"name": "ops", "found": "no other", "limit": "builtin ops", "passed": True},
            {"name": "size", "found": "98,312 bytes", "limit": "at most 98,000", "passed": False},
        ],
        "overridden": True,
        "groups": {
            "data": "holdout",
            "regions": {"asia": {**group, "loss": 0.0123}, "<b>africa": {**group, "loss": -0.01}},
            "clients": 30,
            "worst_region": {"name": "asia", **group, "loss": 0.0123},
            "worst_client": {"name": "17", **group, "loss": 0.0345},
        },
        "phone": {
            "batch": 1,
            "latency": settings,
            "first_run_ms": 12.34,
            "memory_bytes": 11_500_000,
            "runtime_bytes": None,
            **shared,
            "ops": [{"op": "CONV_2D", "count": 9, "share": 0.875, **shared}],
            "delegate": {"parts": 3, "taken": 17, "left": {"QUANTIZE": 1, "SOFTMAX": 2}},
        },
        "pareto": True,
        "fine_tuning": {
            "kept": True,
            "steps": 1400,
            "images": 5000,
            "cost": 0.04,
            "cost_error": 0.002,
            "loss_before": 0.49,
            "loss_after": 0.46,
        },
        **changes,
    }


@pytest.fixture
def exported(make_run: MakeRun) -> Callable[..., Path]:
    def made(**changes: Any) -> Path:
        folder = make_run("r", "simulate", exported=True)
        content = json.loads((folder / "export.json").read_text())
        content["variants"][1] |= {"within_tolerance": False, **figures(**changes)}
        (folder / "export.json").write_text(json.dumps(content))
        return folder

    return made


def tables(folder: Path) -> dict[str, Table]:
    (section,) = phone.section(files.read(folder))
    return {each.caption: each for each in section.blocks if isinstance(each, Table)}


def test_files_of_before_have_their_section(make_run: MakeRun) -> None:
    found = tables(make_run("old", exported=True))
    assert list(found) == ["Phone models", "Operations in each model"]
    header = ("model", "size", "accuracy", "same answer", "latency", "95%")
    assert found["Phone models"].header == header


def test_each_model_has_a_row_of_what_counts(exported: Callable[..., Path]) -> None:
    table = tables(exported())["Phone models"]
    first, second = (dict(zip(table.header, row, strict=True)) for row in table.rows)
    assert second["worst region"] == "-1.23 (asia)"
    assert second["Pareto"] == "yes"
    assert second["gates"] == "1 of 2, kept"
    assert first["worst region"] == first["Pareto"] == first["gates"] == "–"


def test_the_details_are_folded_and_whole(exported: Callable[..., Path]) -> None:
    found = tables(exported())
    rows = {name: len(table.rows) for name, table in found.items() if table.fold}
    ops = rows.pop("Operations in each model")
    assert ops == 6
    assert rows == {
        "By region": 3,
        "Gates": 2,
        "Latency by threads, with XNNPACK and without": 4,
        "Work, memory and exactness": 1,
        "Time by operation, each timed alone": 1,
    }
    assert all(len(row) == len(table.header) for table in found.values() for row in table.rows)


def test_a_model_that_was_kept_all_the_same_is_warned_of(exported: Callable[..., Path]) -> None:
    (section,) = phone.section(files.read(exported()))
    told = [each.text for each in section.blocks if isinstance(each, Prose)]
    line = "int8 fails the gate size and was kept all the same: 98,312 bytes; the limit is at most 98,000."
    assert line in told


def test_ops_that_the_delegate_leaves_are_named(exported: Callable[..., Path]) -> None:
    (section,) = phone.section(files.read(exported()))
    _, points = (each for each in section.blocks if isinstance(each, Points))
    assert points.items == ("int8: 1 QUANTIZE, 2 SOFTMAX; it takes the rest in 3 parts",)


@pytest.mark.parametrize(
    ("changes", "said"),
    [({}, "brought it from 0.4900 to 0.4600, and were kept"), ({"loss_after": None}, "is chance")],
)
def test_what_fine_tuning_won_is_told(
    exported: Callable[..., Path], changes: dict[str, Any], said: str
) -> None:
    tuned = figures()["fine_tuning"] | changes
    (section,) = phone.section(files.read(exported(fine_tuning=tuned)))
    points, _ = (each for each in section.blocks if isinstance(each, Points))
    (item,) = points.items
    assert item.startswith("int8: rounding changed the loss by +0.0400") and said in item


def test_a_dynamic_batch_and_the_converter_are_told(exported: Callable[..., Path]) -> None:
    folder = exported()
    content = json.loads((folder / "export.json").read_text())
    content["input"]["shape"][0], content["converter"] = -1, "litert"
    (folder / "export.json").write_text(json.dumps(content))
    (section,) = phone.section(files.read(folder))
    lead = section.blocks[0]
    assert isinstance(lead, Prose)
    assert "converted by litert, that take uint8 images [any x 8 x 8 x 1]" in lead.text


def test_figures_of_clients_data_are_said_to_be_covered_by_no_epsilon(
    exported: Callable[..., Path],
) -> None:
    folder = exported()
    assert "covered by no epsilon" not in Outline(report([folder])).text
    result = json.loads((folder / "result.json").read_text())
    (folder / "result.json").write_text(json.dumps(result | {"epsilon": 3.2, "delta": 1e-5}))
    assert "covered by no epsilon" in Outline(report([folder])).text


def test_the_page_and_the_comparison_hold_it_all_as_text(exported: Callable[..., Path]) -> None:
    folder = exported()
    page = report([folder])
    text = Outline(page).text
    assert "<b>africa" in text and "<b>africa" not in page.read_text(encoding="utf-8")
    for said in ("12,501,632", "371 kB", "12.3 ms", "11.5 MB", "87.50%", "0.200 ms", "client 17"):
        assert said in text
    both = Outline(report([folder, folder], folder / "both.html")).text
    assert "-1.23 (asia)" in both and "1 of 2, kept" in both


def hostile(name: str, value: Any) -> dict[str, Any]:
    """The figures with something else at a place."""
    changed = figures()
    *places, last = name.split(".")
    target = changed
    for place in places:
        target = target[place]
    target[last] = value
    return changed


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("gates", {"ops": True}),
        ("gates", [{"name": "ops"}]),
        ("overridden", "no"),
        ("groups.data", "somebody's"),
        ("groups.clients", -1),
        ("groups.worst_region", {"loss": 0.0}),
        ("groups.regions", {"asia": None}),
        ("phone.memory_bytes", -1),
        ("phone.multiply_adds", 1.5),
        ("phone.first_run_ms", "</style>"),
        ("phone.ops", [{"op": "CONV_2D", "share": 2}]),
        ("phone.delegate", {"parts": 1, "taken": 1, "left": {"CAST": "many"}}),
        ("pareto", 7),
    ],
)
def test_other_content_is_refused(exported: Callable[..., Path], name: str, value: Any) -> None:
    folder = exported(**hostile(name, value))
    with pytest.raises(UserError, match=r"export\.json: \$\.variants\[1\]\." + name.split(".")[0]):
        files.read(folder)
