"""What happens to one client's update before it leaves: Optax' grammar, for federated updates."""

import math
from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float32, Int32

from lepton_jax import config, trees
from lepton_jax.checks import UserError
from lepton_jax.typing import PyTree

Counts = dict[str, Int32[Array, ""]]
_LEAST = 2.0**-100


class Stage(NamedTuple):
    """One transformation of each client's update.

    Attributes:
      name: as in the config.
      init: parameters -> the stage's state, which the server keeps between rounds.
      encode: (state, one client's update) -> (what leaves instead, counts of what was done).
      advance: (state, counts summed over the round's clients) -> next round's state.
      bound: the sensitivity law: the greatest L2 norm that goes in -> the greatest that comes out,
        infinite where there is none.
    """

    name: str
    init: Callable[[PyTree], PyTree]
    encode: Callable[[PyTree, PyTree], tuple[PyTree, PyTree]]
    advance: Callable[[PyTree, PyTree], PyTree]
    bound: Callable[[float], float]


def make_stage(settings: config.Stage) -> Stage:
    """A config's stage."""
    match settings:
        case config.Clip(max_norm=max_norm):
            return clip(max_norm)


def chain(*stages: Stage) -> Stage:
    """Several stages, one after another; none at all lets every update pass.

    >>> both = chain(clip(2.0), clip(0.5))
    >>> both.name, both.bound(float("inf"))
    ('chain [clip, clip]', 0.5)
    """

    def encode(states: tuple, update: PyTree) -> tuple[PyTree, tuple]:
        counts = []
        for stage, state in zip(stages, states, strict=True):
            update, counted = stage.encode(state, update)
            counts.append(counted)
        return update, tuple(counts)

    def advance(states: tuple, counts: tuple) -> tuple:
        each = zip(stages, states, counts, strict=True)
        return tuple(stage.advance(state, counted) for stage, state, counted in each)

    def bound(norm: float) -> float:
        for stage in stages:
            norm = stage.bound(norm)
        return norm

    return Stage(
        f"chain [{', '.join(stage.name for stage in stages)}]",
        init=lambda params: tuple(stage.init(params) for stage in stages),
        encode=encode,
        advance=advance,
        bound=bound,
    )


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
    limit = max_norm * trees.NORM_ROOM

    def encode(state: tuple, update: PyTree) -> tuple[PyTree, Counts]:
        finite = trees.all_finite(update)
        unit, peak = _normalized(update)
        length = trees.norm(unit)  # of squares up to 1, whose sum can't overflow
        clipped = finite & (peak * length > limit)
        shortened = trees.scale(unit, limit / length)
        passed = trees.select(clipped, shortened, update)
        counts = {"clipped": clipped.astype(jnp.int32), "discarded": (~finite).astype(jnp.int32)}
        return trees.select(finite, passed, trees.zeros_like(update)), counts

    return Stage(
        "clip",
        init=lambda params: (),
        encode=encode,
        advance=lambda state, counts: state,
        bound=lambda norm: math.inf if max_norm == math.inf else min(norm, max_norm),
    )


def _normalized(update: PyTree) -> tuple[PyTree, Float32[Array, ""]]:
    """An update divided by its greatest absolute value, and that value; 1 where all are 0."""
    leaves = [jnp.max(jnp.abs(x.astype(jnp.float32))) for x in jax.tree.leaves(update)]
    peak = jnp.max(jnp.stack(leaves))
    peak = jnp.where(peak > 0, peak, 1.0)
    # XLA multiplies by the reciprocal, and that of a float32 above 2^126 is flushed to 0.
    down = jnp.where(peak > 1, 2.0**-64, 1.0)
    return jax.tree.map(lambda x: (x * down) / (peak * down), update), peak
