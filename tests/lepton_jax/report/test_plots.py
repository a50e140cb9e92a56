"""Plots: drawn without pyplot, the same every time, and never stopped by a name."""

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from lepton_jax.report import files, plots, style
from lepton_jax.report.contents import ClientData, Partition

MakeRun = Callable[..., Path]


@pytest.mark.parametrize(
    ("name", "drawn"),
    [
        ("cat", "cat"),
        ("猫", "class 1"),  # the font has no glyph: a warning, and a box in the plot
        ("_cat", "class 1"),  # Matplotlib would keep it out of a legend
        ("two\nlines", "class 1"),
        ("$x^2$", "$x^2$"),
        ("a" * 18, "a" * 18),
        ("a" * 19, "a" * 17 + "…"),
    ],
)
def test_a_name_that_cannot_be_drawn_is_replaced(name: str, drawn: str) -> None:
    assert style.label(name, "class 1") == drawn


def test_every_plot_that_the_files_allow_is_made(make_run: MakeRun) -> None:
    central, private = make_run("c"), make_run("p", "simulate", private=True)
    names = plots.numbered(10)
    assert set(plots.of_run(files.read(central), names)) == {"accuracy", "loss", "confusion"}
    of_all = {"accuracy", "loss", "confusion", "clients", "labels", "epsilon"}
    assert set(plots.of_run(files.read(private), names)) == of_all


def test_the_same_plot_has_the_same_bytes(make_run: MakeRun) -> None:
    run = files.read(make_run())
    first, second = plots.curve(run, "loss"), plots.curve(run, "loss")
    assert style.svg(first, "loss") == style.svg(second, "loss")
    assert style.png(first) == style.png(second)


def test_svg_takes_its_colours_and_fonts_from_the_page(make_run: MakeRun) -> None:
    drawn = style.svg(plots.curve(files.read(make_run()), "accuracy"), "accuracy")
    assert drawn.startswith("<svg viewBox=")
    assert "var(--series-0)" in drawn and "#0072b2" not in drawn
    assert ">train " in drawn  # text, not outlines


def test_pyplot_stays_out_of_it(make_run: MakeRun) -> None:
    code = (
        "import pathlib, sys; from lepton_jax.report import plots; "
        "plots.overview([pathlib.Path(sys.argv[1])]); sys.exit('matplotlib.pyplot' in sys.modules)"
    )
    root = Path(plots.__file__).parents[2]
    command = [sys.executable, "-c", code, str(make_run())]  # a process that only plots
    assert subprocess.run(command, cwd=root).returncode == 0


def test_the_overview_of_a_federated_run_has_its_clients(make_run: MakeRun) -> None:
    central, federated = make_run("c"), make_run("f", "simulate", exported=True)
    alone = plots.overview([central])
    assert [axes.get_title("left") for axes in alone.axes] == ["Accuracy", "Confusion, images"]
    both = [axes.get_title("left") for axes in plots.overview([central, federated]).axes]
    assert both[2:] == ["Accuracy of each client, by region", "What each client holds"]


def test_runs_with_one_name_are_told_apart_by_their_folders(
    make_run: MakeRun, tmp_path: Path
) -> None:
    run = files.read(make_run("a"))
    assert plots.titles([run]) == ("a",)
    assert plots.titles([run, run._replace(folder=tmp_path / "b")]) == ("a", "b")
    assert plots.titles([run, run._replace(folder=tmp_path / "b/a")])[1].endswith("b/a")


@pytest.mark.parametrize(("clients", "classes"), [(201, 3), (4, 11)])
def test_many_clients_or_classes_are_drawn_as_an_image(clients: int, classes: int) -> None:
    held = [ClientData(i, "here", [], [], [i % 2] * classes) for i in range(clients)]
    axes = plots.labels(Partition("iid", 0, held), plots.numbered(classes)).axes[0]
    assert len(axes.images) == 1 and not axes.patches


def test_a_loss_that_falls_far_is_drawn_logarithmically(make_run: MakeRun) -> None:
    run = files.read(make_run())
    deep = run.records[-1].train
    assert deep is not None and run.records[0].train is not None
    assert plots.curve(run, "loss").axes[0].get_yscale() == "linear"
    steep = [*run.records[:-1], type(run.records[0])(epoch=12, train=type(deep)(1e-4, 1.0))]
    drawn = plots.curve(run._replace(records=steep), "loss")
    assert drawn.axes[0].get_yscale() == "log"
    style.png(drawn)


def test_a_confusion_matrix_of_a_thousand_classes_is_an_image() -> None:
    counts = [[int(i == j) for j in range(1000)] for i in range(1000)]
    axes = plots.confusion(counts, plots.numbered(1000)).axes[0]
    assert len(axes.images) == 1 and not axes.texts
