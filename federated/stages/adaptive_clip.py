"""A clip whose norm follows a quantile of the clients' own norms."""

import math

import jax.numpy as jnp

from federated.stages.clip import clipped_to
from federated.stages.stage import Counts, Stage
from lepton_jax import config, trees
from lepton_jax.typing import PyTree


def adaptive_clip(settings: config.AdaptiveClip) -> Stage:
    """Clips to a norm C that the server moves towards a quantile of the norms (Andrew et al., 2021).

    Each client tells with its update whether its norm stayed below C, and C is multiplied by
    exp(-learning_rate * (fraction below - quantile)).

    *Guarantee.* What leaves is one vector: the clipped update over C, times sqrt(1 - share^2), and
    plus or minus `share` for whether it was below. Its L2 norm is at most 1 whatever C is, so that
    the noise on the sum covers the telling too: one release is one Gaussian event with the noise
    multiplier that was asked for, and nothing has to be accounted besides. Andrew et al. split the
    noise instead; their z_delta and sigma_b are `multiplier` / sqrt(1 - share^2) and
    `multiplier` / (2 share) here. Next round's C comes out of the noised sum alone.

    | edge                                | result                                       |
    |-------------------------------------|----------------------------------------------|
    | an update with a NaN or an infinity | zero, `discarded`, and told as above C       |
    | finite, but its norm overflows      | scaled like any other, told as above C       |
    | a zero update                       | zero, told as below C                        |
    | no update at all, without noise     | C stays as if half were below                |

    Returns:
      A stage that counts updates as `clipped` and `discarded`, with the state {"norm": C}.
    """
    part = math.sqrt(1 - settings.share**2) * trees.NORM_ROOM

    def encode(state: PyTree, update: PyTree) -> tuple[PyTree, Counts]:
        short, clipped, finite = clipped_to(update, state["norm"])
        below = jnp.where(finite & ~clipped, 1.0, -1.0) * settings.share
        message = {"below": below, "update": trees.scale(short, part / state["norm"])}
        counts = {"clipped": clipped.astype(jnp.int32), "discarded": (~finite).astype(jnp.int32)}
        return message, counts

    def decode(state: PyTree, mean: PyTree, came: PyTree) -> tuple[PyTree, PyTree]:
        below = (mean["below"] / settings.share + 1) / 2
        factor = jnp.exp(-settings.learning_rate * (below - settings.quantile))
        update = trees.scale(mean["update"], state["norm"] / part)
        return update, {"norm": state["norm"] * factor}

    return Stage(
        "adaptive_clip",
        init=lambda params: {"norm": jnp.float32(settings.initial)},
        encode=encode,
        decode=decode,
        bound=lambda norm: 1.0,
    )
