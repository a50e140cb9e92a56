"""Sets that TFDS prepared are read as they are, without TensorFlow, and others are explained."""

import importlib.util
import itertools
import json
import random
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from lepton_jax.checks import UserError
from lepton_jax.config import Data
from lepton_jax.data import tfds
from lepton_jax.data.load import load
from tests.mutations import mutated


@pytest.fixture
def editable(tiny_tfds: Path, tmp_path: Path) -> Path:
    """A copy of the tiny set, to spoil."""
    return Path(shutil.copytree(tiny_tfds / "tiny", tmp_path / "tfds/tiny")).parent


def edit(file: Path, **changes: Any) -> None:
    file.write_text(json.dumps({**json.loads(file.read_text()), **changes}))


def test_a_prepared_set_tells_its_classes_and_counts(tiny_tfds: Path) -> None:
    source = tfds.source("tiny", str(tiny_tfds))
    assert (source.name, source.classes, source.channels) == ("tiny", ("a", "b"), 3)
    assert source.counts == {"train": 12, "test": 4}
    assert sorted(record.label for record in source.records("train")) == [0] * 6 + [1] * 6


def test_the_prepared_folder_itself_may_be_named(tiny_tfds: Path) -> None:
    assert tfds.find("tiny", str(tiny_tfds / "tiny/1.0.0")) == tiny_tfds / "tiny/1.0.0"
    with pytest.raises(UserError, match=r"data.name: .*set data.name=tiny"):
        tfds.source("mnist", str(tiny_tfds / "tiny/1.0.0"))


def test_the_environment_names_the_folder(tiny_tfds: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TFDS_DATA_DIR", str(tiny_tfds))
    assert load(Data(name="tiny", validation_fraction=0.25)).train.images.shape == (9, 4, 5, 3)


def test_the_newest_version_is_taken(editable: Path) -> None:
    for version in ("1.0.10", "1.0.9", "incomplete.ABC_2.0.0"):
        shutil.copytree(editable / "tiny/1.0.0", editable / "tiny" / version)
    assert tfds.find("tiny", str(editable)).name == "1.0.10"


def test_of_several_configurations_one_must_be_chosen(editable: Path) -> None:
    for configuration in ("large", "small"):
        shutil.copytree(editable / "tiny/1.0.0", editable / "tiny" / configuration / "1.0.0")
    shutil.rmtree(editable / "tiny/1.0.0")
    with pytest.raises(UserError, match=r"one prepared configuration of tiny, got large, small"):
        tfds.find("tiny", str(editable))


def test_reading_array_record_loads_no_tensorflow_and_the_cache_not_even_tfds(
    tiny_tfds: Path,
) -> None:
    code = (
        "import sys; from lepton_jax.config import Data; from lepton_jax.data import load\n"
        f"load(Data(name='tiny', path={str(tiny_tfds)!r}))\n"
        "print('tensorflow' in sys.modules, 'tensorflow_datasets' in sys.modules)"
    )
    for expected in ("False True", "False False"):
        done = subprocess.run(
            [sys.executable, "-c", code], check=True, capture_output=True, text=True
        )
        assert done.stdout.strip() == expected


def test_what_is_not_prepared_says_the_command(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"run: lepton data prepare mnist --data-dir /") as error:
        tfds.source("mnist", str(tmp_path))
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("name", ["mnst", "digit", "cifar_10"])
def test_an_unknown_name_gets_a_hint(name: str, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"did you mean (mnist|digits|cifar10)\?"):
        tfds.source(name, str(tmp_path))


def test_a_data_dir_that_is_missing_or_a_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"data.path: .*, got nothing there"):
        tfds.source("mnist", str(tmp_path / "none"))
    (tmp_path / "file").touch()
    with pytest.raises(UserError, match=r"data.path: .*, got a file"):
        tfds.source("mnist", str(tmp_path / "file"))


def test_a_set_of_something_else_is_refused(editable: Path) -> None:
    text = {"text": {"pythonClassName": "...Text", "text": {}}}
    edit(editable / "tiny/1.0.0/features.json", featuresDict={"features": text})
    with pytest.raises(UserError, match=r"one image and one class label .*, got features text"):
        tfds.source("tiny", str(editable))


def test_a_set_without_a_training_split_is_refused(editable: Path) -> None:
    edit(editable / "tiny/1.0.0/dataset_info.json", splits=[{"name": "all", "shardLengths": ["4"]}])
    with pytest.raises(UserError, match="a training split, got all"):
        tfds.source("tiny", str(editable))


def test_a_damaged_description_is_one_line(editable: Path) -> None:
    (editable / "tiny/1.0.0/features.json").write_text("{")
    with pytest.raises(UserError, match=r"features.json, line 1: expected readable JSON of TFDS"):
        tfds.source("tiny", str(editable))


@pytest.mark.parametrize("name", ["dataset_info.json", "features.json"])
def test_a_fuzzed_description_is_read_or_refused_in_one_line(name: str, editable: Path) -> None:
    file, refused = editable / "tiny/1.0.0" / name, 0
    whole = file.read_bytes()
    for seed in range(250):
        file.write_bytes(mutated(whole, random.Random(seed)))
        try:
            tfds.describe(file.parent)
        except UserError as error:
            refused += 1
            assert "\n" not in str(error) and len(str(error)) < 6000, seed
    assert refused > 50


def test_a_label_whose_name_leads_elsewhere_has_no_names(editable: Path) -> None:
    (editable / "secret.labels.txt").write_text("c\nd")
    file = editable / "tiny/1.0.0/features.json"
    file.write_text(file.read_text().replace('"label"', '"../../secret"'))
    assert tfds.describe(file.parent).classes == ("0", "1")


def test_damaged_files_are_one_line(editable: Path) -> None:
    for file in (editable / "tiny/1.0.0").glob("*-train.array_record*"):
        file.write_bytes(file.read_bytes()[:100])
    with pytest.raises(UserError, match=r"1\.0\.0: expected whole files of TFDS, got .*") as error:
        list(tfds.source("tiny", str(editable)).records("train"))
    assert "\n" not in str(error.value)


def test_labels_outside_the_classes_are_refused(editable: Path) -> None:
    features = json.loads((editable / "tiny/1.0.0/features.json").read_text())
    features["featuresDict"]["features"]["label"]["classLabel"]["numClasses"] = "1"
    edit(editable / "tiny/1.0.0/features.json", **features)
    (editable / "tiny/1.0.0/label.labels.txt").write_text("a")
    with pytest.raises(
        UserError, match=r"tiny, train example \d+: expected a label in 0..0, got 1"
    ):
        list(tfds.source("tiny", str(editable)).records("train"))


def test_tfrecord_without_tensorflow_says_what_to_install(
    editable: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    edit(editable / "tiny/1.0.0/dataset_info.json", fileFormat="tfrecord")
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(UserError, match=r"TensorFlow, .*pip install 'lepton-jax\[export\]'"):
        list(tfds.source("tiny", str(editable)).records("train"))


def test_tfrecord_and_array_record_give_identical_images_and_labels(tfds_data_dir: str) -> None:
    tfrecord = Path(tfds_data_dir).parent / "tfds_tfrecord"
    if not tfrecord.is_dir() or importlib.util.find_spec("tensorflow") is None:
        pytest.skip("needs MNIST as tfrecord beside TFDS_DATA_DIR, and TensorFlow")
    sources = [tfds.source("mnist", folder) for folder in (tfds_data_dir, str(tfrecord))]
    first, second = ([*itertools.islice(s.records("test"), 1500)] for s in sources)
    assert first == second
