"""A folder of images says by its sub-folders what is what; what doesn't fit is named."""

import os
from collections.abc import Callable
from pathlib import Path

import pytest

from lepton_jax.checks import UserError
from lepton_jax.data import folder

MakeFolder = Callable[..., Path]


def records(root: Path, split: str = "train") -> list[tuple[str, str, str]]:
    """(region, class, file) of each record."""
    source = folder.source(str(root))
    regions = source.regions or ("",)
    return [
        (regions[record.region], source.classes[record.label], Path(record.place).name)
        for record in source.records(split)
    ]


def test_split_and_class_folders(make_folder: MakeFolder) -> None:
    root = make_folder("train/cat", "train/dog", "val/cat", "val/dog", "test/cat", "test/dog")
    source = folder.source(str(root))
    assert source.classes == ("cat", "dog") and source.regions == ()
    assert source.counts == {"train": 4, "validation": 4, "test": 4}
    assert records(root, "test") == [
        ("", "cat", "0.png"),
        ("", "cat", "1.png"),
        ("", "dog", "0.png"),
        ("", "dog", "1.png"),
    ]


def test_top_folders_that_are_no_splits_are_regions(make_folder: MakeFolder) -> None:
    root = make_folder("north/cat", "north/dog", "south/dog", count=1)
    assert folder.source(str(root)).counts == {"train": 3}
    assert records(root) == [
        ("north", "cat", "0.png"),
        ("north", "dog", "0.png"),
        ("south", "dog", "0.png"),
    ]


def test_splits_may_hold_regions(make_folder: MakeFolder) -> None:
    root = make_folder("train/n/cat", "train/s/dog", "test/n/cat", "test/n/dog", count=1)
    assert records(root) == [("n", "cat", "0.png"), ("s", "dog", "0.png")]
    assert records(root, "test") == [("n", "cat", "0.png"), ("n", "dog", "0.png")]


def test_class_folders_alone_are_the_training_split(make_folder: MakeFolder) -> None:
    root = make_folder("cat", "dog", count=1)
    assert records(root) == [("", "cat", "0.png"), ("", "dog", "0.png")]


def test_splits_are_known_in_any_case(make_folder: MakeFolder) -> None:
    root = make_folder("Train/cat", "Train/dog", "TEST/cat", "TEST/dog")
    assert folder.source(str(root)).counts == {"train": 4, "test": 4}


def test_hidden_and_other_files_are_ignored(make_folder: MakeFolder) -> None:
    root = make_folder("cat", "dog", count=1)
    for name in (".DS_Store", "cat/._0.png", "cat/notes.txt", "labels.csv"):
        (root / name).write_text("no image")
    (root / ".git/objects").mkdir(parents=True)
    (root / "cat/0.png").rename(root / "cat/0.PNG")
    assert records(root) == [("", "cat", "0.PNG"), ("", "dog", "0.png")]


def test_a_changed_file_changes_the_identity(make_folder: MakeFolder) -> None:
    root = make_folder("cat", "dog")
    before = folder.source(str(root)).identity
    assert folder.source(str(root)).identity == before
    os.utime(root / "cat/0.png", ns=(1, 1))
    assert folder.source(str(root)).identity != before


@pytest.mark.parametrize(
    ("places", "empty", "line"),
    [
        ((), (".",), r"images: expected an image folder, split/class/.*, got none"),
        (("cat", "dog"), ("emu",), r"emu: expected a folder with images, got none \(.jpg, "),
        (("train/cat", "train/dog"), ("test/cat",), r"test/cat: expected a folder with images"),
        (("train/cat", "train/dog", "extra/cat"), (), "only train, validation and test, got extra"),
        (("val/cat", "val/dog", "test/cat", "test/dog"), (), "expected a folder train, got test, "),
        (("train/a", "train/b", "val/a", "valid/b"), (), "one folder a split, got train, val, val"),
        (("train/a", "train/b", "test/a", "test/c"), (), r"test/c: .*classes \(a, b\), got c; add"),
        (("train/a", "train/b", "test/a"), (), "every class of train in test, got none of b"),
        (("a",), (), "at least 2 classes, got only a"),
        ((".",), (), r"images in split/class/.*, got 0.png; move it into its class"),
        (("train", "train/a"), (), r"got train/0.png; move it"),
        (("n/a/b/c", "n/a/b/d"), (), r"images in .*, got n/a/b/c/0.png|at most split/region/class"),
        (("n/a", "n/b", "c"), (), "c: expected a region with class folders"),
    ],
)
def test_what_does_not_fit_is_named_in_one_line(
    make_folder: MakeFolder,
    tmp_path: Path,
    places: tuple[str, ...],
    empty: tuple[str, ...],
    line: str,
) -> None:
    make_folder(*places)
    for place in empty:
        (tmp_path / "images" / place).mkdir(parents=True)
    with pytest.raises(UserError, match=line) as error:
        folder.source(str(tmp_path / "images"))
    assert "\n" not in str(error.value)


def test_a_path_that_is_missing_or_a_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"data.path: .*none, which does not exist"):
        folder.source(str(tmp_path / "none"))
    (tmp_path / "file").touch()
    with pytest.raises(UserError, match=r"data.path: .*got a file"):
        folder.source(str(tmp_path / "file"))


def test_a_loop_of_links_ends(make_folder: MakeFolder) -> None:
    root = make_folder("cat", "dog")
    (root / "cat/again").symlink_to(root)
    with pytest.raises(UserError, match="at most split/region/class"):
        folder.source(str(root))


def test_a_folder_that_may_not_be_read_is_named(
    make_folder: MakeFolder, monkeypatch: pytest.MonkeyPatch
) -> None:
    root = make_folder("cat", "dog")

    def refuse(path: Path) -> None:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(os, "scandir", refuse)
    with pytest.raises(
        UserError, match="images: expected a readable folder, got Permission denied"
    ):
        folder.source(str(root))
