"""Makes JAX strict before any test imports it: no silent promotion, shapes checked, four devices."""

import os
from pathlib import Path

os.environ.setdefault("JAX_PLATFORMS", "cpu")

import jax
import pytest
from jaxtyping import install_import_hook

jax.config.update("jax_num_cpu_devices", 4)
jax.config.update("jax_numpy_dtype_promotion", "strict")
jax.config.update("jax_numpy_rank_promotion", "raise")

install_import_hook(["lepton_jax", "federated"], "beartype.beartype")


@pytest.fixture(scope="session", autouse=True)
def cache_folder(tmp_path_factory: pytest.TempPathFactory) -> None:
    """Keeps the user's own cache out of the tests."""
    os.environ["LEPTON_CACHE_DIR"] = str(tmp_path_factory.mktemp("cache"))


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
