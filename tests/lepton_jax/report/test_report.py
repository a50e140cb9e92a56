"""Pages: they stand alone, say what the files say, and let nothing through that isn't text."""

import base64
import json
import re
import sys
from collections.abc import Callable, Sequence
from html.parser import HTMLParser
from io import BytesIO
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from lepton_jax import data
from lepton_jax.checks import UserError
from lepton_jax.data.splits import Examples, Splits
from lepton_jax.report import report
from lepton_jax.report.blocks import Prose
from lepton_jax.report.files import read
from lepton_jax.report.lookup import data_uri, look_up
from lepton_jax.report.privacy import privacy

MakeRun = Callable[..., Path]
UseClasses = Callable[[Sequence[str]], Splits]
DIGITS = tuple(str(digit) for digit in range(10))
HOSTILE = (
    *("<script>alert(1)</script>", "猫", "$x^2$", "_under", "cat & dog", "'quote\"", "two\nlines"),
    *("Ελλάδα", "a" * 60, "\u202eright to left"),
)
_EMPTY = {"meta", "img", "path", "use", "rect", "image", "circle", "br"}


class Outline(HTMLParser):
    """Ids, links, what is loaded and whether every element is closed."""

    def __init__(self, page: Path) -> None:
        super().__init__()
        self.ids: list[str] = []
        self.targets: list[str] = []
        self.tags: set[str] = set()
        self.text = ""
        self._open: list[str] = []
        self.feed(page.read_text(encoding="utf-8"))
        assert not self._open

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.add(tag)
        values = dict(attrs)
        self.ids += [value for name, value in attrs if name == "id" and value]
        self.targets += [v for k in ("href", "src", "xlink:href") if (v := values.get(k))]
        assert not any(name.startswith("on") for name in values)
        if tag not in _EMPTY:
            self._open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.handle_starttag(tag, attrs)
        if tag not in _EMPTY:
            self._open.pop()

    def handle_endtag(self, tag: str) -> None:
        if tag not in _EMPTY:
            assert self._open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.text += data


def sections(page: Path) -> list[str]:
    return re.findall(r'<section id="(\w+)"', page.read_text(encoding="utf-8"))


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ({"kind": "train"}, "curves classes samples config"),
        (
            {"kind": "simulate", "private": True, "exported": True},
            "curves classes samples clients data traffic privacy phone config",
        ),
    ],
)
def test_a_page_stands_alone(make_run: MakeRun, options: dict, expected: str) -> None:
    page = report([make_run(**options)])
    outline = Outline(page)
    assert sections(page) == expected.split()
    assert "script" not in outline.tags and "link" not in outline.tags
    assert all(target.startswith(("#", "data:image/png;base64,")) for target in outline.targets)
    assert {t[1:] for t in outline.targets if t.startswith("#")} <= set(outline.ids)
    assert len(outline.ids) == len(set(outline.ids))
    text = page.read_text(encoding="utf-8")
    assert "default-src 'none'" in text
    assert not re.search(r"url\((?!#)|@import|https?://", text)


def test_a_run_gives_the_same_page_and_plots_every_time(make_run: MakeRun, tmp_path: Path) -> None:
    folder = make_run("r", "simulate", private=True)
    first = report([folder], tmp_path / "a/report.html")
    second = report([folder], tmp_path / "b/report.html")
    assert first.read_bytes() == second.read_bytes()
    names = {path.name for path in (tmp_path / "a/plots").iterdir()}
    kinds = ("accuracy", "loss", "confusion", "clients", "labels", "epsilon")
    assert names == {f"{kind}.png" for kind in kinds}
    for name in names:
        drawn = (tmp_path / "a/plots" / name).read_bytes()
        assert drawn == (tmp_path / "b/plots" / name).read_bytes()


def test_the_page_says_what_the_files_say(make_run: MakeRun) -> None:
    folder = make_run("r", "simulate", private=True, exported=True)
    page = report([folder])
    assert page == folder / "report.html"
    text = Outline(page).text
    records = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    for direction in ("bytes_up", "bytes_down"):
        assert f"{sum(record[direction] for record in records):,} bytes" in text
        assert f"{records[6][direction]:,}" in text
    accuracy = json.loads((folder / "evaluation.json").read_text())["test"]["accuracy"]
    assert f"{accuracy:.2%}" in text
    for figure in ("77,898", "3.2", "1e-05", "1.1", "0.5", "0.3333", "98.3 kB", "africa"):
        assert figure in text
    assert "What epsilon does not cover" in text
    assert '[federated.noise]\nkind = "gaussian"' in text


def test_a_private_run_in_one_place_says_what_protects_its_examples(make_run: MakeRun) -> None:
    text = Outline(report([make_run("r", "train", private=True)])).text
    for said in ("in one place, with differential privacy", "private for each training example"):
        assert said in text
    for figure in ("3.2", "1.3", "0.7", "1e-05", "after 12 epochs", "Epsilon over epochs"):
        assert figure in text


