"""A random rotation, which spreads a vector evenly over its coordinates."""

import jax
import jax.numpy as jnp
import numpy as np
from jax.flatten_util import ravel_pytree
from jaxtyping import Array, Float32

from federated.stages.stage import Counts, Stage
from lepton_jax import trees
from lepton_jax.typing import PyTree

_FACTOR_BITS = 7  # products with a 128 x 128 matrix keep a core busy, and memory is walked seldom
_ROUNDING = 2.0**-12  # far above what float32 products of this depth are off


def rotate(seed: int) -> Stage:
    """Random signs, then the Walsh-Hadamard transform (Ailon and Chazelle, 2009; Suresh et al., 2017).

    One vector of all leaves, padded with zeros to a power of two, is rotated; then no coordinate is
    much larger than the others, and an integer grid or a modulus can be chosen the tighter. The
    rotation is the same in every round, known to all, and protects nothing.

    *Guarantee.* A rotation keeps the L2 norm; the bound allows 2^-12 of it for rounding.

    Args:
      seed: fixes the signs.

    Returns:
      A stage that counts nothing.
    """

    def encode(state: tuple, update: PyTree) -> tuple[PyTree, Counts]:
        flat = ravel_pytree(update)[0]
        padded = jnp.pad(flat, (0, _padded(flat.size) - flat.size))
        return {"rotated": _hadamard(padded * _signs(seed, padded.size))}, {}

    def decode(state: tuple, mean: PyTree, came: PyTree) -> tuple[PyTree, tuple]:
        rotated = mean["rotated"]
        flat = _hadamard(rotated) * _signs(seed, rotated.size)
        like = jax.tree.map(lambda x: jnp.zeros(x.shape, x.dtype), came)
        return ravel_pytree(like)[1](flat[: trees.size(came)]), state

    return Stage(
        "rotate",
        init=lambda params: (),
        encode=encode,
        decode=decode,
        bound=lambda norm: norm * (1 + _ROUNDING),
    )


def _padded(size: int) -> int:
    return 1 << max(0, size - 1).bit_length()


def _signs(seed: int, size: int) -> Float32[Array, "D"]:
    return jax.random.rademacher(jax.random.key(seed), (size,), jnp.float32)


def _hadamard(x: Float32[Array, "D"]) -> Float32[Array, "D"]:
    """The orthonormal transform of a vector whose length is a power of two; its own inverse.

    The matrix is a Kronecker product of small ones, each applied along an axis of its own.
    """
    bits = x.size.bit_length() - 1
    sizes = [min(_FACTOR_BITS, bits - done) for done in range(0, bits, _FACTOR_BITS)]
    shaped = x.reshape([2**size for size in sizes])
    for axis, size in enumerate(sizes):
        product = jnp.tensordot(
            shaped, _matrix(size), (axis, 0), precision=jax.lax.Precision.HIGHEST
        )
        shaped = jnp.moveaxis(product, -1, axis)
    return shaped.reshape(x.shape)


def _matrix(bits: int) -> np.ndarray:
    matrix = np.ones((1, 1), np.float32)
    for _ in range(bits):
        matrix = np.block([[matrix, matrix], [matrix, -matrix]])
    return matrix / np.float32(2 ** (bits / 2))
