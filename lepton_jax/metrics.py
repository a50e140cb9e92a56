"""Metrics as monoids: sums and counts that merge, and one function that turns them into figures.

`merge` is associative and commutative with `zero` as its identity, so batches, clients and regions
add up by the same code, and padding, which adds 0 to every sum, weighs exactly nothing.
"""

from typing import Any, NamedTuple, TypeVar

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Float32, Int32

from lepton_jax.typing import Labels, Logits, Mask

Losses = Float[Array, "B"]


class Tally(NamedTuple):
    """What is cheap enough to keep at every training step."""

    loss: Float32[Array, ""]
    correct: Int32[Array, ""]
    count: Int32[Array, ""]  # type: ignore[assignment] # hides tuple.count, which nobody needs


class Metrics(NamedTuple):
    """What an evaluation keeps; `confusion` has a row per true and a column per predicted class."""

    loss: Float32[Array, ""]
    correct: Int32[Array, ""]
    top5: Int32[Array, ""]
    count: Int32[Array, ""]  # type: ignore[assignment] # hides tuple.count, which nobody needs
    confusion: Int32[Array, "K K"]


Monoid = TypeVar("Monoid", Tally, Metrics)


def zero_tally() -> Tally:
    """The tally of no examples."""
    return Tally(jnp.float32(0), jnp.int32(0), jnp.int32(0))


def zero(classes: int) -> Metrics:
    """The metrics of no examples, with this many classes."""
    none = jnp.int32(0)
    return Metrics(jnp.float32(0), none, none, none, jnp.zeros((classes, classes), jnp.int32))


def tally(losses: Losses, logits: Logits, labels: Labels, mask: Mask) -> Tally:
    """Sums a batch's losses and hits.

    Args:
      losses: each example's loss [B].
      logits: [B, K]; the greatest is the prediction, the first of equals.
      labels: true classes [B].
      mask: [B]; rows where it is False add nothing, not even NaN.
    """
    hits = mask & (jnp.argmax(logits, axis=-1).astype(jnp.int32) == labels)
    return Tally(
        loss=jnp.sum(jnp.where(mask, losses, 0.0), dtype=jnp.float32),
        correct=jnp.sum(hits, dtype=jnp.int32),
        count=jnp.sum(mask, dtype=jnp.int32),
    )


def measure(losses: Losses, logits: Logits, labels: Labels, mask: Mask) -> Metrics:
    """Sums all that an evaluation reports over a batch; arguments as `tally`'s.

    Top-5 counts a label whose logit fewer than five others beat; of equal logits the lower class
    goes first, as in the prediction, and a NaN is beaten by all.
    """
    classes = logits.shape[-1]
    counts = tally(losses, logits, labels, mask)
    predicted = jnp.argmax(logits, axis=-1).astype(jnp.int32)
    own = jnp.take_along_axis(logits, labels[:, None], axis=-1)
    before = jnp.arange(classes, dtype=jnp.int32)[None, :] < labels[:, None]
    ahead = jnp.sum(~(logits <= own) | ((logits == own) & before), axis=-1)
    return Metrics(
        loss=counts.loss,
        correct=counts.correct,
        top5=jnp.sum(mask & (ahead < min(5, classes)), dtype=jnp.int32),
        count=counts.count,
        confusion=zero(classes).confusion.at[labels, predicted].add(mask.astype(jnp.int32)),
    )


def merge(a: Monoid, b: Monoid) -> Monoid:
    """The metrics of two disjoint sets of examples, taken together."""
    return jax.tree.map(jnp.add, a, b)


def result(sums: Tally | Metrics) -> dict[str, Any]:
    """Turns sums into figures, in float64 on the host.

    Args:
      sums: of at least 0 examples; of none, every mean is None.

    Returns:
      `loss`, `accuracy`, `examples`; of `Metrics` also `top5_accuracy`, `precision_macro`,
      `precision_micro`, likewise `recall_*` and `f1_*`, `per_class` (lists of `precision`,
      `recall`, `f1`, `support`) and `confusion`. They equal scikit-learn's with
      `zero_division=0`: the macro means are over the classes that occur or are predicted.

    >>> result(Tally(jnp.float32(3), jnp.int32(1), jnp.int32(2)))
    {'loss': 1.5, 'accuracy': 0.5, 'examples': 2}
    """
    count = int(sums.count)
    figures: dict[str, Any] = {
        "loss": float(sums.loss) / count if count else None,
        "accuracy": int(sums.correct) / count if count else None,
        "examples": count,
    }
    if isinstance(sums, Metrics):
        figures["top5_accuracy"] = int(sums.top5) / count if count else None
        figures |= _by_class(np.asarray(sums.confusion).astype(np.int64))
    return figures


def _by_class(confusion: np.ndarray) -> dict[str, Any]:
    hits, support, predicted = confusion.diagonal(), confusion.sum(axis=1), confusion.sum(axis=0)
    per_class = {
        "precision": _ratio(hits, predicted),
        "recall": _ratio(hits, support),
        "f1": _ratio(2 * hits, support + predicted),
    }
    seen = (support + predicted) > 0
    figures: dict[str, Any] = {}
    for name, values in per_class.items():
        # One label and one prediction an example make every micro average the accuracy.
        figures[f"{name}_macro"] = float(values[seen].mean()) if seen.any() else None
        figures[f"{name}_micro"] = int(hits.sum()) / int(support.sum()) if seen.any() else None
    lists = {name: values.tolist() for name, values in per_class.items()}
    figures["per_class"] = {**lists, "support": support.tolist()}
    figures["confusion"] = confusion.tolist()
    return figures


def _ratio(numerator: np.ndarray, denominator: np.ndarray) -> np.ndarray:
    """numerator / denominator, 0 where the denominator is 0."""
    return np.divide(numerator, denominator, out=np.zeros(len(numerator)), where=denominator > 0)
