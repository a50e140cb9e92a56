"""Makes JAX strict before any test imports it: no silent promotion, shapes checked, four devices."""

import os
import tempfile
from pathlib import Path

os.environ.setdefault("JAX_PLATFORMS", "cpu")
_CACHE = tempfile.TemporaryDirectory(prefix="lepton-tests-")  # in place of the user's own
os.environ["LEPTON_CACHE_DIR"] = _CACHE.name
_KEYS = tempfile.TemporaryDirectory(prefix="lepton-keys-")
os.environ["LEPTON_KEY_DIR"] = _KEYS.name

import jax
import pytest
from jaxtyping import install_import_hook

jax.config.update("jax_num_cpu_devices", 4)
jax.config.update("jax_numpy_dtype_promotion", "strict")
jax.config.update("jax_numpy_rank_promotion", "raise")

install_import_hook(["lepton_jax", "federated"], "beartype.beartype")


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
