"""What all sides of one round agree on before it begins."""

from typing import NamedTuple

from federated.secure.graph import Shape, neighbours
from federated.secure.messages import AbortError, Context, client_name
from lepton_jax.checks import UserError

_LEAST_SESSION = 16


class Plan(NamedTuple):
    """One round's terms, public.

    Attributes:
      context: the session and round.
      neighbours: of each client.
      threshold: how many shares give a secret back, and how many of a client and its neighbours
        must be there at every stage.
      dimension: D, the elements of a vector.
    """

    context: Context
    neighbours: tuple[tuple[int, ...], ...]
    threshold: int
    dimension: int


def make_plan(clients: int, dimension: int, shape: Shape, context: Context) -> Plan:
    """Draws a round's graph and checks its terms.

    *Guarantee.* With a threshold above half of a client and its neighbours, no set of answers, in
    which every holder reveals a share of only one of a client's two secrets, gives back both.

    | edge                                      | result                               |
    |-------------------------------------------|--------------------------------------|
    | fewer than 3 clients                      | UserError                            |
    | an odd degree, unless it is all others; 0 | UserError                            |
    | a threshold of at most half of degree + 1 | UserError                            |
    | a threshold above degree + 1              | UserError                            |
    | a threshold of degree + 1                 | any dropout before the end: an abort |
    | a session's name of fewer than 16 bytes   | UserError                            |
    | a negative round; a dimension below 1     | UserError                            |

    Args:
      clients: n, numbered from 0.
      dimension: D, the elements of a vector.
      shape: degree and threshold.
      context: the session and round.

    Raises:
      UserError: as in the table.

    >>> plan = make_plan(5, 10, Shape(degree=2, threshold=2), Context(b"sixteen bytes or more", 0))
    >>> [len(those) for those in plan.neighbours]
    [2, 2, 2, 2, 2]
    """
    edges = neighbours(clients, shape.degree, context)
    least, most = (shape.degree + 1) // 2 + 1, shape.degree + 1
    if not least <= shape.threshold <= most:
        raise UserError(
            "secure aggregation: threshold",
            f"{least} to {most}, above half of a client and its {shape.degree} neighbours",
            shape.threshold,
        )
    if len(context.session) < _LEAST_SESSION:
        raise UserError(
            "secure aggregation: session",
            f"at least {_LEAST_SESSION} bytes",
            len(context.session),
            "draw them at random for each run",
        )
    for name, value, lowest in (("round", context.round, 0), ("dimension", dimension, 1)):
        if value < lowest:
            raise UserError(f"secure aggregation: {name}", f"at least {lowest}", value)
    return Plan(context, edges, shape.threshold, dimension)


def check_member(plan: Plan, client: int, what: str) -> None:
    """Refuses a client that isn't in the round.

    Raises:
      AbortError: names it.
    """
    if not 0 <= client < len(plan.neighbours):
        last = len(plan.neighbours) - 1
        raise AbortError(client_name(client), what, f"one of clients 0 to {last}", client)
