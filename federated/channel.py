"""How the clients' messages become the server's sum, and with that, what the server can see."""

from collections.abc import Callable, Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from lepton_jax import trees
from lepton_jax.typing import PyTree


class Channel(NamedTuple):
    """A running sum of messages: the memory of a round doesn't grow with its clients.

    Attributes:
      name: for messages.
      zero: shapes of one message -> the sum of none.
      add: (sum, one message) -> sum.
      across: (sum, mesh axis) -> the sum over the axis' devices.
    """

    name: str
    zero: Callable[[PyTree], PyTree]
    add: Callable[[PyTree, PyTree], PyTree]
    across: Callable[[PyTree, str], PyTree]


class RoundMark(NamedTuple):
    """What a message is bound to.

    Attributes:
      number: of the round, from 1.
      model_sha256: fingerprint of the parameters that the round starts from.
    """

    number: int
    model_sha256: str


class HostChannel(NamedTuple):
    """A sum of whole numbers that is made outside the compiled round, by a protocol.

    Attributes:
      name: for messages.
      total: (mark, the clients' numbers [n], what they send: int32 leaves [n,...]) -> the sum over
        the n clients, or None where the round comes to nothing.
    """

    name: str
    total: Callable[[RoundMark, np.ndarray, PyTree], PyTree | None]


def plain() -> Channel:
    """Adds messages as they are: the server is trusted to keep nothing but their sum."""
    return Channel(
        name="plain sums",
        zero=lambda message: jax.tree.map(lambda x: jnp.zeros(x.shape, x.dtype), message),
        add=trees.add,
        across=lax.psum,
    )


def host_sums() -> HostChannel:
    """The same, of whole numbers and outside the compiled round; the sum of nobody's is zeros."""
    return HostChannel(
        "plain sums",
        lambda mark, ids, sent: jax.tree.map(lambda x: x.sum(0, dtype=x.dtype), sent),
    )


def add_up(messages: Sequence[PyTree]) -> PyTree:
    """The sum of at least one message on the host."""
    return jax.tree.map(lambda *each: np.sum(each, axis=0, dtype=each[0].dtype), *messages)
