"""The heavy optional packages: imported where they are needed, and kept quiet."""

import os
import sys
import warnings
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from importlib import import_module
from types import ModuleType
from typing import Any

from lepton_jax.checks import UserError


def tensorflow() -> ModuleType:
    """TensorFlow, which takes seconds to import.

    Raises:
      UserError: it is not installed.
    """
    with _needed("TensorFlow"), quiet():
        import tensorflow as tf

        # JAX has taken the accelerator's memory already. RuntimeError: whoever imported TensorFlow
        # before us has it running, and decided.
        with suppress(RuntimeError):
            tf.config.set_visible_devices([], "GPU")
    return tf


def litert_converter() -> tuple[ModuleType, ModuleType, ModuleType, ModuleType]:
    """The parts of litert-converter: its passes, and its MLIR's `ir`, `passmanager`, `stablehlo`.

    Raises:
      UserError: it is not installed.
    """
    remedy = "pip install --no-deps -r constraints/litert.txt"
    with _needed("litert-converter", remedy), quiet():
        api = import_module("litert_converter.converter_api_ext")
        mlir = "litert_converter.mlir"
        ir, passmanager = import_module(f"{mlir}.ir"), import_module(f"{mlir}.passmanager")
        return api, ir, passmanager, import_module(f"{mlir}.dialects.stablehlo")


def litert() -> ModuleType:
    """LiteRT's interpreter, the one that runs on phones.

    Raises:
      UserError: it is not installed.
    """
    with _needed("LiteRT"):
        from ai_edge_litert import interpreter
    return interpreter


def open_interpreter(model: bytes, **options: Any) -> Any:
    """LiteRT's interpreter of a model on one thread, its tensors allocated.

    Args:
      model: the content of a .tflite file that was made here: another one may end the process.
      **options: of the interpreter.

    Raises:
      UserError: LiteRT is not installed.
    """
    interpreter = litert().Interpreter
    with quiet():
        opened = interpreter(model_content=model, num_threads=1, **options)
        opened.allocate_tensors()
    return opened


def schema() -> ModuleType:
    """The flatbuffer schema of a .tflite file.

    Raises:
      UserError: it is not installed.
    """
    with _needed("LiteRT"):
        from ai_edge_litert import schema_py_generated
    return schema_py_generated


@contextmanager
def quiet() -> Iterator[None]:
    """Drops what TensorFlow and LiteRT tell stderr from C++, which no log level silences.

    Errors still come as exceptions with their own messages.
    """
    sys.stderr.flush()
    saved = os.dup(2)
    try:
        with open(os.devnull, "wb") as nowhere, warnings.catch_warnings():
            os.dup2(nowhere.fileno(), 2)
            # The converter's calibration still uses the interpreter that TensorFlow is dropping.
            warnings.filterwarnings("ignore", r"\s*Warning: tf.lite.Interpreter is deprecated")
            yield
            sys.stderr.flush()
    finally:
        os.dup2(saved, 2)
        os.close(saved)


@contextmanager
def _needed(package: str, remedy: str = "pip install 'lepton-jax[export]'") -> Iterator[None]:
    try:
        yield
    except ImportError as error:
        raise UserError("export", f"{package} to be installed", str(error), remedy) from error
