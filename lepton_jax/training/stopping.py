"""When a run stops and which epoch it ends with: pure functions of the records in metrics.jsonl."""

from collections.abc import Sequence
from typing import Any, NamedTuple

from lepton_jax.checks import UserError

Record = dict[str, Any]


class Rule(NamedTuple):
    """What ends a run: its last epoch, the end of patience, or a target on the test split."""

    epochs: int
    patience: int | None = None
    target_accuracy: float | None = None


def is_over(rule: Rule, records: Sequence[Record]) -> bool:
    """Whether no epoch is to follow these.

    >>> losses = (0.9, 0.5, 0.6, 0.7)
    >>> records = [{"epoch": e, "validation": {"loss": x}} for e, x in enumerate(losses, start=1)]
    >>> [is_over(Rule(10, patience=2), records[:epoch]) for epoch in (1, 2, 3, 4)]
    [False, False, False, True]
    """
    if not records:
        return False
    tired = rule.patience is not None and len(records) - best(records) >= rule.patience
    return len(records) >= rule.epochs or tired or reached(rule, records)


def reached(rule: Rule, records: Sequence[Record]) -> bool:
    """Whether the last of the records reaches the target."""
    test = records[-1].get("test")
    target = rule.target_accuracy
    return target is not None and test is not None and test["accuracy"] >= target


def best(records: Sequence[Record]) -> int:
    """The epoch of the least validation loss, the first of equals."""
    return min(records, key=lambda record: record["validation"]["loss"])["epoch"]


def chosen(rule: Rule, records: Sequence[Record]) -> int:
    """The epoch whose variables a run ends with: with patience the best, unless the target came."""
    if rule.patience is None or reached(rule, records):
        return len(records)
    return best(records)


def check_target(accuracy: float | None) -> None:
    """Refuses a target accuracy that no run can reach, or that every run has.

    Raises:
      UserError: not a number in (0, 1].
    """
    if accuracy is not None and not 0 < accuracy <= 1:
        remedy = "0.99 stands for 99 %"
        raise UserError("--target-accuracy", "a number in (0, 1]", accuracy, remedy)
