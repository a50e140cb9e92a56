import gc
import os
import random
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from lepton_jax.checks import UserError
from lepton_jax.config import Interface
from lepton_jax.export import open_model, ops, phone
from lepton_jax.export.interface import phone_model
from tests.lepton_jax.export.conftest import CLASSES, SHAPE, Net


@pytest.fixture(scope="module")
def path(net: Net, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("phone") / "float32.tflite"
    path.write_bytes(phone_model(net.apply, SHAPE, CLASSES, Interface()))
    return path


def test_an_opened_model_classifies_images(path: Path, net: Net) -> None:
    classify = open_model(path)
    np.testing.assert_allclose(classify(net.images), net.probabilities, atol=1e-5)
    np.testing.assert_array_equal(classify(net.images[3:5]), classify(net.images)[3:5])


def test_no_images_give_no_probabilities(path: Path, net: Net) -> None:
    assert open_model(path)(net.images[:0]).shape == (0, net.probabilities.shape[1])


@pytest.mark.parametrize(
    "images", [np.zeros((1, *SHAPE), np.float32), np.zeros((1, 9, 9, 3), np.uint8)]
)
def test_other_images_are_refused(path: Path, images: np.ndarray) -> None:
    with pytest.raises(UserError, match=r"images: expected uint8 \[N, 8, 8, 3\], got"):
        open_model(path)(images)


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"none\.tflite: expected a \.tflite file"):
        open_model(tmp_path / "none.tflite")


def test_a_damaged_file_is_named(path: Path, tmp_path: Path) -> None:
    damaged = tmp_path / "damaged.tflite"
    damaged.write_bytes(path.read_bytes()[:100])
    with pytest.raises(UserError, match=r"damaged\.tflite: expected a model with the signature"):
        open_model(damaged)


# --- the process ----------------------------------------------------------------------------------


@pytest.fixture
def started(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[subprocess.Popen[bytes]]]:
    """The processes that were started; none may outlive the test."""
    processes: list[subprocess.Popen[bytes]] = []
    start = phone._start

    def recorded() -> subprocess.Popen[bytes]:
        processes.append(start())
        return processes[-1]

    monkeypatch.setattr(phone, "_start", recorded)
    yield processes
    gc.collect()
    assert [process.returncode for process in processes if process.returncode is None] == []


Started = list[subprocess.Popen[bytes]]


def test_all_calls_go_to_one_process_that_ends_with_the_function(
    path: Path, net: Net, started: Started
) -> None:
    classify = open_model(path)
    many = np.concatenate([net.images] * 9)
    assert len(many) > 2 * phone._AT_A_TIME
    np.testing.assert_array_equal(classify(many)[: len(net.images)], classify(net.images))
    (process,) = started
    assert process.poll() is None
    del classify
    gc.collect()
    assert process.returncode == -signal.SIGKILL


def test_the_process_ends_with_its_parent(path: Path) -> None:
    code = (
        "import sys; from lepton_jax.export import open_model, phone\n"
        "start = phone._start; pids = []\n"
        "phone._start = lambda: (pids.append(start()), pids[-1])[1]\n"
        "classify = open_model(sys.argv[1]); print(pids[0].pid)"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, str(path)], capture_output=True, text=True, check=True
    )
    with pytest.raises(ProcessLookupError):
        os.kill(int(done.stdout), 0)


def test_a_crash_is_one_line_and_the_next_call_says_so_too(
    path: Path, net: Net, started: Started
) -> None:
    classify = open_model(path)
    os.kill(started[0].pid, signal.SIGSEGV)
    for _ in range(2):
        with pytest.raises(UserError, match=r"float32\.tflite: .* interpreter died on \(signal 11"):
            classify(net.images)


def test_a_process_that_hangs_is_killed(
    path: Path, net: Net, started: Started, monkeypatch: pytest.MonkeyPatch
) -> None:
    classify = open_model(path)
    monkeypatch.setattr(phone, "_WAIT_S", 0.2)
    os.kill(started[0].pid, signal.SIGSTOP)
    with pytest.raises(UserError, match=r"interpreter died on \(signal 9"):
        classify(net.images)


