"""Which variants are worth having: those that no other one beats."""

from collections.abc import Sequence
from typing import NamedTuple


class Point(NamedTuple):
    """What a variant costs and gives; less is better of the first two, more of the last."""

    bytes: float
    latency_ms: float
    accuracy: float


def front(points: Sequence[Point]) -> list[bool]:
    """Marks the points of the Pareto front.

    Args:
      points: of any number of variants.

    Returns:
      For each point, whether no other one is at least as good in everything and better in
      something; of equal points all are marked.

    >>> front([Point(315, 0.13, 0.80), Point(94, 0.04, 0.79), Point(161, 0.13, 0.79)])
    [True, True, False]
    """
    return [not any(_beats(other, point) for other in points) for point in points]


def _beats(a: Point, b: Point) -> bool:
    good = (a.bytes <= b.bytes, a.latency_ms <= b.latency_ms, a.accuracy >= b.accuracy)
    return all(good) and a != b
