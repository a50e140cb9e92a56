"""Archives of images: the good are unpacked once, the hostile leave nothing and nobody else alone."""

import gzip
import random
import zipfile
from pathlib import Path

import numpy as np
import pytest

from lepton_jax.checks import UserError
from lepton_jax.config import Data
from lepton_jax.data import archive, folder, load, members
from tests.lepton_jax.data import hostile
from tests.lepton_jax.data.hostile import PICTURES, Entries, Made, png, tar_of, zip_of

pytestmark = pytest.mark.usefixtures("fresh_cache")


def save(tmp_path: Path, made: Made) -> Path:
    name, content = made
    (tmp_path / "in").mkdir(exist_ok=True)
    path = tmp_path / "in" / name
    path.write_bytes(content)
    return path


def held(root: Path) -> dict[str, bytes]:
    """Every file below, links as such."""
    return {
        str(path.relative_to(root)): b"a link" if path.is_symlink() else path.read_bytes()
        for path in root.rglob("*")
        if path.is_symlink() or path.is_file()
    }


def forms(entries: Entries) -> list[Made]:
    tar = tar_of(entries)
    return [
        ("photos.zip", zip_of(entries)),
        ("photos.tar", tar),
        ("photos.tar.gz", gzip.compress(tar)),
        ("PHOTOS.TGZ", gzip.compress(tar)),
    ]


@pytest.mark.parametrize("made", forms(PICTURES), ids=lambda made: made[0])
def test_an_archive_holds_what_its_folder_does(made: Made, tmp_path: Path) -> None:
    path = save(tmp_path, made)
    found = archive.unpacked(path, folder.SUFFIXES)
    assert held(found.folder) == dict(PICTURES)
    assert archive.unpacked(path, folder.SUFFIXES) == found


@pytest.mark.parametrize("made", forms(PICTURES), ids=lambda made: made[0])
def test_a_data_set_may_be_an_archive(made: Made, tmp_path: Path) -> None:
    path = save(tmp_path, made)
    config = Data(name="folder", path=str(path), validation_fraction=0.0, test_fraction=0.34)
    splits = load(config)
    assert splits.info.classes == ("cat", "dog") and splits.info.name.lower() == "photos"
    assert len(splits.train.images) + len(splits.test.images) == len(PICTURES)
    again = load(config)
    np.testing.assert_array_equal(splits.train.images, again.train.images)


@pytest.mark.parametrize("around", ["photos/", "a/b/", "./", "./photos/"])
def test_what_is_packed_with_a_folder_around_it_is_the_same(around: str, tmp_path: Path) -> None:
    entries = [(around + name, content) for name, content in PICTURES]
    source = folder.source(str(save(tmp_path, ("a.tar", tar_of(entries)))))
    assert source.classes == ("cat", "dog") and source.regions == ()


def test_one_split_alone_is_no_folder_around(tmp_path: Path) -> None:
    entries = [(f"train/{name}", content) for name, content in PICTURES]
    assert folder.source(str(save(tmp_path, ("a.zip", zip_of(entries))))).classes == ("cat", "dog")


def test_what_is_no_image_stays_in_the_archive(tmp_path: Path) -> None:
    _, inner = forms(PICTURES)[0]
    others = [("readme.txt", b"hi"), ("cat/more.zip", inner), ("__MACOSX/cat/._0.png", b"x")]
    found = archive.unpacked(
        save(tmp_path, ("a.zip", zip_of([*others, *PICTURES]))), folder.SUFFIXES
    )
    assert held(found.folder) == dict(PICTURES)


def test_another_archive_of_the_same_name_is_another_source(tmp_path: Path) -> None:
    first = folder.source(str(save(tmp_path, ("a.zip", zip_of(PICTURES)))))
    changed = [*PICTURES[:-1], (PICTURES[-1][0], png(255))]
    second = folder.source(str(save(tmp_path, ("a.zip", zip_of(changed)))))
    assert first.identity != second.identity


