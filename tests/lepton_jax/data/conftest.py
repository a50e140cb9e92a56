"""Small data sets on the disk: folders of images, and a set prepared by TFDS itself."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image


@pytest.fixture(autouse=True)
def decoded_anew(fresh_cache: Path) -> None:
    """Nothing that another test has decoded."""


@pytest.fixture
def make_folder(tmp_path: Path) -> Callable[..., Path]:
    """Writes images of noise into the sub-folders named, and returns the root."""

    def make(*places: str, count: int = 2, size: tuple[int, int] = (6, 5)) -> Path:
        root, rng = tmp_path / "images", np.random.default_rng(0)
        for place in places:
            (root / place).mkdir(parents=True, exist_ok=True)
            for i in range(count):
                pixels = rng.integers(256, size=size).astype(np.uint8)
                Image.fromarray(pixels).save(root / place / f"{i}.png")
        return root

    return make


@pytest.fixture(scope="session")
def tiny_tfds(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A data_dir with the set `tiny`: 12 RGB images in train and 4 in test, classes a and b."""
    import tensorflow_datasets as tfds

    folder = tmp_path_factory.mktemp("tfds")

    class Tiny(tfds.core.GeneratorBasedBuilder):
        VERSION = tfds.core.Version("1.0.0")
        pkg_dir_path = folder

        def _info(self) -> tfds.core.DatasetInfo:
            features = {
                "image": tfds.features.Image(shape=(None, None, 3)),
                "label": tfds.features.ClassLabel(names=["a", "b"]),
                "id": tfds.features.Text(),
            }
            return tfds.core.DatasetInfo(
                builder=self,
                features=tfds.features.FeaturesDict(features),
                supervised_keys=("image", "label"),
            )

        def _split_generators(self, dl_manager: object) -> dict:
            return {"train": self._generate_examples(12), "test": self._generate_examples(4)}

        def _generate_examples(self, count: int) -> object:
            for i in range(count):
                image = np.full((4, 5, 3), 10 * i, np.uint8)
                yield i, {"image": image, "label": i % 2, "id": str(i)}

    Tiny(data_dir=folder, file_format="array_record").download_and_prepare()
    return folder
