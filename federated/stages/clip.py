"""Scaling an update down to a norm, whatever it holds."""

import math

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float32

from federated.stages.stage import Counts, Stage
from lepton_jax import trees
from lepton_jax.checks import UserError
from lepton_jax.typing import PyTree

_LEAST = 2.0**-100


def clip(max_norm: float) -> Stage:
    """Scales an update down to an L2 norm over all its leaves (McMahan et al., 2018).

    *Guarantee.* Whatever goes in, NaN and infinity included, what comes out is finite and its L2
    norm, in exact arithmetic, is at most `max_norm`: longer updates are scaled to a norm smaller by
    4 in a million, which is more than float32 sums of their squares are off. A shorter update
    passes unchanged, bit by bit. What happens to one client's update depends on no other client.

    | edge                                | result                                       |
    |-------------------------------------|----------------------------------------------|
    | max_norm 0, negative, NaN, < 2^-100 | UserError                                    |
    | max_norm inf                        | finite updates pass unchanged; no bound      |
    | an update with a NaN or an infinity | zero, and counted as `discarded`             |
    | finite, but its norm overflows      | scaled like any other                        |
    | a zero update                       | zero, neither `clipped` nor `discarded`      |
    | no update at all (an empty cohort)  | nothing to encode; the counts stay 0         |

    Args:
      max_norm: above 0; may be infinite.

    Returns:
      A stage that counts updates as `clipped` and `discarded`.

    Raises:
      UserError: max_norm is not above 0.
    """
    if not max_norm >= _LEAST:  # NaN compares false
        raise UserError(
            "clip: max_norm", "a number above 0 that float32 can tell from it", max_norm
        )

    def encode(state: tuple, update: PyTree) -> tuple[PyTree, Counts]:
        out, clipped, finite = clipped_to(update, jnp.float32(max_norm * trees.NORM_ROOM))
        return out, {"clipped": clipped.astype(jnp.int32), "discarded": (~finite).astype(jnp.int32)}

    return Stage(
        "clip",
        init=lambda params: (),
        encode=encode,
        decode=lambda state, mean, came: (mean, state),
        bound=lambda norm: math.inf if max_norm == math.inf else min(norm, max_norm),
    )


def clipped_to(
    update: PyTree, limit: Float32[Array, ""]
) -> tuple[PyTree, Bool[Array, ""], Bool[Array, ""]]:
    """An update, scaled to an L2 norm of `limit` where it is longer, and 0 where it isn't finite.

    Returns:
      (the update, whether it was longer, whether it was finite).
    """
    finite = trees.all_finite(update)
    unit, peak = _normalized(update)
    length = trees.norm(unit)  # of squares up to 1, whose sum can't overflow
    clipped = finite & (peak * length > limit)
    passed = trees.select(clipped, trees.scale(unit, limit / length), update)
    return trees.select(finite, passed, trees.zeros_like(update)), clipped, finite


def _normalized(update: PyTree) -> tuple[PyTree, Float32[Array, ""]]:
    """An update divided by its greatest absolute value, and that value; 1 where all are 0."""
    leaves = [jnp.max(jnp.abs(x.astype(jnp.float32))) for x in jax.tree.leaves(update)]
    peak = jnp.max(jnp.stack(leaves))
    peak = jnp.where(peak > 0, peak, 1.0)
    # XLA multiplies by the reciprocal, and that of a float32 above 2^126 is flushed to 0.
    down = jnp.where(peak > 1, 2.0**-64, 1.0)
    return jax.tree.map(lambda x: (x * down) / (peak * down), update), peak
