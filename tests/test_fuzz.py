"""Whatever a config, a manifest or a run folder holds: it is read, or refused in one line."""

import json
import random
from collections.abc import Callable
from functools import partial
from pathlib import Path

import numpy as np
import pytest

from federated import shards
from federated.manifest import read_manifest
from lepton_jax import config, config_files
from lepton_jax.checks import UserError
from lepton_jax.data import folder as image_folder
from lepton_jax.report import files
from lepton_jax.training import checkpoints
from lepton_jax.training.records import METRICS, TIMINGS, go_on, write_json
from lepton_jax.training.runs import open_run
from tests.lepton_jax.report.conftest import write_run
from tests.mutations import HOSTILE, mutated

FEW, MANY = range(200), range(10_000)
COUNTS = [
    pytest.param(FEW, id="200"),
    pytest.param(MANY, id="10000", marks=pytest.mark.slow),
]


def held(root: Path) -> dict[str, bytes]:
    return {str(path): path.read_bytes() for path in root.rglob("*") if path.is_file()}


def refused(read: Callable[[], object], what: object) -> bool:
    """Whether it was refused; if so in one line that a terminal can show."""
    try:
        read()
    except UserError as error:
        line = str(error)
        assert "\n" not in line and "\x1b" not in line and len(line) < 6000, what
        line.encode()
        return True
    except Exception as error:
        raise AssertionError(f"{what}: {type(error).__name__}") from error
    return False


def fuzz(seeds: range, texts: list[bytes], file: Path, read: Callable[[], object]) -> int:
    """Reads a file over and over, each time changed; returns how often it was refused."""
    others = {path: text for path, text in held(file.parent.parent).items() if path != str(file)}
    count = 0
    for seed in seeds:
        rng = random.Random(seed)
        file.write_bytes(mutated(rng.choice(texts), rng))
        count += refused(read, (file.name, seed))
        if seed % 100 == 0:
            now = held(file.parent.parent)
            now.pop(str(file), None)
            assert now == others, seed
    return count


# --- configs --------------------------------------------------------------------------------------


@pytest.mark.parametrize("seeds", COUNTS)
def test_fuzzed_configs_are_read_or_refused(seeds: range, tmp_path: Path) -> None:
    known = [path.read_bytes() for path in config_files.bundled().values()]
    full = [config_files.dumps(config.Run()).encode()]
    path = tmp_path / "in" / "config.toml"
    path.parent.mkdir()

    def read() -> None:
        run = config_files.load(path)
        assert config_files.fingerprint(run)
        assert "\n" in config_files.dumps(run)
        if run.data.path is not None and run.data.name == "folder":
            image_folder.source(run.data.path)

    assert len(seeds) // 4 < fuzz(seeds, known + full, path, read) < len(seeds)


@pytest.mark.parametrize("number", range(len(HOSTILE)))
def test_a_hostile_override_is_read_or_refused(number: int) -> None:
    value = HOSTILE[number].decode("utf-8", errors="surrogateescape")
    for override in (
        f"train.epochs={value}",
        f"name={value}",
        f"data.path={value}",
        f"{value}=1",
        f"a[{value}]=1",
        f"federated.stages={value}",
        f"train.{value}.x=1",
        value,
    ):
        refused(partial(config_files.load, "digits_central", [override]), override[:80])


@pytest.mark.parametrize(
    "path", ["a\0b", "n" * 5000, "\udc80", "/", "", "/dev/zero", "/dev/stdin", "~nobody-here/x"]
)
def test_an_odd_path_to_a_config_is_refused(path: str) -> None:
    with pytest.raises(UserError):
        config_files.load(path)


def test_a_config_too_large_is_refused_unread(tmp_path: Path) -> None:
    path = tmp_path / "large.toml"
    with path.open("wb") as file:
        file.truncate(2**40)
    with pytest.raises(UserError, match="at most 1,048,576 bytes, got 1,099,511,627,776"):
        config_files.load(path)


# --- manifests ------------------------------------------------------------------------------------


@pytest.mark.parametrize("seeds", COUNTS)
def test_fuzzed_partitions_are_refused(seeds: range, tmp_path: Path) -> None:
    federated = config.Federated(clients=3, clients_per_round=1)
    rows = np.array_split(np.arange(30), 6)
    clients = [shards.Client(i, "north", rows[2 * i], rows[2 * i + 1]) for i in range(3)]
    labels = (np.arange(30) % 4).astype(np.int32)
    whole = shards.manifest(federated, clients, labels, 4)
    path = tmp_path / "run" / "partition.json"
    path.parent.mkdir()
    path.write_text(json.dumps(whole))
    assert read_manifest(path) == whole
    texts = [json.dumps(whole).encode(), json.dumps(whole, indent=1).encode()]

    def read() -> None:
        assert read_manifest(path) == whole

    assert fuzz(seeds, texts, path, read) > len(seeds) // 2


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("clients", {}),
        ("clients", [1]),
        ("version", 2),
        ("seed", -1),
        ("sha256", 7),
        ("sha256", "../" * 20),
        ("more", 1),
    ],
)
def test_a_partition_of_other_types_names_the_key(key: str, value: object, tmp_path: Path) -> None:
    body = {"version": 1, "kind": "iid", "seed": 0, "clients": [], key: value}
    if key != "sha256":
        body["sha256"] = shards._fingerprint(body)  # it is sealed, and no partition nevertheless
    (tmp_path / "partition.json").write_text(json.dumps(body))
    with pytest.raises(UserError, match=rf"partition\.json.*{key}"):
        read_manifest(tmp_path / "partition.json")


