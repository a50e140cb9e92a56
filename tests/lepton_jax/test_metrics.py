import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn import metrics as oracle

from lepton_jax import metrics
from lepton_jax.metrics import Metrics, Tally, merge, result, zero, zero_tally

K = 4
tally, measure = jax.jit(metrics.tally), jax.jit(metrics.measure)
counts = st.integers(0, 1000)


@st.composite
def tallies(draw: st.DrawFn) -> Tally:
    # Whole numbers: their float32 sums are exact, so the laws hold to the bit.
    return Tally(jnp.float32(draw(counts)), jnp.int32(draw(counts)), jnp.int32(draw(counts)))


@st.composite
def measured(draw: st.DrawFn) -> Metrics:
    confusion = draw(st.lists(counts, min_size=K * K, max_size=K * K))
    sums = draw(tallies())
    top5 = jnp.int32(draw(counts))
    return Metrics(
        sums.loss, sums.correct, top5, sums.count, jnp.array(confusion, jnp.int32).reshape(K, K)
    )


monoids = st.one_of(
    st.tuples(tallies(), tallies(), tallies(), st.just(zero_tally())),
    st.tuples(measured(), measured(), measured(), st.just(zero(K))),
)


def same(a: Tally | Metrics, b: Tally | Metrics) -> bool:
    return type(a) is type(b) and all(map(np.array_equal, a, b))


@settings(max_examples=25, deadline=None)
@given(monoids)
def test_merging_is_associative_and_commutative_and_zero_changes_nothing(abc: tuple) -> None:
    a, b, c, nothing = abc
    assert same(merge(merge(a, b), c), merge(a, merge(b, c)))
    assert same(merge(a, b), merge(b, a))
    assert same(merge(a, nothing), a)
    assert same(merge(nothing, a), a)


def batch(labels: np.ndarray, predicted: np.ndarray, classes: int) -> Metrics:
    """Metrics of given predictions."""
    logits = jnp.asarray(np.eye(classes, dtype=np.float32)[predicted])
    losses = jnp.zeros(len(labels), jnp.float32)
    return measure(losses, logits, jnp.asarray(labels), jnp.ones(len(labels), bool))


CASES = {
    "random": ([3, 1, 0, 2, 2, 1, 3, 0, 1, 1], [3, 0, 0, 2, 1, 1, 3, 2, 1, 0], 4),
    "a class is never predicted": ([0, 1, 2, 2], [0, 1, 1, 0], 3),
    "a class never occurs": ([0, 0, 1, 1], [0, 2, 1, 2], 3),
    "a class neither occurs nor is predicted": ([0, 0, 1, 3], [0, 1, 1, 3], 5),
    "one class": ([0, 0], [0, 0], 1),
    "all wrong": ([0, 1, 0], [1, 0, 1], 2),
}


@pytest.mark.filterwarnings("ignore:A single label was found:UserWarning")  # of the oracle
@pytest.mark.parametrize("case", CASES)
def test_figures_equal_those_of_scikit_learn(case: str) -> None:
    labels, predicted, classes = CASES[case]
    figures = result(batch(np.array(labels, np.int32), np.array(predicted, np.int32), classes))

    assert figures["accuracy"] == pytest.approx(oracle.accuracy_score(labels, predicted), abs=1e-9)
    everything = list(range(classes))
    confusion = oracle.confusion_matrix(labels, predicted, labels=everything)
    assert figures["confusion"] == confusion.tolist()
    scores = ("precision", "recall", "f1")
    for average in ("macro", "micro"):
        expected = oracle.precision_recall_fscore_support(
            labels, predicted, average=average, zero_division=0
        )
        got = [figures[f"{score}_{average}"] for score in scores]
        assert got == pytest.approx(expected[:3], abs=1e-9)
    *expected, support = oracle.precision_recall_fscore_support(
        labels, predicted, labels=everything, zero_division=0
    )
    for score, values in zip(scores, expected, strict=True):
        assert figures["per_class"][score] == pytest.approx(list(values), abs=1e-9)
    assert figures["per_class"]["support"] == support.tolist()


@pytest.mark.parametrize("classes", [2, 5, 6, 20])
def test_loss_and_top5_equal_those_of_scikit_learn(classes: int) -> None:
    rng = np.random.default_rng(classes)
    logits = rng.normal(size=(200, classes)).astype(np.float32)
    labels = np.concatenate([np.arange(classes), rng.integers(classes, size=200 - classes)])
    labels = labels.astype(np.int32)
    exponents = np.exp(logits.astype(np.float64))
    shares = exponents / exponents.sum(axis=-1, keepdims=True)
    losses = jnp.asarray(-np.log(shares[np.arange(200), labels]), jnp.float32)

    figures = result(measure(losses, jnp.asarray(logits), jnp.asarray(labels), jnp.ones(200, bool)))

    every = np.arange(classes)
    assert figures["loss"] == pytest.approx(oracle.log_loss(labels, shares, labels=every), rel=1e-6)
    if classes <= 5:
        assert figures["top5_accuracy"] == 1.0
    else:
        expected = oracle.top_k_accuracy_score(labels, logits, k=5, labels=every)
        assert figures["top5_accuracy"] == pytest.approx(expected, abs=1e-9)


def test_of_equal_logits_the_lower_class_goes_first_and_nan_goes_last() -> None:
    level = jnp.zeros((7, 7), jnp.float32)
    sums = measure(jnp.zeros(7), level, jnp.arange(7, dtype=jnp.int32), jnp.ones(7, bool))
    assert (int(sums.correct), int(sums.top5)) == (1, 5)

    for classes in (3, 7):
        lost = jnp.full((1, classes), jnp.nan, jnp.float32)
        sums = measure(jnp.zeros(1), lost, jnp.array([1], jnp.int32), jnp.ones(1, bool))
        assert int(sums.top5) == 0


def test_padding_adds_exactly_nothing_not_even_nan() -> None:
    losses = jnp.array([0.25, jnp.nan], jnp.float32)
    logits = jnp.array([[0.0, 1.0], [jnp.nan, 0.0]], jnp.float32)
    labels = jnp.array([1, 0], jnp.int32)
    mask = jnp.array([True, False])

    for function in (tally, measure):
        padded = function(losses, logits, labels, mask)
        assert same(padded, function(losses[:1], logits[:1], labels[:1], mask[:1]))


def test_parts_merge_to_the_whole() -> None:
    rng = np.random.default_rng(0)
    labels, predicted = (rng.integers(K, size=60).astype(np.int32) for _ in range(2))
    parts = [batch(labels[i : i + 20], predicted[i : i + 20], K) for i in (0, 20, 40)]
    assert same(merge(merge(parts[0], parts[1]), parts[2]), batch(labels, predicted, K))


def test_nothing_has_no_means() -> None:
    assert result(zero_tally()) == {"loss": None, "accuracy": None, "examples": 0}
    figures = result(zero(3))
    assert figures["f1_macro"] is None and figures["top5_accuracy"] is None
    assert figures["per_class"]["support"] == [0, 0, 0]
