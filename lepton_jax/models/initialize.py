"""Fresh variables from shapes alone, all kernels from one draw."""

from math import prod, sqrt
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import linen as nn

from lepton_jax.typing import PRNGKey, Variables


def variable_shapes(module: nn.Module, image_shape: tuple[int, int, int]) -> Variables:
    """The shapes and dtypes of a module's variables, without computing anything."""
    image = jax.ShapeDtypeStruct((1, *image_shape), jnp.float32)
    key = jax.eval_shape(lambda: jax.random.key(0))
    collections = jax.eval_shape(lambda key, image: module.init(key, image, None), key, image)
    return Variables(collections["params"], collections.get("batch_stats", {}))


def initialize(shapes: Variables, key: PRNGKey) -> Variables:
    """Normal kernels of variance 2 / fan-in, but 1 / fan-in in the head; norms at rest; no bias.

    One draw serves all kernels: XLA takes up to a second to compile a generator for each of them.
    Source: He et al. (2015).
    """
    leaves = jax.tree.leaves_with_path(shapes)
    sizes = [prod(leaf.shape) for path, leaf in leaves if path[-1].key == "kernel"]
    normal = jax.random.normal(key, (sum(sizes),))
    draws = iter(jnp.split(normal, np.cumsum(sizes)[:-1]))

    def fresh(path: tuple, leaf: jax.ShapeDtypeStruct) -> Any:
        kind = path[-1].key
        if kind != "kernel":
            return jnp.full(leaf.shape, 1.0 if kind in ("scale", "var") else 0.0, leaf.dtype)
        gain = 1.0 if path[-2].key == "head" else 2.0
        return sqrt(gain / prod(leaf.shape[:-1])) * next(draws).reshape(leaf.shape)

    return jax.tree.map_with_path(fresh, shapes)
