"""What a JAX function computes, as far as a phone model made of it must show the same."""

from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple

import jax
import numpy as np

from lepton_jax.typing import Logits, Pixels

_HELD = "held: "


class Facts(NamedTuple):
    """Of a classifier.

    Attributes:
      parameters: how many numbers it learned.
      numbers: how many its function holds: those, and what norms compute with.
      convolutions: how many it computes.
      additions: of two things that depend on the image: residual connections.
      norms: how many take an image's own statistics, as GroupNorm does and BatchNorm doesn't.
    """

    parameters: int
    numbers: int
    convolutions: int
    additions: int
    norms: int


def facts_of(
    apply: Callable[[Pixels], Logits], image_shape: tuple[int, int, int], parameters: int
) -> Facts:
    """Counts in the function that is converted, before any converter sees it.

    Args:
      apply: pixels [1,H,W,F], uint8 -> logits [1,K]; its variables as constants.
      image_shape: (H, W, F).
      parameters: how many numbers the model learned.
    """
    closed = jax.make_jaxpr(apply)(np.zeros((1, *image_shape), np.uint8))
    counts, _ = _count(closed.jaxpr, [True])
    held = sum(size for name, size in counts.items() if name.startswith(_HELD))
    return Facts(
        parameters=parameters,
        numbers=max(parameters, sum(int(np.size(each)) for each in closed.consts) + held),
        convolutions=counts["conv_general_dilated"],
        additions=counts["add of two"],
        norms=counts["rsqrt of one"],
    )


def _count(jaxpr: Any, from_image: Sequence[bool]) -> tuple[Counter[str], list[bool]]:
    """Primitives by name, and which of the outputs depend on the image."""
    counts: Counter[str] = Counter()
    known = {id(var): yes for var, yes in zip(jaxpr.invars, from_image, strict=True)}
    for eqn in jaxpr.eqns:
        given = [known.get(id(var), False) for var in eqn.invars]
        made = [any(given)] * len(eqn.outvars)
        for inner in _inner(eqn.params):
            fits = len(inner.invars) == len(given)
            own, told = _count(inner, given if fits else [True] * len(inner.invars))
            counts += own
            made = told if fits and len(told) == len(made) else made
        counts[eqn.primitive.name] += 1
        values: list[Any] = [getattr(var, "val", 0) for var in eqn.invars]
        for value in values:  # where JAX writes constants into the equations that use them
            if np.ndim(value):
                counts[f"{_HELD}{id(value)}"] = int(np.size(value))
        if eqn.primitive.name == "add":
            counts["add of two"] += all(given)
        if eqn.primitive.name == "rsqrt":
            counts["rsqrt of one"] += any(given)
        known |= {id(var): yes for var, yes in zip(eqn.outvars, made, strict=True)}
    return counts, [known.get(id(var), False) for var in jaxpr.outvars]


def _inner(params: dict[str, Any]) -> Iterator[Any]:
    """The functions that a primitive calls."""
    for value in params.values():
        for each in value if isinstance(value, list | tuple) else [value]:
            inner = getattr(each, "jaxpr", each)
            if hasattr(inner, "eqns"):
                yield inner
