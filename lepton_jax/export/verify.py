"""Does the phone's model say what JAX says? Measured image by image, and by groups of images."""

from collections.abc import Mapping
from typing import NamedTuple

import numpy as np
from jaxtyping import Float, Int, Int32, UInt8

from lepton_jax.export.answers import Answers, answers
from lepton_jax.export.flatbuffer import ops
from lepton_jax.export.graph import logits_of

_TIE = 1e-6  # JAX's own first and second choice, no further apart than rounding
_LOGITS_OF = 1000  # images, spread over all of them: their logits take a run of their own


class Agreement(NamedTuple):
    """How a phone model compares with JAX on the same images.

    Attributes:
      bytes: size of the .tflite file.
      images: how many were compared.
      max_abs_diff: largest difference of a probability, over all images and classes.
      logit_diff: largest difference of a logit, as a part of JAX's largest logit, over up to 1,000
        images; None where the model holds no float logits.
      top1_agreement: part of the images with the same most probable class; where JAX holds two
        classes for equally probable (to 1e-6), either one agrees.
      accuracy: of the phone model, in [0, 1].
      jax_accuracy: of JAX, in [0, 1].
      latency_ms: `median` and `p95` of one run: one thread of this machine's CPU, warm.
      ops: how often each op occurs.
    """

    bytes: int
    images: int
    max_abs_diff: float
    logit_diff: float | None
    top1_agreement: float
    accuracy: float
    jax_accuracy: float
    latency_ms: dict[str, float]
    ops: dict[str, int]


def verify(
    model: bytes,
    images: UInt8[np.ndarray, "N H W F"],
    labels: Int32[np.ndarray, "N"],
    logits: Float[np.ndarray, "N K"],
) -> Agreement:
    """Runs a phone model on images and compares it with JAX.

    Args:
      model: the content of an exported .tflite file.
      images: at least one, as bytes.
      labels: their classes.
      logits: what JAX gives them.
    """
    found, expected = answers(model, images), softmax(logits)
    jax_choice, every = expected.argmax(axis=-1), np.arange(len(images))
    behind = expected[every, jax_choice] - expected[every, found.choices]
    return Agreement(
        bytes=len(model),
        images=len(images),
        max_abs_diff=_difference(found, expected),
        logit_diff=_logit_difference(model, found, images, logits),
        top1_agreement=float((behind <= _TIE).mean()),
        accuracy=float((found.choices == labels).mean()),
        jax_accuracy=float((jax_choice == labels).mean()),
        latency_ms={
            "median": float(np.median(found.seconds) * 1e3),
            "p95": float(np.percentile(found.seconds, 95) * 1e3),
        },
        ops=ops(model),
    )


def softmax(logits: Float[np.ndarray, "N K"]) -> Float[np.ndarray, "N K"]:
    """Probabilities, float32, of logits."""
    shifted = np.exp(logits.astype(np.float64) - logits.max(axis=-1, keepdims=True))
    return (shifted / shifted.sum(axis=-1, keepdims=True)).astype(np.float32)


def _difference(found: Answers, expected: np.ndarray) -> float:
    scores = softmax(found.scores) if found.form == "logits" else found.scores
    if found.form == "scores":
        expected = -np.sort(-expected, axis=-1)[:, : scores.shape[1]]
    return float(np.abs(scores - expected).max())


def _logit_difference(
    model: bytes, found: Answers, images: np.ndarray, logits: np.ndarray
) -> float | None:
    some = np.unique(np.linspace(0, len(images) - 1, min(len(images), _LOGITS_OF)).astype(int))
    if found.form == "logits":
        scores = found.scores[some]
    else:
        bare = logits_of(model)
        if bare is None:
            return None
        scores = answers(bare, images[some]).scores
    return float(np.abs(scores - logits[some]).max() / np.abs(logits[some]).max())


# --- groups ---------------------------------------------------------------------------------------


class GroupAgreement(NamedTuple):
    """How a phone model compares with JAX on one group's images.

    Attributes:
      images: how many the group has.
      accuracy: of the phone model, in [0, 1].
      jax_accuracy: of JAX, in [0, 1].
      loss: by how much the phone's accuracy is lower; negative where it is higher.
      agreement: part of the images with the same first class.
    """

    images: int
    accuracy: float
    jax_accuracy: float
    loss: float
    agreement: float


def by_group(
    labels: Int[np.ndarray, "N"],
    jax_choices: Int[np.ndarray, "N"],
    phone_choices: Int[np.ndarray, "N"],
    groups: Mapping[str, Int[np.ndarray, "_"]],
) -> dict[str, GroupAgreement]:
    """Compares a phone model with JAX group by group: a mean over all hides whom it fails.

    Args:
      labels: the images' classes.
      jax_choices: the classes that JAX gives them.
      phone_choices: the classes that the phone model gives them.
      groups: rows of each group; they may overlap, and those without rows are left out.
    """
    right, jax_right = phone_choices == labels, jax_choices == labels
    same = phone_choices == jax_choices

    def one(rows: np.ndarray) -> GroupAgreement:
        accuracy, jax_accuracy = float(right[rows].mean()), float(jax_right[rows].mean())
        loss = float(jax_right[rows].sum() - right[rows].sum()) / len(rows)
        return GroupAgreement(len(rows), accuracy, jax_accuracy, loss, float(same[rows].mean()))

    return {name: one(rows) for name, rows in groups.items() if len(rows)}
