"""Normal noise on a tree of arrays."""

import jax
import jax.numpy as jnp

from lepton_jax.typing import PRNGKey, PyTree


def add_normal(tree: PyTree, deviation: float, key: PRNGKey) -> PyTree:
    """Adds independent normal noise to every number of a tree.

    Samples are float32 of Threefry: at most 5.5 deviations out, and known to whoever knows the key.
    Each leaf has a key of its own.

    Args:
      tree: of float32 arrays.
      deviation: standard deviation of the noise.
      key: used for nothing else.
    """
    leaves, structure = jax.tree.flatten(tree)
    keys = jax.random.split(key, len(leaves))
    noised = [
        leaf + deviation * jax.random.normal(each, leaf.shape, jnp.float32)
        for leaf, each in zip(leaves, keys, strict=True)
    ]
    return jax.tree.unflatten(structure, noised)
