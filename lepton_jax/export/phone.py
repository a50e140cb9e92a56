"""What a phone does with an exported model, done here: LiteRT's interpreter on one CPU thread."""

import importlib.util
import os
import signal
import subprocess
import sys
import threading
import weakref
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import IO, Annotated, Any, Literal, NamedTuple

import msgspec
import numpy as np
from msgspec import Meta

from lepton_jax import untrusted
from lepton_jax.checks import UserError
from lepton_jax.export import interpreter
from lepton_jax.export.extras import litert

_AT_A_TIME = 32  # images that the process is given, and has its time for
_WAIT_S = 2.0 * interpreter.SECONDS  # its clock counts computing, ours also waits for a core
_ANSWER_BYTES = 2**20

Classify = Callable[[np.ndarray], np.ndarray]
Side = Annotated[int, Meta(ge=1, le=2**16)]


class _Told(msgspec.Struct, forbid_unknown_fields=True):
    """What a model takes and gives, as the process tells; or why it can't be opened."""

    dtype: Literal["uint8", "int8", "float32"] = "uint8"
    shape: tuple[Side, Side, Side] = (1, 1, 1)
    classes: Side = 1
    error: str = ""


class _Served(NamedTuple):
    """A process that has a model open; the model may do to it what it likes."""

    path: str
    process: subprocess.Popen[bytes]
    lock: threading.Lock


def open_model(path: Path | str) -> Classify:
    """Opens an exported model in a process of its own, which a malformed file may bring down.

    The process may take 4 GiB of memory and a minute of computing for 32 images, and writes no
    files. It ends with the function that is returned, and with this process at the latest.

    Args:
      path: a .tflite file of `lepton export`.

    Returns:
      images [N,H,W,F], uint8 as a camera gives them -> probabilities [N,K], float32; all calls go
      to the same process, one after another.

    Raises:
      UserError: no such file, not such a model, the interpreter died on it, or LiteRT is not
        installed; the function returned raises it for images of another shape or type, and where
        the interpreter died on them.
    """
    content = untrusted.read_bytes(Path(path), interpreter.MODEL_BYTES, "a .tflite file")
    if importlib.util.find_spec("ai_edge_litert") is None:
        litert()  # says what to install
    served = _Served(str(path), _start(), threading.Lock())
    try:
        told = _told(served, _ask(served, content, _ANSWER_BYTES))
    except BaseException:
        _end(served.process)
        raise

    def classify(images: np.ndarray) -> np.ndarray:
        _check(images, told.dtype, told.shape)
        parts = [images[i : i + _AT_A_TIME] for i in range(0, len(images), _AT_A_TIME)]
        with served.lock:
            answers = [_probabilities(served, part, told.classes) for part in parts]
        return np.concatenate([np.empty((0, told.classes), np.float32), *answers])

    weakref.finalize(classify, _end, served.process)
    return classify


def _check(images: np.ndarray, dtype: str, shape: Any) -> None:
    if images.dtype != dtype or images.shape[1:] != tuple(shape):
        raise UserError(
            "images",
            f"{dtype} [N, {', '.join(map(str, shape))}]",
            f"{images.dtype.name} {list(images.shape)}",
        )


# --- the process ----------------------------------------------------------------------------------


def _start() -> subprocess.Popen[bytes]:
    threads = {"OPENBLAS_NUM_THREADS": "1", "OMP_NUM_THREADS": "1"}  # each would reserve memory
    return subprocess.Popen(
        [sys.executable, "-P", interpreter.__file__],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        env={**os.environ, **threads},
        start_new_session=True,  # an interrupt from the keyboard is for us alone
    )


def _ask(served: _Served, content: bytes, limit: int) -> bytes:
    """Sends a frame and waits for the answer; a process that takes too long is killed."""
    process = served.process
    questions, answers = process.stdin, process.stdout
    late = threading.Timer(_WAIT_S, process.kill)
    late.daemon = True
    late.start()
    try:
        answer = None
        if questions is not None and answers is not None and not questions.closed:
            answer = _exchange(questions, answers, content, limit)
    except BaseException:  # an interrupt: the answer would be taken for that to the next question
        _end(process)
        raise
    finally:
        late.cancel()
    if answer is None:
        _end(process)
        expected, got = "a sound model", f"one that the interpreter died on ({_death(process)})"
        raise UserError(served.path, expected, got, "run `lepton export` again")
    return answer


def _exchange(questions: IO[bytes], answers: IO[bytes], content: bytes, limit: int) -> bytes | None:
    try:
        interpreter.send(questions, content)
        return interpreter.receive(answers, limit)
    except OSError:  # it died before it had read all
        return None


def _told(served: _Served, answer: bytes) -> _Told:
    told = untrusted.convert(untrusted.parse_json(answer, served.path), _Told, served.path)
    if told.error:
        expected = f"a model with the signature {interpreter.SIGNATURE!r}"
        raise UserError(served.path, expected, told.error, "run `lepton export`")
    return told


def _probabilities(served: _Served, images: np.ndarray, classes: int) -> np.ndarray:
    expected = (len(images), classes)
    limit = 4 * len(images) * classes + _ANSWER_BYTES
    answer = _ask(served, interpreter.packed(np.ascontiguousarray(images)), limit)
    try:
        found = interpreter.unpacked(answer)
    except (ValueError, EOFError, OSError):
        found = None
    if not isinstance(found, np.ndarray) or (found.shape, found.dtype) != (expected, np.float32):
        raise UserError(served.path, f"float32 probabilities {list(expected)}", "something else")
    return found


def _end(process: subprocess.Popen[bytes]) -> None:
    process.kill()
    process.wait()
    for pipe in (process.stdin, process.stdout):
        if pipe is not None:
            with suppress(OSError):  # what was to be sent to it is lost
                pipe.close()


def _death(process: subprocess.Popen[bytes]) -> str:
    code = process.returncode
    return f"signal {-code}, {signal.strsignal(-code)}" if code < 0 else f"exit code {code}"
