"""Curves: what a run recorded, as lines to draw."""

from collections.abc import Sequence
from itertools import accumulate
from typing import Literal, NamedTuple

from lepton_jax.report.contents import Record
from lepton_jax.report.files import RunFiles

Quantity = Literal["loss", "accuracy"]
Split = Literal["train", "validation", "test"]
QUANTITIES: tuple[Quantity, ...] = ("accuracy", "loss")
SPLITS: tuple[Split, ...] = ("train", "validation", "test")


Scale = dict[int, int | float]  # epochs or rounds to something that grows with them


class Line(NamedTuple):
    """Points of a curve: x and y of the same length."""

    x: tuple[int | float, ...]
    y: tuple[float, ...]


def line(records: Sequence[Record], split: Split, quantity: Quantity) -> Line:
    """Loss or accuracy of a split over epochs or rounds, where it was measured."""
    points = [(record.number, _value(record, split, quantity)) for record in records]
    known = [(x, y) for x, y in points if y is not None]
    return Line(tuple(x for x, _ in known), tuple(y for _, y in known))


def judged(files: RunFiles) -> Split:
    """The split that tells best how a run did meanwhile: test, else validation, else train."""
    for split in ("test", "validation"):
        if line(files.records, split, "accuracy").x:
            return split
    return "train"


def seconds(files: RunFiles) -> Scale:
    """The training time from the start to the end of each epoch or round."""
    total = accumulate(timing.seconds for timing in files.timings)
    return dict(zip((timing.number for timing in files.timings), total, strict=True))


def traffic(files: RunFiles) -> Scale:
    """The bytes that went up and down from the start to the end of each round."""
    each = [(record.bytes_up or 0) + (record.bytes_down or 0) for record in files.records]
    if not any(each):
        return {}
    return dict(zip((record.number for record in files.records), accumulate(each), strict=True))


def against(curve: Line, scale: Scale) -> Line:
    """The curve over another x axis; points that the scale doesn't know are left out."""
    known = [(scale[int(x)], y) for x, y in zip(curve.x, curve.y, strict=True) if int(x) in scale]
    return Line(tuple(x for x, _ in known), tuple(y for _, y in known))


def _value(record: Record, split: Split, quantity: Quantity) -> float | None:
    figures = getattr(record, split)
    return None if figures is None else getattr(figures, quantity)