_PICKLE = (
    "import io, numpy as np; buffer = io.BytesIO()\n"
    "np.save(buffer, np.array([print], object), allow_pickle=True); answer = buffer.getvalue()"
)
_FRAME = "out.write(len(answer).to_bytes(8, 'little') + answer)"
_SOUND = 'answer = b\'{"dtype": "uint8", "shape": [8, 8, 3], "classes": 3}\''


@pytest.mark.parametrize(
    ("opening", "answering", "said"),
    [
        ("out.write(b'\\xff' * 8)", "", "interpreter died"),
        ("out.write(b'\\x05'); sys.exit()", "", "interpreter died"),
        (f"answer = b'['; {_FRAME}", "", "expected JSON"),
        (f"answer = b'[' * 100_000; {_FRAME}", "", "levels"),
        (f"answer = b'{{\"classes\": 1e99}}'; {_FRAME}", "", "classes: expected"),
        (f"answer = b'{{\"error\": 7}}'; {_FRAME}", "", "error: expected"),
        (f"{_SOUND}; {_FRAME}", f"{_PICKLE}\n{_FRAME}", "float32 probabilities"),
        (f"{_SOUND}; {_FRAME}", f"answer = b'junk'; {_FRAME}", "float32 probabilities"),
        (f"{_SOUND}; {_FRAME}", "out.write(b'\\xff' * 8)", "interpreter died"),
    ],
)
def test_whatever_a_captured_process_answers_is_refused(
    opening: str, answering: str, said: str, path: Path, net: Net, monkeypatch: pytest.MonkeyPatch
) -> None:
    take = "stdin.read(int.from_bytes(stdin.read(8), 'little'))"
    code = (
        "import sys; stdin, out = sys.stdin.buffer, sys.stdout.buffer\n"
        f"{take}\n{opening}\nout.flush()\n{take}\n{answering}\nout.flush()"
    )
    monkeypatch.setattr(
        phone,
        "_start",
        lambda: subprocess.Popen(
            [sys.executable, "-c", code],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
        ),
    )
    with pytest.raises(UserError, match=said):
        open_model(path)(net.images)
    gc.collect()


def mutated(model: bytes, rng: random.Random) -> bytes:
    """A model with flipped bits, extreme fields, or a part missing."""
    changed = bytearray(model)
    kind = rng.randrange(4)
    if kind == 0:
        return model[: rng.randrange(len(model))]
    for _ in range(rng.choice((1, 3, 30))):
        at = rng.randrange(len(changed) - 4)
        if kind == 1:
            changed[at] ^= 1 << rng.randrange(8)
        elif kind == 2:
            at -= at % 4
            changed[at : at + 4] = rng.choice((b"\xff" * 4, bytes(4), b"\xff\xff\xff\x7f"))
        else:
            changed[at : at + 4] = rng.randbytes(4)
    return bytes(changed)


def survive(seeds: range, path: Path, net: Net, folder: Path) -> dict[str, int]:
    """Opens and uses mutated models; returns how often what came of it."""
    model, file = path.read_bytes(), folder / "mutated.tflite"
    outcomes = {"worked": 0, "refused": 0, "died": 0}
    for seed in seeds:
        file.write_bytes(mutated(model, random.Random(seed)))
        try:
            found = open_model(file)(net.images)
        except UserError as error:
            assert "\n" not in str(error)
            outcomes["died" if "died" in str(error) else "refused"] += 1
        else:
            assert found.dtype == np.float32 and len(found) == len(net.images)
            outcomes["worked"] += 1
        assert [left.name for left in folder.iterdir()] == [file.name]
    return outcomes


def test_mutated_models_leave_us_alive(
    path: Path, net: Net, tmp_path: Path, started: Started
) -> None:
    outcomes = survive(range(12), path, net, tmp_path)
    assert outcomes["worked"] < 12


@pytest.mark.slow
def test_200_mutated_models_leave_us_alive(
    path: Path, net: Net, tmp_path: Path, started: Started
) -> None:
    outcomes = survive(range(200), path, net, tmp_path)
    assert outcomes["worked"] > 0 and outcomes["refused"] > 0


def test_the_ops_of_something_else_are_refused(path: Path) -> None:
    for content in (b"", b"TFL3", bytes(100), path.read_bytes()[:200]):
        with pytest.raises(UserError, match=r"model: expected a \.tflite file"):
            ops(content)
