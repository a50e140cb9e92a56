"""How a C++ handler becomes a JAX primitive, and into how many parts its work is cut."""

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import jax
import jax.ffi
import jax.numpy as jnp
from jax.extend.core import Primitive
from jax.interpreters import mlir

from lepton_jax.processor import cores


def make_primitive(
    name: str,
    results: Callable[..., Any],
    attributes: Callable[..., dict[str, Any]],
    *,
    several: bool = False,
) -> Primitive:
    """A primitive that calls the handler `lepton_NAME` on a CPU.

    Args:
      name: of the handler.
      results: (arrays, static parameters by name) -> the `ShapeDtypeStruct` of what it gives, or a
        list of them.
      attributes: static parameters by name -> what the handler is told of them.
      several: whether it gives a list.
    """
    primitive = Primitive(f"onednn_{name}")
    primitive.multiple_results = several

    def call(*arrays: jax.Array, **static: Any) -> Any:
        handler = jax.ffi.ffi_call(f"lepton_{name}", results(*arrays, **static))
        return handler(*arrays, **attributes(**static))

    def shapes(*avals: Any, **static: Any) -> Any:
        def like(result: jax.ShapeDtypeStruct) -> Any:
            return avals[0].update(shape=result.shape, dtype=result.dtype)

        return jax.tree.map(like, results(*avals, **static))

    def run(*arrays: jax.Array, **static: Any) -> Any:
        return jax.jit(partial(primitive.bind, **static))(*arrays)

    primitive.def_impl(run)
    primitive.def_abstract_eval(shapes)
    lowering = mlir.lower_fun(call, multiple_results=several)
    mlir.register_lowering(primitive, lowering, platform="cpu")
    return primitive


def threads() -> int:
    """The cores, shared by the devices that compute at once."""
    mesh = jax.sharding.get_abstract_mesh()
    busy = 1 if mesh.empty else min(mesh.size, jax.local_device_count("cpu"))
    return max(1, cores() // busy)


def lead(arrays: Sequence[jax.Array], axes: Sequence[int | None]) -> list[jax.Array]:
    """Arrays with their mapped axes in front; what isn't mapped is repeated."""
    size = next(x.shape[i] for x, i in zip(arrays, axes, strict=True) if i is not None)
    return [
        jnp.broadcast_to(x, (size, *x.shape)) if axis is None else jnp.moveaxis(x, axis, 0)
        for x, axis in zip(arrays, axes, strict=True)
    ]
