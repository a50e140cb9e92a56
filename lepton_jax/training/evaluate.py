"""Evaluation of a classifier: metrics of a split, and the page of samples that goes with them."""

from functools import partial
from pathlib import Path
from typing import Any, Literal

import jax
import jax.numpy as jnp
import numpy as np

from lepton_jax import metrics
from lepton_jax.config import Run
from lepton_jax.data.batches import in_order
from lepton_jax.data.load import load
from lepton_jax.data.splits import Examples, Splits
from lepton_jax.metrics import Metrics
from lepton_jax.models import build
from lepton_jax.training.loop import on_device
from lepton_jax.training.losses import Loss, make_loss
from lepton_jax.training.records import write_json
from lepton_jax.training.runs import load_run
from lepton_jax.typing import Batch, Classifier, Images, Logits, Variables

_MISTAKES, _SAMPLES = 16, 24


def evaluate(
    model: Classifier,
    variables: Variables,
    examples: Examples,
    loss: Loss,
    *,
    batch_size: int = 256,
) -> Metrics:
    """Measures a model on examples.

    Args:
      model: its `apply` is measured.
      variables: what it learned.
      examples: images [N,H,W,F] and labels [N]; N may be 0.
      loss: (logits, labels) -> each example's loss [B].
      batch_size: examples at a time; it changes no count, and the loss in its last digits only.
    """
    sums = metrics.zero(_classes(model, variables, examples))
    for batch in on_device(in_order(examples, batch_size)):
        sums = metrics.merge(sums, _measure(model, loss, variables, batch))
    return sums


def predict(
    model: Classifier, variables: Variables, images: np.ndarray, *, batch_size: int = 256
) -> np.ndarray:
    """The logits [N, K] of images uint8 [N,H,W,F], on the host."""
    examples = Examples(images, np.zeros(len(images), np.int32), None)
    rows = [np.zeros((0, _classes(model, variables, examples)), np.float32)]
    for batch in on_device(in_order(examples, batch_size)):
        rows.append(np.asarray(_apply(model, variables, batch.images)))
    return np.concatenate(rows)[: len(images)]


def evaluation(
    model: Classifier, variables: Variables, examples: Examples, loss: Loss
) -> dict[str, Any]:
    """What `evaluation.json` says of a split: its figures and up to 24 samples.

    Returns:
      `test`: `metrics.result` over the split; `samples`: first the most confident mistakes (16 at
      most), then correct ones, each with its `index` in the split, `label`, `predicted` class and
      `confidence` (the softmax probability of the prediction).
    """
    logits, labels = predict(model, variables, examples.images), examples.labels
    scores, truth = jnp.asarray(logits), jnp.asarray(labels)
    sums = metrics.measure(loss(scores, truth), scores, truth, jnp.ones(len(labels), bool))
    return {"test": metrics.result(sums), "samples": samples(logits, labels)}


def evaluate_run(
    folder: Path, split: Literal["test", "validation", "train"] = "test"
) -> dict[str, Any]:
    """Measures a finished run again, over a whole split.

    Args:
      folder: of the run.
      split: which; of `test` the figures are left in the folder's evaluation.json.

    Returns:
      As `evaluation`, with the split's name in place of `test`.
    """
    saved = load_run(folder)
    splits = load(saved.config.data)
    model, loss = classifier(saved.config, splits), make_loss(saved.config.loss)
    figures = evaluation(model, saved.variables, getattr(splits, split), loss)
    if split == "test":
        write_json(folder / "evaluation.json", figures)
    return {split: figures.pop("test"), **figures}


def classifier(run: Run, splits: Splits) -> Classifier:
    """The model of a run, fitted to its data's shape, classes and normalization."""
    info = splits.info
    height, width, channels = splits.train.images.shape[1:]
    return build(
        run.model,
        (height, width, channels),
        len(info.classes),
        mean=info.mean,
        std=info.std,
        in_loop=run.train.privacy is not None,
    )


def samples(logits: np.ndarray, labels: np.ndarray) -> list[dict[str, Any]]:
    """The samples of `evaluation`, from logits [N, K] and labels [N]."""
    predicted = logits.argmax(axis=-1)
    exponents = np.exp(logits - logits.max(axis=-1, keepdims=True), dtype=np.float64)
    confidence = exponents.max(axis=-1, initial=0) / exponents.sum(axis=-1)
    wrong = np.flatnonzero(predicted != labels)
    worst = wrong[np.argsort(-confidence[wrong], kind="stable")][:_MISTAKES]
    right = np.flatnonzero(predicted == labels)[: _SAMPLES - len(worst)]
    return [
        {
            "index": int(i),
            "label": int(labels[i]),
            "predicted": int(predicted[i]),
            "confidence": float(confidence[i]),
        }
        for i in np.concatenate([worst, right])
    ]


# The model and the loss are static, hashed by identity: one compilation serves all epochs.
@partial(jax.jit, static_argnums=(0, 1))
def _measure(model: Classifier, loss: Loss, variables: Variables, batch: Batch) -> Metrics:
    logits = model.apply(variables, batch.images)
    return metrics.measure(loss(logits, batch.labels), logits, batch.labels, batch.mask)


@partial(jax.jit, static_argnums=0)
def _apply(model: Classifier, variables: Variables, images: Images) -> Logits:
    return model.apply(variables, images).astype(jnp.float32)


def _classes(model: Classifier, variables: Variables, examples: Examples) -> int:
    image = jax.ShapeDtypeStruct((1, *examples.images.shape[1:]), jnp.uint8)
    return int(jax.eval_shape(model.apply, variables, image).shape[-1])