def test_errors_name_the_archive_and_the_place_in_it(tmp_path: Path) -> None:
    broken = [*PICTURES[:-1], (PICTURES[-1][0], b"no image")]
    path = save(tmp_path, ("a.zip", zip_of(broken)))
    with pytest.raises(UserError, match=rf"{path}/dog/2\.png: expected a readable image"):
        load(Data(name="folder", path=str(path)))
    deep = [(f"a/b/c/d/{name}", content) for name, content in PICTURES] + [("x/y.png", png(0))]
    path = save(tmp_path, ("b.zip", zip_of(deep)))
    with pytest.raises(UserError, match=rf"{path}/a/b/c/d: expected at most split/region/class"):
        folder.source(str(path))


@pytest.mark.parametrize("number", range(8))
def test_125_hostile_archives_are_refused_or_harmless(
    number: int, tmp_path: Path, fresh_cache: Path
) -> None:
    (tmp_path / "outside").mkdir()
    (tmp_path / "outside" / "mine").write_text("untouched")
    refused = 0
    for seed in range(125 * number, 125 * (number + 1)):
        rng = random.Random(seed)
        kinds = (*hostile.REFUSED, *hostile.DAMAGED)
        make = kinds[seed % len(kinds)]
        path = save(tmp_path, make(rng))
        before = {name: held(tmp_path / name) for name in ("in", "outside")}
        try:
            archive.unpacked(path, folder.SUFFIXES)
        except UserError as error:
            refused += 1
            assert str(path) in str(error) and "\n" not in str(error), (seed, make, error)
            assert held(fresh_cache) == {}, (seed, make)
            assert not any((fresh_cache / "archives").glob("*")), (seed, make)
        else:
            assert make in hostile.DAMAGED, (seed, make)
            for name in held(fresh_cache):
                (fresh_cache / name).unlink()
            for left in sorted(fresh_cache.glob("archives/**/"), reverse=True)[:-1]:
                left.rmdir()
        assert {name: held(tmp_path / name) for name in ("in", "outside")} == before, (seed, make)
        assert sorted(p.name for p in tmp_path.iterdir()) in (
            ["cache", "in", "outside"],
            ["in", "outside"],
        )
        path.unlink()
    assert refused > 100


@pytest.mark.parametrize("make", hostile.REFUSED, ids=lambda make: make.__name__)
def test_each_kind_of_hostile_archive_is_refused(make: hostile.Maker, tmp_path: Path) -> None:
    for seed in range(5):
        with pytest.raises(UserError):
            archive.unpacked(save(tmp_path, make(random.Random(seed))), folder.SUFFIXES)


def test_too_many_members_are_refused_before_they_are_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(members, "ENTRIES", 5)
    for made in forms(PICTURES):
        with pytest.raises(UserError, match="at most 5 members"):
            archive.unpacked(save(tmp_path, made), folder.SUFFIXES)


def test_more_bytes_than_the_stated_total_are_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, fresh_cache: Path
) -> None:
    monkeypatch.setattr(archive, "TOTAL_BYTES", sum(len(content) for _, content in PICTURES) - 1)
    for made in forms(PICTURES):
        with pytest.raises(UserError, match="bytes unpacked"):
            archive.unpacked(save(tmp_path, made), folder.SUFFIXES)
    assert held(fresh_cache) == {}


def test_a_member_that_inflates_beyond_what_it_states_is_stopped(tmp_path: Path) -> None:
    """The directory and the header say 1 MiB; the stream goes on to 8."""
    random_bytes = random.Random(0).randbytes(2**23)
    content = bytearray(zip_of([("cat/0.png", random_bytes)]))
    for signature, field in ((b"PK\x01\x02", 24), (b"PK\x03\x04", 22)):
        at = content.index(signature) + field
        content[at : at + 4] = (2**20).to_bytes(4, "little")
    with pytest.raises(UserError, match="whole archive"):
        archive.unpacked(save(tmp_path, ("a.zip", bytes(content))), folder.SUFFIXES)


def test_another_compression_is_refused(tmp_path: Path) -> None:
    content = zip_of(PICTURES, zipfile.ZIP_LZMA)
    with pytest.raises(UserError, match="expected a member stored or deflated"):
        archive.unpacked(save(tmp_path, ("a.zip", content)), folder.SUFFIXES)


@pytest.mark.parametrize("path", ["~no-such-user/x", "a" * 5000, "a\0b", "photos.rar", "none.zip"])
def test_a_path_to_nothing_is_one_line(path: str) -> None:
    with pytest.raises(UserError, match=r"data\.path: expected the root of an image folder"):
        folder.source(path)
