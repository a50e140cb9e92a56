from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from lepton_jax import metrics
from lepton_jax.data.splits import Examples
from lepton_jax.training.evaluate import evaluate, evaluation, predict, samples
from lepton_jax.training.losses import cross_entropy
from lepton_jax.typing import Classifier

LOSS = cross_entropy()


def test_the_batch_size_changes_no_count(
    model: Classifier, examples: Callable[[int], Examples]
) -> None:
    variables, data = model.init(jax.random.key(0)), examples(11)
    ones, all_at_once = (
        metrics.result(evaluate(model, variables, data, LOSS, batch_size=size)) for size in (3, 64)
    )
    assert ones.pop("loss") == pytest.approx(all_at_once.pop("loss"), rel=1e-6)
    assert ones == all_at_once and ones["examples"] == 11


def test_no_examples_measure_to_zero(
    model: Classifier, examples: Callable[[int], Examples]
) -> None:
    variables = model.init(jax.random.key(0))
    sums = evaluate(model, variables, examples(0), LOSS)
    assert metrics.result(sums)["accuracy"] is None and sums.confusion.shape == (3, 3)
    assert predict(model, variables, examples(0).images).shape == (0, 3)


def test_predictions_are_the_models_in_order(
    model: Classifier, examples: Callable[[int], Examples]
) -> None:
    variables, data = model.init(jax.random.key(0)), examples(11)
    logits = predict(model, variables, data.images, batch_size=4)
    expected = model.apply(variables, jnp.asarray(data.images))
    np.testing.assert_allclose(logits, expected, rtol=1e-5, atol=1e-6)


def test_an_evaluation_agrees_with_the_sums_of_batches(
    model: Classifier, examples: Callable[[int], Examples]
) -> None:
    variables, data = model.init(jax.random.key(0)), examples(30)
    figures = evaluation(model, variables, data, LOSS)["test"]
    expected = metrics.result(evaluate(model, variables, data, LOSS, batch_size=7))
    assert figures.pop("loss") == pytest.approx(expected.pop("loss"), rel=1e-6)
    assert figures == expected


def test_samples_are_the_most_confident_mistakes_then_correct_ones() -> None:
    rng = np.random.default_rng(0)
    logits = rng.normal(size=(100, 3)).astype(np.float32)
    labels = logits.argmax(axis=-1).astype(np.int32)
    labels[20:60] = (labels[20:60] + 1) % 3
    found = samples(logits, labels)

    mistakes, correct = found[:16], found[16:]
    assert len(found) == 24
    assert all(each["label"] != each["predicted"] for each in mistakes)
    confidence = [each["confidence"] for each in mistakes]
    assert confidence == sorted(confidence, reverse=True)
    shares = np.asarray(jax.nn.softmax(logits)).max(axis=-1)
    assert confidence[0] == pytest.approx(shares[20:60].max(), rel=1e-5)
    assert [each["index"] for each in correct] == list(range(8))
    assert all(each["label"] == each["predicted"] == labels[each["index"]] for each in correct)


def test_of_few_examples_all_are_shown() -> None:
    logits = np.array([[5.0, 0.0], [0.0, 5.0]], np.float32)
    found = samples(logits, np.array([1, 1], np.int32))
    assert [each["index"] for each in found] == [0, 1]
    assert samples(np.zeros((0, 2), np.float32), np.zeros(0, np.int32)) == []
