"""Arithmetic, sizes and fingerprints of pytrees of arrays."""

import hashlib

import jax
import jax.numpy as jnp
import numpy as np

from lepton_jax.typing import PyTree

# Of a bound on `norm`, what is left for it to be off: not even rounding passes the bound.
NORM_ROOM = 1 - 2.0**-18


def zeros_like(tree: PyTree) -> PyTree:
    """A tree of zeros with the shapes and dtypes of `tree`."""
    return jax.tree.map(jnp.zeros_like, tree)


def add(a: PyTree, b: PyTree) -> PyTree:
    """a + b, leaf by leaf."""
    return jax.tree.map(jnp.add, a, b)


def sub(a: PyTree, b: PyTree) -> PyTree:
    """a - b, leaf by leaf."""
    return jax.tree.map(jnp.subtract, a, b)


def scale(tree: PyTree, factor: jax.Array | float) -> PyTree:
    """factor * tree; the leaves keep their dtypes."""
    return jax.tree.map(lambda x: (x * factor).astype(x.dtype), tree)


def select(condition: jax.Array, a: PyTree, b: PyTree) -> PyTree:
    """a where the scalar `condition` holds, else b; the branch not taken may hold NaN."""
    return jax.tree.map(lambda x, y: jnp.where(condition, x, y), a, b)


def norm(tree: PyTree) -> jax.Array:
    """The L2 norm over all leaves, in float32.

    >>> float(norm({"a": jnp.array([3.0]), "b": jnp.array([4.0])}))
    5.0
    """
    leaves = jax.tree.leaves(tree)
    squares = [jnp.sum(jnp.square(x.astype(jnp.float32))) for x in leaves]
    return jnp.sqrt(sum(squares, start=jnp.zeros((), jnp.float32)))


def all_finite(tree: PyTree) -> jax.Array:
    """Whether no leaf holds a NaN or an infinity; a boolean scalar."""
    each = [jnp.all(jnp.isfinite(x)) for x in jax.tree.leaves(tree)]
    return jnp.all(jnp.stack(each)) if each else jnp.bool_(True)


def size(tree: PyTree) -> int:
    """How many numbers the tree holds."""
    return sum(int(np.prod(x.shape)) for x in jax.tree.leaves(tree))


def nbytes(tree: PyTree) -> int:
    """How many bytes the tree's arrays take, uncompressed."""
    return sum(int(np.prod(x.shape)) * x.dtype.itemsize for x in jax.tree.leaves(tree))


def sha256(tree: PyTree) -> str:
    """A fingerprint of every leaf: path, dtype, shape and bytes, in the order of the paths."""
    digest = hashlib.sha256()
    leaves = [(jax.tree_util.keystr(path), leaf) for path, leaf in jax.tree.leaves_with_path(tree)]
    for path, leaf in sorted(leaves, key=lambda item: item[0]):
        array = np.ascontiguousarray(leaf)
        digest.update(f"{path} {array.dtype.str} {array.shape}\n".encode())
        digest.update(array.tobytes())
    return digest.hexdigest()
