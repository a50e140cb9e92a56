"""The type of a stage, and how several become one."""

from collections.abc import Callable
from typing import NamedTuple

import jax
from jaxtyping import Array, Int32

from lepton_jax.typing import PyTree

Counts = dict[str, Int32[Array, ""]]


class Stage(NamedTuple):
    """One transformation of each client's update, and the way back from their mean.

    Attributes:
      name: as in the config.
      init: parameters -> the stage's state, which the server keeps between rounds.
      encode: (state, one client's update) -> (what leaves instead, counts of what was done).
      decode: (state, mean of what left, shapes of what came) -> (mean of what came, next round's
        state). It sees what the server sees, noise included, so that all it makes of it is as
        private.
      bound: the sensitivity law: the greatest L2 norm that goes in -> the greatest that comes out,
        infinite where there is none.
    """

    name: str
    init: Callable[[PyTree], PyTree]
    encode: Callable[[PyTree, PyTree], tuple[PyTree, PyTree]]
    decode: Callable[[PyTree, PyTree, PyTree], tuple[PyTree, PyTree]]
    bound: Callable[[float], float]


def chain(*stages: Stage) -> Stage:
    """Several stages, one after another; none at all lets every update pass.

    >>> from federated.stages import clip
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

    def decode(states: tuple, mean: PyTree, came: PyTree) -> tuple[PyTree, tuple]:
        shapes = [came]
        for stage, state in zip(stages, states, strict=True):
            shapes.append(jax.eval_shape(stage.encode, state, shapes[-1])[0])
        advanced = []
        for stage, state, shape in reversed(list(zip(stages, states, shapes[:-1], strict=True))):
            mean, new = stage.decode(state, mean, shape)
            advanced.append(new)
        return mean, tuple(reversed(advanced))

    def bound(norm: float) -> float:
        for stage in stages:
            norm = stage.bound(norm)
        return norm

    return Stage(
        f"chain [{', '.join(stage.name for stage in stages)}]",
        init=lambda params: tuple(stage.init(params) for stage in stages),
        encode=encode,
        decode=decode,
        bound=bound,
    )
