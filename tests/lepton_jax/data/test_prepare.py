"""What is ready is listed; what can't be prepared says why, in one line."""

import importlib
import socket
from pathlib import Path
from typing import Any

import pytest

from lepton_jax.checks import UserError
from lepton_jax.data import available, prepare


def test_the_list_holds_digits_prepared_sets_and_how_to_get_others(tiny_tfds: Path) -> None:
    rows = {row.name: row for row in available(tiny_tfds)}
    assert list(rows) == ["digits", "tiny", "mnist", "cifar10"]
    assert rows["digits"][1:] == ("embedded", "train 1797")
    assert rows["tiny"][1:] == (str(tiny_tfds / "tiny/1.0.0"), "train 12, test 4")
    assert rows["mnist"].examples == "not prepared: lepton data prepare mnist"


def test_the_list_works_where_there_is_no_folder(tmp_path: Path) -> None:
    assert [row.name for row in available(tmp_path / "none")] == ["digits", "mnist", "cifar10"]


def test_what_is_prepared_already_is_left_alone(tiny_tfds: Path) -> None:
    assert prepare("tiny", tiny_tfds) == tiny_tfds / "tiny/1.0.0"


@pytest.mark.parametrize(
    ("name", "line"),
    [
        ("mnst", r"name: expected the name of a TFDS set, got 'mnst'; did you mean mnist\?"),
        ("digits", "it needs no preparation"),
        ("imdb_reviews", "imdb_reviews: expected a set of labelled images, got features"),
        ("cifar10_corrupted/none", "a set that TFDS can build"),
    ],
)
def test_what_cannot_be_prepared_says_why(name: str, line: str, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=line) as error:
        prepare(name, tmp_path)
    assert "\n" not in str(error.value)


def test_without_a_network_it_says_so_at_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def unreachable(host: str, port: int) -> None:
        raise socket.gaierror(-2, "Name or service not known")

    module = importlib.import_module("lepton_jax.data.prepare")
    monkeypatch.setattr(module.urllib.request, "getproxies", dict)
    monkeypatch.setattr(module.socket, "getaddrinfo", unreachable)
    with pytest.raises(UserError, match=r"mnist: expected a network that reaches .*; connect"):
        prepare("mnist", tmp_path)


def test_a_failure_of_tfds_is_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    class Failing:
        def download_and_prepare(self) -> None:
            raise RuntimeError("checksum of x differs\nlong advice")

    module = importlib.import_module("lepton_jax.data.prepare")
    monkeypatch.setattr(module, "_builder", lambda name, root: Failing())
    for check in ("_refuse_other_tasks", "_refuse_offline"):
        monkeypatch.setattr(module, check, lambda name, builder: None)
    with pytest.raises(UserError, match=r"mnist: .*, got checksum of x differs; try again"):
        prepare("mnist", tmp_path)


def test_prepare_returns_the_folder_it_filled(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Working:
        data_dir = tmp_path / "some/1.0.0"

        def download_and_prepare(self) -> Any:
            self.data_dir.mkdir(parents=True)

    module = importlib.import_module("lepton_jax.data.prepare")
    monkeypatch.setattr(module, "_builder", lambda name, root: Working())
    for check in ("_refuse_other_tasks", "_refuse_offline"):
        monkeypatch.setattr(module, check, lambda name, builder: None)
    assert prepare("some", tmp_path) == tmp_path / "some/1.0.0"
