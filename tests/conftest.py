"""Makes JAX strict before any test imports it: no silent promotion, shapes checked, four devices.

What a test compiles is kept for the others, in a cache that the workers share and nobody else.
"""

import os
import tempfile
from pathlib import Path

os.environ.setdefault("JAX_PLATFORMS", "cpu")
if "PYTEST_XDIST_WORKER" not in os.environ:
    _CACHE = tempfile.TemporaryDirectory(prefix="lepton-tests-")  # in place of the user's own
    os.environ["LEPTON_CACHE_DIR"] = _CACHE.name
    os.environ.setdefault("JAX_COMPILATION_CACHE_DIR", _CACHE.name + "/compiled")
    os.environ["JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS"] = "0"
_KEYS = tempfile.TemporaryDirectory(prefix="lepton-keys-")
os.environ["LEPTON_KEY_DIR"] = _KEYS.name

import jax
import jaxtyping
import pytest

jax.config.update("jax_num_cpu_devices", 4)
jax.config.update("jax_numpy_dtype_promotion", "strict")
jax.config.update("jax_numpy_rank_promotion", "raise")

jaxtyping.install_import_hook(["lepton_jax", "federated"], "beartype.beartype")


@pytest.fixture(autouse=True)
def shapes_checked(request: pytest.FixtureRequest) -> None:
    """Checks no shapes in slow tests: it takes most of their time, and the others do it."""
    slow = request.node.get_closest_marker("slow") is not None
    jaxtyping.config.update("jaxtyping_disable", slow)


@pytest.fixture
def fresh_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A cache of the test's own."""
    folder = tmp_path / "cache"
    monkeypatch.setenv("LEPTON_CACHE_DIR", str(folder))
    return folder


@pytest.fixture(scope="session")
def tfds_data_dir() -> str:
    """The prepared TFDS folder; tests that need it are skipped without."""
    folder = os.environ.get("TFDS_DATA_DIR")
    if not folder:
        pytest.skip("needs real data: set TFDS_DATA_DIR to a prepared TFDS folder")
    return folder


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Puts the longest first, which run in order: they would else be waited for at the end."""
    items.sort(key=lambda item: item.path.name not in ("test_readme.py", "test_notebook.py"))
