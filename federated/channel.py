"""How the clients' messages become the server's sum, and with that, what the server can see."""

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax import lax

from lepton_jax import trees
from lepton_jax.typing import PyTree


class Channel(NamedTuple):
    """A running sum of messages: the memory of a round doesn't grow with its clients.

    Attributes:
      zero: shapes of one message -> the sum of none.
      add: (sum, one message) -> sum.
      across: (sum, mesh axis) -> the sum over the axis' devices.
    """

    zero: Callable[[PyTree], PyTree]
    add: Callable[[PyTree, PyTree], PyTree]
    across: Callable[[PyTree, str], PyTree]


def plain() -> Channel:
    """Adds messages as they are: the server is trusted to keep nothing but their sum."""
    return Channel(
        zero=lambda message: jax.tree.map(lambda x: jnp.zeros(x.shape, x.dtype), message),
        add=trees.add,
        across=lax.psum,
    )
