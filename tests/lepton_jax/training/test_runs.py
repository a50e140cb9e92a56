import subprocess
import sys
from pathlib import Path

import msgspec
import pytest

from lepton_jax import config
from lepton_jax.checks import UserError
from lepton_jax.config_files import load
from lepton_jax.training.records import append, write_json
from lepton_jax.training.runs import Result, load_run, open_run

RUN = config.Run(name="one", federated=config.Federated(stages=(config.Clip(max_norm=1.5),)))
RESULT = Result("one", "train", 0.5, 1.25, 10, None, 3.0, 100.0, "ab" * 32, checkpoint=2)


def test_a_run_folder_holds_the_resolved_config(tmp_path: Path) -> None:
    with open_run(tmp_path / "a" / "b", RUN, resume=False, kind="train") as finished:
        assert finished is None
    assert load(tmp_path / "a" / "b" / "config.toml") == RUN


def test_a_folder_that_is_not_empty_is_refused(tmp_path: Path) -> None:
    (tmp_path / "notes.txt").touch()
    for resume, expected in ((False, "a new or empty folder"), (True, "a run folder")):
        with (
            pytest.raises(UserError, match=f"expected {expected}, got one with notes.txt"),
            open_run(tmp_path, RUN, resume=resume, kind="train"),
        ):
            pass


def test_a_file_in_the_folders_place_is_refused(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    for path in (tmp_path / "file", tmp_path / "file" / "run"):
        with (
            pytest.raises(UserError, match="expected a folder to write to"),
            open_run(path, RUN, resume=False, kind="train"),
        ):
            pass


def test_a_run_that_fails_before_its_first_record_can_be_tried_again(tmp_path: Path) -> None:
    folder = tmp_path / "run"
    for seed in (1, 2):
        run = msgspec.structs.replace(RUN, seed=seed)
        with (
            pytest.raises(UserError, match="no such data"),
            open_run(folder, run, resume=False, kind="train"),
        ):
            raise UserError("data", "data", "no such data")
        assert not (folder / "config.toml").exists()


@pytest.mark.parametrize("resume", [False, True])
def test_an_empty_folder_is_begun_whether_resumed_or_not(tmp_path: Path, resume: bool) -> None:
    with open_run(tmp_path, RUN, resume=resume, kind="simulate") as finished:
        assert finished is None


def test_resuming_with_another_config_names_the_first_key_that_differs(tmp_path: Path) -> None:
    with open_run(tmp_path, RUN, resume=False, kind="train"):
        pass
    other = msgspec.structs.replace(
        RUN,
        seed=RUN.seed,
        train=config.Train(optimizer=config.Adam(learning_rate=0.5), epochs=3),
    )
    with (
        pytest.raises(
            UserError, match=r"train\.epochs: expected 10 .* got 3; resume with the same"
        ),
        open_run(tmp_path, other, resume=True, kind="train"),
    ):
        pass


def test_resuming_another_verbs_run_is_refused(tmp_path: Path) -> None:
    with open_run(tmp_path, RUN, resume=False, kind="simulate"):
        append(tmp_path / "metrics.jsonl", {"round": 1})
    with (
        pytest.raises(UserError, match="expected a run of `lepton train`"),
        open_run(tmp_path, RUN, resume=True, kind="train"),
    ):
        pass


def test_a_finished_run_gives_its_result_again(tmp_path: Path) -> None:
    with open_run(tmp_path, RUN, resume=False, kind="train"):
        write_json(tmp_path / "result.json", RESULT.to_json())
    with open_run(tmp_path, RUN, resume=True, kind="train") as finished:
        assert finished == RESULT


def test_a_folder_in_use_by_another_process_is_refused(tmp_path: Path) -> None:
    script = (
        "import fcntl, sys; file = open(sys.argv[1], 'a'); fcntl.flock(file, fcntl.LOCK_EX);"
        "print('held', flush=True); sys.stdin.read()"
    )
    arguments = [sys.executable, "-c", script, str(tmp_path / ".lock")]
    with subprocess.Popen(arguments, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as other:
        assert other.stdout is not None and other.stdout.readline() == b"held\n"
        with (
            pytest.raises(UserError, match="got one that another process runs in"),
            open_run(tmp_path, RUN, resume=True, kind="train"),
        ):
            pass
        other.communicate()
    with open_run(tmp_path, RUN, resume=True, kind="train") as finished:
        assert finished is None


def test_a_result_goes_through_json_without_what_is_unset() -> None:
    fields = RESULT.to_json()
    assert "rounds" not in fields and "epsilon" not in fields
    assert Result.from_json(fields) == RESULT


def test_loading_what_is_no_run_or_not_finished_says_so(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="expected a run folder"):
        load_run(tmp_path)
    with open_run(tmp_path, RUN, resume=False, kind="train"):
        pass
    with pytest.raises(UserError, match="expected a finished run"):
        load_run(tmp_path)
