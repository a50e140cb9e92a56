"""The few types that everything hangs on, and the letters that name their axes.

`C` clients, `T` local steps, `B` batch, `H W` pixels, `F` channels, `K` classes.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
from jaxtyping import Array, Bool, Float, Int32, Key, Num, UInt8

PyTree = Any
PRNGKey = Key[Array, ""]
Images = UInt8[Array, "B H W F"]  # as stored: bytes
Pixels = Num[Array, "B H W F"]  # bytes, or floats on the same 0..255 scale after augmentation
Labels = Int32[Array, "B"]
Logits = Float[Array, "B K"]
Mask = Bool[Array, "B"]  # True: an example; False: padding, which weighs exactly 0


class Variables(NamedTuple):
    """What a model learned: its parameters, and its BatchNorm statistics (`{}` without BatchNorm)."""

    params: PyTree
    stats: PyTree


class Batch(NamedTuple):
    """Examples for one step; rows where `mask` is False are padding."""

    images: Images
    labels: Labels
    mask: Mask


class Classifier(NamedTuple):
    """A model, whoever wrote it: three pure functions from pixels (0..255) to logits.

    Attributes:
      init: key -> fresh variables.
      apply: (variables, pixels [B,H,W,F]) -> logits [B,K]; evaluation, and what is exported.
      learn: (variables, pixels [B,H,W,F], mask [B], key) -> (logits [B,K], new stats); training
        mode. The mask keeps padding out of the BatchNorm statistics; the key feeds dropout.
    """

    init: Callable[[PRNGKey], Variables]
    apply: Callable[[Variables, Pixels], Logits]
    learn: Callable[[Variables, Pixels, Mask, PRNGKey], tuple[Logits, PyTree]]


def keys(root: jax.Array, *purposes: str) -> dict[str, jax.Array]:
    """Splits one key by purpose, so that adding a purpose at the end leaves the others as they were.

    >>> sorted(keys(jax.random.key(0), "augment", "dropout"))
    ['augment', 'dropout']
    """
    return {purpose: jax.random.fold_in(root, i) for i, purpose in enumerate(purposes)}
