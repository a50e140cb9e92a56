"""Data are data: nothing that is read can run code, and nothing unpacks what was not checked."""

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
FILES = sorted(
    path
    for package in ("lepton_jax", "federated", "benchmarks")
    for path in (ROOT / package).rglob("*.py")
)
MODULES = {"pickle", "_pickle", "cPickle", "cloudpickle", "dill", "marshal", "shelve", "joblib"}
CALLS = {"eval", "exec"}
METHODS = {"extractall", "unpack_archive", "read_pickle", "unsafe_load", "full_load"}


def offences(source: str) -> Iterator[str]:
    """What in a module could turn data into code, or unpack it unchecked, with its line."""
    for node in ast.walk(ast.parse(source)):
        line = getattr(node, "lineno", 0)
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            names = [node.module or "", *(f"{node.module}.{each.name}" for each in node.names)]
        else:
            names = []
        yield from (f"{line}: import {name}" for name in names if MODULES & set(name.split(".")))
        if isinstance(node, ast.Call):
            yield from (f"{line}: {said}" for said in _calls(node))


def _calls(node: ast.Call) -> Iterator[str]:
    name = ast.unparse(node.func)
    method = name.split(".")[-1]
    if name in CALLS or method in METHODS or name.endswith("builtins.eval"):
        yield name
    if name in ("yaml.load", "torch.load", "__import__"):
        yield name
    if method == "extract" and "archive" in name:
        yield name
    if name in ("np.load", "numpy.load", "np.loads", "load_npy") or name.endswith("np.load"):
        allowed = {keyword.arg: keyword.value for keyword in node.keywords}.get("allow_pickle")
        if not (isinstance(allowed, ast.Constant) and allowed.value is False):
            yield f"{name} without allow_pickle=False"
    elif any(
        keyword.arg == "allow_pickle"
        and not (isinstance(keyword.value, ast.Constant) and keyword.value.value is False)
        for keyword in node.keywords
    ):
        yield f"{name} with allow_pickle"


def test_all_the_source_is_looked_through() -> None:
    names = {str(path.relative_to(ROOT)) for path in FILES}
    assert {"lepton_jax/cache.py", "federated/simulate.py", "benchmarks/run.py"} <= names


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(ROOT)))
def test_no_source_turns_data_into_code(path: Path) -> None:
    assert list(offences(path.read_text(encoding="utf-8"))) == []


@pytest.mark.parametrize(
    "source",
    [
        "import pickle",
        "import os, marshal as m",
        "from cloudpickle import loads",
        "import multiprocessing.pickle",
        "eval('1')",
        "exec(text)",
        "np.load(path)",
        "np.load(path, allow_pickle=True)",
        "np.load(path, allow_pickle=flag)",
        "np.save(path, array, allow_pickle=True)",
        "yaml.load(text)",
        "torch.load(path)",
        "tarfile.open(path).extractall(folder)",
        "shutil.unpack_archive(path)",
        "zipfile.ZipFile(path).extractall()",
        "archive.extract(member)",
        "pd.read_pickle(path)",
    ],
)
def test_what_could_is_noticed(source: str) -> None:
    assert list(offences(source))


@pytest.mark.parametrize(
    "source", ["model.eval()", "np.load(path, allow_pickle=False)", "archive.extractfile(member)"]
)
def test_what_only_looks_like_it_is_not(source: str) -> None:
    assert not list(offences(source))
