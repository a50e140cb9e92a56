"""From a config to splits: disjoint, complete, reproducible, measured, and explained if unfit."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from lepton_jax import cache
from lepton_jax.checks import UserError
from lepton_jax.config import Data
from lepton_jax.data import describe
from lepton_jax.data.load import load
from lepton_jax.data.splits import Examples, Splits

MakeFolder = Callable[..., Path]


def parts(splits: Splits) -> tuple[Examples, Examples, Examples]:
    return splits.train, splits.validation, splits.test


def rows(examples: Examples) -> list[bytes]:
    return [image.tobytes() for image in examples.images]


def test_the_embedded_digits_are_real_bytes_with_labels() -> None:
    from sklearn.datasets import load_digits

    splits, digits = load(Data()), load_digits()
    assert [len(part.labels) for part in parts(splits)] == [1294, 144, 359]
    ours = sorted(row for part in parts(splits) for row in rows(part))
    theirs = np.rint(digits.images * 255 / 16).astype(np.uint8)
    assert ours == sorted(image.tobytes() for image in theirs)
    counts = sum(np.bincount(part.labels, minlength=10) for part in parts(splits))
    assert np.array_equal(counts, np.bincount(digits.target))
    assert splits.train.images.max() == 255 and splits.info.classes == tuple("0123456789")


def test_the_same_seed_divides_alike_and_another_differently() -> None:
    first, second, third = (load(Data(split_seed=seed)) for seed in (1, 1, 2))
    for one, same, other in zip(parts(first), parts(second), parts(third), strict=True):
        assert rows(one) == rows(same) != rows(other)


def test_the_validation_fraction_leaves_the_test_split_alone() -> None:
    without, much = load(Data(validation_fraction=0.0)), load(Data(validation_fraction=0.5))
    assert rows(without.test) == rows(much.test)
    assert sorted(rows(without.train)) == sorted(rows(much.train) + rows(much.validation))
    assert len(without.validation.labels) == 0


def test_the_second_load_decodes_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    first = load(Data())
    monkeypatch.setattr(cache, "tempfile", None)
    assert rows(load(Data()).train) == rows(first.train)


def test_images_are_mapped_and_contiguous() -> None:
    images = load(Data()).train.images
    assert images.flags.c_contiguous and not images.flags.owndata and not images.flags.writeable


def test_statistics_are_those_of_the_training_split() -> None:
    splits = load(Data(channels=3))
    pixels = splits.train.images.astype(np.float64) / 255
    np.testing.assert_allclose(splits.info.mean, pixels.mean((0, 1, 2)), rtol=1e-12)
    np.testing.assert_allclose(splits.info.std, pixels.std((0, 1, 2)), rtol=1e-12)


def test_unit_normalization_leaves_pixels_on_0_to_1() -> None:
    info = load(Data(normalization="unit")).info
    assert (info.mean, info.std) == ((0.0,), (1.0,))


@pytest.mark.parametrize(("size", "channels"), [((4, 6), 1), ((28, 28), 3)])
def test_images_come_in_the_asked_size_and_channels(size: tuple[int, int], channels: int) -> None:
    splits = load(Data(image_size=size, channels=channels))  # type: ignore[arg-type]
    assert {part.images.shape[1:] for part in parts(splits)} == {(*size, channels)}


def test_a_folders_own_splits_are_kept(make_folder: MakeFolder) -> None:
    places = [f"{split}/{label}" for split in ("train", "val", "test") for label in ("cat", "dog")]
    splits = load(Data(name="folder", path=str(make_folder(*places, count=3))))
    assert [part.labels.tolist() for part in parts(splits)[1:]] == [[0, 0, 0, 1, 1, 1]] * 2
    assert splits.info.classes == ("cat", "dog") and splits.train.regions is None


def test_images_stay_with_their_labels_and_regions(make_folder: MakeFolder) -> None:
    root = make_folder("north/cat", "north/dog", "south/cat", "south/dog", count=5)
    known = {
        np.asarray(Image.open(file)).tobytes(): file.parts[-3:-1] for file in root.rglob("*.png")
    }
    splits = load(Data(name="folder", path=str(root)))
    assert [len(part.labels) for part in parts(splits)] == [14, 2, 4]
    for part in parts(splits):
        assert part.regions is not None and part.labels.dtype == part.regions.dtype == np.int32
        for row, label, region in zip(rows(part), part.labels, part.regions, strict=True):
            assert known[row] == (splits.info.regions[region], splits.info.classes[label])


def test_a_description_counts_splits_classes_and_regions(make_folder: MakeFolder) -> None:
    root = make_folder("north/cat", "south/dog", count=5)
    told = describe(load(Data(name="folder", path=str(root))))
    assert told["image_shape"] == [6, 5, 1] and told["regions"] == ["north", "south"]
    assert [part["examples"] for part in told["splits"].values()] == [7, 1, 2]
    for part in told["splits"].values():
        assert sum(part["per_class"].values()) == part["examples"]
        assert list(part["per_region"].values()) == list(part["per_class"].values())


def save(root: Path, place: str, shape: tuple[int, ...]) -> None:
    Image.fromarray(np.zeros(shape, np.uint8)).save(root / place)


@pytest.mark.parametrize(
    ("shape", "remedy", "settings"),
    [
        ((9, 5), r"got 9x5x1; set data.image_size=\[6, 5\]", {"image_size": (6, 5)}),
        ((6, 5, 3), "got 6x5x3; set data.channels=3", {"channels": 3}),
    ],
)
def test_unequal_images_are_named_and_the_remedy_works(
    make_folder: MakeFolder, shape: tuple[int, ...], remedy: str, settings: dict
) -> None:
    root = make_folder("cat", "dog", count=5)
    save(root, "dog/odd.png", shape)
    with pytest.raises(UserError, match=rf"dog/odd.png: expected an image of 6x5x1 .*{remedy}"):
        load(Data(name="folder", path=str(root)))
    assert load(Data(name="folder", path=str(root), **settings)).train.images.shape[0] == 8


def test_a_broken_image_is_named_and_leaves_no_cache(
    make_folder: MakeFolder, fresh_cache: Path
) -> None:
    root = make_folder("cat", "dog", count=5)
    (root / "dog/broken.jpg").write_bytes(b"\xff\xd8\xff\xe0 nothing")
    with pytest.raises(UserError, match=r"dog/broken.jpg: expected a readable image") as error:
        load(Data(name="folder", path=str(root)))
    assert "\n" not in str(error.value)
    assert list((fresh_cache / "data").iterdir()) == []


def test_a_changed_image_is_decoded_again(make_folder: MakeFolder) -> None:
    config = Data(name="folder", path=str(make_folder("cat", "dog", count=5)))
    before = load(config)
    save(Path(str(config.path)), "cat/0.png", (6, 5))
    after = [row for part in parts(load(config)) for row in rows(part)]
    assert bytes(30) in after
    assert bytes(30) not in [row for part in parts(before) for row in rows(part)]


def test_a_fraction_that_leaves_nothing_is_refused(make_folder: MakeFolder) -> None:
    root = make_folder("cat", "dog", count=2)
    with pytest.raises(UserError, match=r"data.validation_fraction: .*got 0.1 of 3 examples"):
        load(Data(name="folder", path=str(root)))
    with pytest.raises(UserError, match=r"data.test_fraction: .*got 0.1 of 4 examples"):
        load(Data(name="folder", path=str(root), test_fraction=0.1))


def test_one_class_left_for_training_is_refused(make_folder: MakeFolder) -> None:
    root = make_folder("cat", "dog", count=1)
    config = Data(name="folder", path=str(root), test_fraction=0.5, validation_fraction=0.0)
    with pytest.raises(UserError, match="at least 2 classes in the training split, got 1"):
        load(config)


def test_constant_pixels_cannot_be_standardized(make_folder: MakeFolder) -> None:
    root = make_folder("cat", "dog", count=5)
    for file in root.rglob("*.png"):
        save(root, str(file.relative_to(root)), (6, 5))
    with pytest.raises(UserError, match=r"data.normalization: .*; set data.normalization=unit"):
        load(Data(name="folder", path=str(root)))


def test_the_digits_take_no_path() -> None:
    with pytest.raises(UserError, match=r"data.path: .*set data.name=folder"):
        load(Data(path="somewhere"))


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "shape", "mean"),
    [("mnist", (28, 28, 1), 0.1307), ("cifar10", (32, 32, 3), 0.4914)],
)
def test_real_sets_have_their_known_counts_and_mean(
    tfds_data_dir: str, name: str, shape: tuple[int, ...], mean: float
) -> None:
    splits = load(Data(name=name, path=tfds_data_dir, validation_fraction=0.0))
    assert splits.train.images.shape == ({"mnist": 60000, "cifar10": 50000}[name], *shape)
    assert splits.test.images.shape == (10000, *shape)
    # Not closer: a copy of CIFAR-10 prepared with lossy JPEGs has 0.49125, the original 0.49140.
    assert splits.info.mean[0] == pytest.approx(mean, abs=5e-4)
    assert np.bincount(splits.test.labels).sum() == 10000
