"""What a process that is ours sets before JAX starts: cores, memory, a cache of compiled programs."""

import ctypes
import os
from contextlib import suppress

import jax

from lepton_jax.cache import cache_folder
from lepton_jax.processor import cores, kind


def start_jax() -> None:
    """Sets JAX up for a verb; where the user has set the same thing, that stays.

    Each core is a virtual CPU device, so that clients train side by side. What is compiled is kept
    in the user's cache, so that a second start compiles nothing. Freed memory stays with the process.
    """
    _keep_memory()
    if "host_platform_device_count" not in os.environ.get("XLA_FLAGS", ""):
        with suppress(RuntimeError):  # JAX has started, in a process that is not ours
            jax.config.update("jax_num_cpu_devices", cores())
    if "JAX_COMPILATION_CACHE_DIR" not in os.environ:
        jax.config.update("jax_compilation_cache_dir", str(cache_folder() / "compiled" / kind()))
        jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.0)


def _keep_memory() -> None:
    """Lets glibc give a step the memory of the step before: fresh pages cost a sixth of it."""
    trim_threshold, top_pad, mmap_max, arena_max = -1, -2, -4, -8  # of malloc.h
    with suppress(AttributeError, OSError, TypeError):  # another C library
        c_library = ctypes.CDLL(None)
        c_library.mallopt(arena_max, 1)
        c_library.mallopt(mmap_max, 0)
        c_library.mallopt(trim_threshold, 2**31 - 1)
        c_library.mallopt(top_pad, 64 * 2**20)