def test_a_run_in_one_place_without_noise_has_no_section_on_privacy(make_run: MakeRun) -> None:
    assert privacy(read(make_run("r", "train")), {}) == []


def test_a_federated_run_without_noise_claims_no_privacy(make_run: MakeRun) -> None:
    (section,) = privacy(read(make_run("r", "simulate")), {})
    (said,) = section.blocks
    assert isinstance(said, Prose) and "No noise was added: there is no epsilon" in said.text


def test_an_unfinished_run_has_a_page_of_what_there_is(make_run: MakeRun) -> None:
    folder = make_run()
    for name in ("result.json", "evaluation.json"):
        (folder / name).unlink()
    page = report([folder])
    assert sections(page) == ["curves", "config"]
    assert "The run is not finished." in Outline(page).text
    (folder / "metrics.jsonl").write_text("")
    assert sections(report([folder])) == ["config"]


def test_names_of_users_are_text_and_nothing_else(
    make_run: MakeRun, use_classes: UseClasses
) -> None:
    use_classes(HOSTILE)
    page = report([make_run("r", "simulate", exported=True, classes=HOSTILE)])
    outline = Outline(page)
    assert "script" not in outline.tags
    assert all(name in outline.text for name in HOSTILE)


def test_a_thousand_classes_have_a_page(make_run: MakeRun, use_classes: UseClasses) -> None:
    names = tuple(f"kind {i}" for i in range(1000))
    use_classes(names)
    page = report([make_run(classes=names)])
    assert page.stat().st_size < 1_000_000
    text = page.read_text(encoding="utf-8")
    assert "kind 999" in text and 'class="matrix' not in text


def test_without_the_data_the_samples_are_left_out(
    make_run: MakeRun, monkeypatch: pytest.MonkeyPatch
) -> None:
    def gone(config: object) -> Splits:
        raise UserError("data.path", "an image folder", "nothing")

    monkeypatch.setattr(data, "load", gone)
    text = Outline(report([make_run("named", exported=True, classes=HOSTILE)])).text
    assert "The images are left out" in text and "expected an image folder, got nothing" in text
    assert "猫" in text and "77,898" in text  # export.json knows names and shape
    unknown = look_up(read(make_run("numbered")))
    assert unknown.classes[9] == "class 9" and unknown.parameters is None


@pytest.mark.parametrize("change", ["labels", "count"])
def test_data_that_changed_since_are_not_used(
    make_run: MakeRun, use_classes: UseClasses, monkeypatch: pytest.MonkeyPatch, change: str
) -> None:
    splits = use_classes(DIGITS)
    images, labels, _ = splits.test
    test = Examples(images, np.roll(labels, 1), None)
    if change == "count":
        test = Examples(images[:5], labels[:5], None)
    monkeypatch.setattr(data, "load", lambda config: splits._replace(test=test))
    found = look_up(read(make_run()))
    assert "data that changed since" in found.missing and not found.samples


def test_a_sample_is_shown_pixel_by_pixel(use_classes: UseClasses) -> None:
    image = use_classes(DIGITS).test.images[0]
    for shown in (image, image.repeat(3, axis=-1)):
        content = base64.b64decode(data_uri(shown).removeprefix("data:image/png;base64,"))
        with Image.open(BytesIO(content)) as png:
            assert (np.asarray(png).reshape(shown.shape) == shown).all()


def test_several_runs_are_compared(
    make_run: MakeRun, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    runs = [make_run("alone", exported=True), make_run("together", "simulate", private=True)]
    monkeypatch.chdir(tmp_path)
    page = report(runs)
    assert page == Path("comparison.html")
    assert sections(page) == ["figures", "curves", "phone", "config"]
    text = Outline(page).text
    for figure in (
        "alone",
        "together",
        "12 epochs",
        "40 rounds",
        "train.epochs",
        "federated.noise",
    ):
        assert figure in text
    assert "data.name" not in text  # both have the same
    names = {path.name for path in Path("plots").iterdir()}
    assert names == {"epochs-and-rounds.png", "seconds.png", "bytes.png"}


def test_without_the_extra_the_remedy_is_named(
    make_run: MakeRun, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "jinja2", None)
    with pytest.raises(UserError, match=r"pip install 'lepton-jax\[report\]'"):
        report([make_run()])


def test_no_run_and_no_place_to_write_are_users_mistakes(make_run: MakeRun) -> None:
    with pytest.raises(UserError, match="at least one run folder"):
        report([])
    folder = make_run()
    with pytest.raises(UserError, match="a file to write"):
        report([folder], folder / "config.toml" / "report.html")
