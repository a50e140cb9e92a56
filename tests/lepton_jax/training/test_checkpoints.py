import json
import logging
import shutil
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from lepton_jax import trees
from lepton_jax.checks import UserError
from lepton_jax.training.checkpoints import (
    finished,
    open_checkpoints,
    restore,
    restore_latest,
    restore_raw,
    verify,
)

TX = optax.chain(optax.clip_by_global_norm(1.0), optax.adam(optax.constant_schedule(0.1)))


def make_state(seed: int) -> dict[str, Any]:
    params = {"dense": {"kernel": jax.random.normal(jax.random.key(seed), (3, 4))}}
    params["dense"]["bias"] = jnp.full(4, seed, jnp.bfloat16)
    return {
        "params": params,
        "stats": {},
        "opt_state": TX.init(params),
        "step": jnp.int32(seed),
    }


def save_all(folder: Path, scores: dict[int, float | None], keep: int = 2) -> None:
    with open_checkpoints(folder, keep=keep) as checkpoints:
        for index, score in scores.items():
            checkpoints.save(index, make_state(index), {"epoch": index}, score)


def flip(path: Path, bit: int = 0) -> None:
    """Changes one bit in the middle of a file."""
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1 << bit
    path.write_bytes(data)


@pytest.fixture(scope="module")
def saved(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Checkpoints 1 and 2; copy before changing."""
    folder = tmp_path_factory.mktemp("saved") / "checkpoints"
    save_all(folder, {1: None, 2: None})
    return folder


@pytest.fixture
def folder(saved: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(saved, tmp_path / "checkpoints"))


def test_what_is_saved_comes_back_bitwise_with_structure_and_host_data(saved: Path) -> None:
    restored = restore_latest(saved, make_state(0))
    assert restored is not None
    index, state, host = restored
    assert (index, host) == (2, {"epoch": 2})
    assert str(jax.tree.structure(state)) == str(jax.tree.structure(make_state(2)))
    assert trees.sha256(state) == trees.sha256(make_state(2))


def test_shardings_come_back(tmp_path: Path) -> None:
    mesh = jax.sharding.Mesh(np.array(jax.devices()[:4]), ("C",))
    split = jax.sharding.NamedSharding(mesh, jax.sharding.PartitionSpec("C"))
    state = {"x": jax.device_put(jnp.arange(8, dtype=jnp.float32), split)}
    with open_checkpoints(tmp_path, keep=1) as checkpoints:
        checkpoints.save(1, state, {}, None)
        back, _ = checkpoints.restore(1, state)
    assert back["x"].sharding == split
    np.testing.assert_array_equal(back["x"], np.arange(8))


def test_a_state_may_be_donated_right_after_saving(tmp_path: Path) -> None:
    double = jax.jit(lambda tree: jax.tree.map(lambda x: x * 2, tree), donate_argnums=0)
    state = {"x": jnp.ones(500_000, jnp.float32)}
    with open_checkpoints(tmp_path, keep=1) as checkpoints:
        checkpoints.save(1, state, {}, None)
        for _ in range(3):
            state = double(state)
        jax.block_until_ready(state)
    np.testing.assert_array_equal(restore_raw(tmp_path)["x"], np.ones(500_000))


def test_without_a_template_it_is_plain_dicts_of_numpy_arrays(saved: Path) -> None:
    raw = restore_raw(saved, 1)
    kernel = raw["params"]["dense"]["kernel"]
    assert isinstance(kernel, np.ndarray) and raw["stats"] == {}
    np.testing.assert_array_equal(kernel, make_state(1)["params"]["dense"]["kernel"])
    assert int(restore_raw(saved)["step"]) == 2


def test_the_newest_and_the_best_are_kept(tmp_path: Path) -> None:
    save_all(tmp_path, {1: -3.0, 2: -1.0, 3: -1.0, 4: -2.0, 5: -2.5})
    assert finished(tmp_path) == [2, 4, 5]


def test_what_a_kill_left_unfinished_is_cleared_away(tmp_path: Path) -> None:
    for index in (1, 7):
        (tmp_path / str(index) / "state").mkdir(parents=True)
    save_all(tmp_path, {2: None})
    assert [path.name for path in tmp_path.iterdir()] == ["2"]


def test_saving_under_a_number_again_replaces_it(folder: Path) -> None:
    with open_checkpoints(folder, keep=2) as checkpoints:
        checkpoints.save(2, make_state(9), {}, None)
    assert int(restore_raw(folder, 2)["step"]) == 9


def test_one_flipped_bit_in_any_file_is_noticed(folder: Path) -> None:
    files = [path for path in sorted((folder / "2").rglob("*")) if path.is_file()]
    assert len(files) > 5
    for i, path in enumerate(files):
        before = path.read_bytes()
        flip(path, bit=i % 8)
        with pytest.raises(UserError, match="expected the checkpoint as it was saved"):
            verify(folder / "2")
        path.write_bytes(before)
    verify(folder / "2")


def test_every_flipped_bit_of_the_manifest_is_noticed(tmp_path: Path) -> None:
    save_all(tmp_path, {1: -1e-7})
    path = tmp_path / "1" / "manifest.json"
    whole = path.read_bytes()
    spots = [whole.index(b"1e-07") + i for i in range(5)] + list(range(0, len(whole), 37))
    for spot in spots:
        for bit in range(8):
            path.write_bytes(whole[:spot] + bytes([whole[spot] ^ 1 << bit]) + whole[spot + 1 :])
            with pytest.raises(UserError):
                verify(tmp_path / "1")


def test_a_missing_or_an_added_file_is_noticed(folder: Path) -> None:
    (folder / "1" / "host.json").unlink()
    (folder / "2" / "state" / "new").touch()
    for index, name in ((1, "host.json"), (2, "state/new")):
        with pytest.raises(UserError, match=name):
            verify(folder / str(index))


def test_a_damaged_newest_checkpoint_is_named_and_the_one_before_is_used(
    folder: Path, caplog: pytest.LogCaptureFixture
) -> None:
    flip(next((folder / "2" / "state" / "d").iterdir()))
    with caplog.at_level(logging.WARNING):
        restored = restore_latest(folder, make_state(0))
    assert restored is not None and restored[0] == 1
    assert trees.sha256(restored[1]) == trees.sha256(make_state(1))
    assert len(caplog.messages) == 1 and str(folder / "2") in caplog.messages[0]


def test_when_all_are_damaged_the_user_is_told(folder: Path) -> None:
    for index in (1, 2):
        flip(folder / str(index) / "host.json")
    with pytest.raises(UserError, match="expected an undamaged checkpoint, got 2 damaged"):
        restore_latest(folder, make_state(0))


def test_an_unfinished_checkpoint_does_not_count(folder: Path) -> None:
    (folder / "2" / "manifest.json").unlink()
    restored = restore_latest(folder, make_state(0))
    assert restored is not None and restored[0] == 1
    (folder / "1" / "manifest.json").unlink()
    assert restore_latest(folder, make_state(0)) is None
    with pytest.raises(UserError):
        restore_raw(folder)


def test_a_checkpoint_that_is_not_there_is_told_as_such(folder: Path) -> None:
    with pytest.raises(UserError, match="7: expected a finished checkpoint, got none"):
        restore_raw(folder, 7)


def test_a_damaged_checkpoint_that_is_asked_for_by_number_is_refused(folder: Path) -> None:
    flip(folder / "1" / "host.json")
    with pytest.raises(UserError, match=r"host\.json"):
        restore(folder, 1, make_state(0))
    with pytest.raises(UserError, match=r"host\.json"):
        restore_raw(folder, 1)


def test_what_is_being_saved_is_finished_even_when_the_run_fails(tmp_path: Path) -> None:
    with pytest.raises(KeyboardInterrupt), open_checkpoints(tmp_path, keep=1) as checkpoints:
        checkpoints.save(1, make_state(1), {}, None)
        raise KeyboardInterrupt
    assert finished(tmp_path) == [1]
    assert "sha256" in json.loads((tmp_path / "1" / "manifest.json").read_text())


def test_without_room_for_a_checkpoint_none_is_begun(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    save_all(tmp_path, {1: None})
    usage = shutil.disk_usage(tmp_path)._replace(free=200_000)
    monkeypatch.setattr(shutil, "disk_usage", lambda path: usage)
    with pytest.raises(UserError, match=r"2: expected 262,\d+ bytes of room .* got 200,000; make"):
        save_all(tmp_path, {2: None})
    assert finished(tmp_path) == [1] and not (tmp_path / "2").exists()
