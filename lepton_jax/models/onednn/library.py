"""Compiles the C++ beside it against oneDNN the first time it is wanted, and gives it to XLA."""

import ctypes
import hashlib
import platform
import shutil
import subprocess
from functools import cache
from importlib import metadata
from pathlib import Path

import jax
import jax.ffi
import jaxlib

from lepton_jax.cache import stored
from lepton_jax.checks import UserError
from lepton_jax.processor import kind

TARGETS = (
    *("forward", "backward_images", "backward_kernel"),
    *("pool_maximum", "pool_gather", "pool_scatter"),
)

_SOURCES = sorted(Path(__file__).parent.glob("*.cc"))
_HEADER = Path(__file__).with_name("parallel.h")
_HEADERS, _LIBRARY = "onednn-devel-cpu-gomp", "onednn-cpu-gomp"
_FLAGS = ("-O3", "-march=native", "-std=c++17", "-fPIC", "-shared", "-fopenmp")
_BUILT, _SUM = "kernels.so", "kernels.so.sha256"


@cache
def missing() -> UserError | None:
    """What this machine lacks for oneDNN's convolutions; None where XLA can call them.

    The first call compiles them into the user's cache, which takes seconds.
    """
    try:
        _register(_build())
    except UserError as error:
        return error
    return None


def _build() -> Path:
    """The shared library for this source, compiler, oneDNN and jaxlib, compiled at most once.

    Raises:
      UserError: what is needed is not here, or does not compile.
    """
    if (platform.system(), platform.machine()) != ("Linux", "x86_64"):
        raise _lacking(f"{platform.system()} on {platform.machine()}")
    library, header = _installed(_LIBRARY, "libdnnl.so.3"), _installed(_HEADERS, "dnnl.hpp")
    compiler = shutil.which("g++") or shutil.which("clang++")
    if compiler is None:
        raise _lacking("no C++ compiler", "install g++")
    # Headers of others: their warnings are not ours.
    includes = [f"-isystem{folder}" for folder in (jax.ffi.include_dir(), header.parent)]
    links = [str(library), f"-Wl,-rpath,{library.parent}"]
    command = [compiler, *_FLAGS, *includes, *map(str, _SOURCES), *links, "-o"]
    version = subprocess.run([compiler, "--version"], capture_output=True, text=True).stdout
    identity = [
        [hashlib.sha256(file.read_bytes()).hexdigest() for file in (*_SOURCES, _HEADER)],
        [version, *command],
        [jaxlib.__version__, metadata.version(_LIBRARY), kind()],
    ]
    folder = stored("native", identity, lambda folder: _compile(command, folder))
    _verify(folder)
    return folder / _BUILT


def _compile(command: list[str], folder: Path) -> None:
    done = subprocess.run([*command, str(folder / _BUILT)], capture_output=True, text=True)
    if done.returncode:
        errors = [line for line in done.stderr.splitlines() if "error" in line]
        raise _lacking(f"a compiler that fails: {(errors or ['no message'])[0]}", "mend it")
    (folder / _SUM).write_text(hashlib.sha256((folder / _BUILT).read_bytes()).hexdigest())


def _verify(folder: Path) -> None:
    try:
        built, noted = (folder / _BUILT).read_bytes(), (folder / _SUM).read_text()
    except OSError:
        built, noted = b"", ""
    if hashlib.sha256(built).hexdigest() != noted:
        raise _lacking(f"a damaged file in {folder}", "remove that folder")


def _register(path: Path) -> None:
    try:
        library = ctypes.CDLL(str(path))
    except OSError as error:
        raise _lacking(f"a library that can't be loaded: {error}", "reinstall it") from error
    for name in TARGETS:
        handler = jax.ffi.pycapsule(getattr(library, name))
        jax.ffi.register_ffi_target(f"lepton_{name}", handler, platform="cpu")


def _installed(package: str, name: str) -> Path:
    """Where pip put a package's file."""
    try:
        files = metadata.files(package) or ()
    except metadata.PackageNotFoundError:
        files = ()
    for file in files:
        if file.name == name and Path(str(file.locate())).exists():
            return Path(str(file.locate())).resolve()
    raise _lacking(f"no package {package}")


def _lacking(what: str, remedy: str = "pip install 'lepton-jax[cpu]'") -> UserError:
    return UserError("model.conv", "what onednn needs", what, remedy)