@pytest.mark.parametrize("seeds", COUNTS)
def test_fuzzed_manifests_of_checkpoints_are_refused(seeds: range, tmp_path: Path) -> None:
    path = tmp_path / "checkpoints" / "3"
    (path / "state").mkdir(parents=True)
    (path / "state" / "data").write_bytes(b"data")
    write_json(path / "host.json", {"epoch": 3})
    checkpoints._seal(path, -0.5)
    checkpoints.verify(path)
    whole = (path / "manifest.json").read_bytes()

    def read() -> None:
        checkpoints.verify(path)
        assert json.loads((path / "manifest.json").read_bytes()) == json.loads(
            whole
        )  # in any order

    assert fuzz(seeds, [whole], path / "manifest.json", read) > 0.9 * len(seeds)


@pytest.mark.parametrize("name", ["../../outside", "/etc/passwd", "state/../../2/x", "a\0b", ""])
def test_no_name_in_a_manifest_leads_anywhere(name: str, tmp_path: Path) -> None:
    (tmp_path / "3").mkdir()
    (tmp_path / "outside").write_text("x")
    body = {"files": {name: "0" * 64}, "score": None}
    sealed = {**body, "sha256": checkpoints._digest(body)}
    write_json(tmp_path / "3" / "manifest.json", sealed)
    with pytest.raises(UserError, match="expected the checkpoint as it was saved"):
        checkpoints.verify(tmp_path / "3")


def test_a_link_in_a_checkpoint_is_damage(tmp_path: Path) -> None:
    (tmp_path / "3").mkdir()
    (tmp_path / "secret").write_text("x")
    (tmp_path / "3" / "data").write_text("x")
    checkpoints._seal(tmp_path / "3", None)
    (tmp_path / "3" / "data").unlink()
    (tmp_path / "3" / "data").symlink_to(tmp_path / "secret")
    with pytest.raises(UserError, match="another data"):
        checkpoints.verify(tmp_path / "3")


def test_only_plain_numbers_are_checkpoints(tmp_path: Path) -> None:
    for name in ("3", "²", "٣", "03", "-1", "1e3", "9" * 30):
        (tmp_path / name).mkdir()
        (tmp_path / name / "manifest.json").touch()
    assert checkpoints.finished(tmp_path) == [3]


def test_a_checkpoint_folder_that_is_a_link_is_refused(tmp_path: Path) -> None:
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "checkpoints").symlink_to(tmp_path / "elsewhere")
    with (
        pytest.raises(UserError, match="got a link"),
        checkpoints.open_checkpoints(tmp_path / "checkpoints", keep=1),
    ):
        pass


# --- run folders ----------------------------------------------------------------------------------


@pytest.mark.parametrize("seeds", COUNTS)
@pytest.mark.parametrize("kind", ["train", "simulate"])
def test_fuzzed_run_folders_are_reported_or_refused(
    kind: str, seeds: range, tmp_path: Path
) -> None:
    folder = tmp_path / "run"
    folder.mkdir()
    write_run(folder, "run", kind, exported=True)
    whole = {path.name: path.read_bytes() for path in folder.iterdir()}
    count = 0
    for i, name in enumerate(sorted(whole)):
        part = seeds[i :: len(whole)]
        count += fuzz(part, [whole[name]], folder / name, lambda: files.read(folder))
        (folder / name).write_bytes(whole[name])
    assert count > len(seeds) // 4


@pytest.mark.parametrize("seeds", COUNTS)
def test_fuzzed_results_are_resumed_or_refused(seeds: range, tmp_path: Path) -> None:
    folder, run = tmp_path / "run", config.Run(name="run")
    folder.mkdir()
    with open_run(folder, run, resume=False, kind="train"):
        pass
    result = {"run": "run", "kind": "train", "test_accuracy": 0.5, "test_loss": 1.5, "steps": 3}
    result |= {"seconds": 1.5, "images_per_second": 9.5, "params_sha256": "0" * 64, "checkpoint": 3}
    write_json(folder / "result.json", result)

    def read() -> None:
        with open_run(folder, run, resume=True, kind="train") as found:
            assert found is not None and isinstance(found.checkpoint, int | None)

    whole = (folder / "result.json").read_bytes()
    assert fuzz(seeds, [whole], folder / "result.json", read) > len(seeds) // 4


@pytest.mark.parametrize("seeds", COUNTS)
@pytest.mark.parametrize("unit", ["epoch", "round"])
def test_fuzzed_records_are_gone_on_from_or_refused(
    unit: str, seeds: range, tmp_path: Path
) -> None:
    folder = tmp_path / "run"
    folder.mkdir()
    seen = {"loss": 0.5, "accuracy": 0.75}
    lines = [
        {unit: i, "step": 3 * i, "train": seen, "validation": seen, "test": seen, "epsilon": 0.5}
        for i in (1, 2, 3)
    ]
    times = [{unit: i, "seconds": 1.5, "images_per_second": 100.5} for i in (1, 2, 3)]
    texts = {
        name: "".join(json.dumps(line) + "\n" for line in each).encode()
        for name, each in ((METRICS, lines), (TIMINGS, times))
    }

    def read() -> None:
        records = go_on(folder, unit, 3)
        assert [record[unit] for record in records] == [1, 2, 3]
        assert all(
            record["train"]["loss"] is None or record["train"]["loss"] > -1e308
            for record in records
        )

    count = 0
    for seed in seeds:
        rng = random.Random(seed)
        for name, text in texts.items():
            (folder / name).write_bytes(mutated(text, rng) if rng.random() < 0.7 else text)
        count += refused(read, seed)
    assert len(seeds) // 4 < count < len(seeds)
