"""Figures by client and region agree with counting by hand, and with each other."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from sklearn.metrics import f1_score

from federated import regions
from federated.regions import evaluate_clients
from federated.shards import Client
from lepton_jax.data.splits import Examples
from lepton_jax.training.losses import cross_entropy
from lepton_jax.typing import Classifier, Logits, Mask, Pixels, PRNGKey, PyTree, Variables

CLASSES = 3
VARIABLES = Variables({"table": jax.random.normal(jax.random.key(1), (256, CLASSES))}, {})


def table_model() -> Classifier:
    """Looks the first pixel up."""

    def init(key: PRNGKey) -> Variables:
        return VARIABLES

    def apply(variables: Variables, pixels: Pixels) -> Logits:
        return variables.params["table"][pixels[:, 0, 0, 0].astype(jnp.int32)]

    def learn(
        variables: Variables, pixels: Pixels, mask: Mask, key: PRNGKey
    ) -> tuple[Logits, PyTree]:
        return apply(variables, pixels), {}

    return Classifier(init, apply, learn)


MODEL, LOSS = table_model(), cross_entropy()


def data(n: int = 700) -> Examples:
    rng = np.random.default_rng(0)
    images = rng.integers(256, size=(n, 2, 2, 1), dtype=np.uint8)
    return Examples(images, rng.integers(CLASSES, size=n, dtype=np.int32), None)


def clients(*parts: tuple[str, int, int]) -> tuple[Client, ...]:
    """Clients by (region, training examples, holdout examples)."""
    ends = np.cumsum([n for _, train, holdout in parts for n in (train, holdout)])
    rows = np.split(np.random.default_rng(1).permutation(ends[-1]), ends[:-1])
    return tuple(
        Client(i, region, rows[2 * i], rows[2 * i + 1]) for i, (region, _, _) in enumerate(parts)
    )


def evaluate(who: tuple[Client, ...], examples: Examples) -> dict[str, Any]:
    return evaluate_clients(MODEL, VARIABLES, who, examples, LOSS, CLASSES)


def by_hand(examples: Examples, index: np.ndarray) -> dict[str, Any]:
    logits = MODEL.apply(VARIABLES, jnp.asarray(examples.images[index]))
    labels = examples.labels[index]
    predicted = np.asarray(logits).argmax(axis=-1)
    return {
        "examples": len(index),
        "loss": pytest.approx(float(LOSS(logits, jnp.asarray(labels)).mean()), rel=1e-5),
        "accuracy": pytest.approx((predicted == labels).mean()),
        "f1_macro": pytest.approx(f1_score(labels, predicted, average="macro", zero_division=0)),
    }


WHO = (("north", 20, 300), ("south", 20, 7), ("north", 20, 1), ("south", 20, 250))


def test_figures_equal_counting_by_hand() -> None:
    who, examples = clients(*WHO), data()
    figures = evaluate(who, examples)
    for row, each in zip(figures["clients"], who, strict=True):
        expected = by_hand(examples, each.holdout)
        del expected["f1_macro"]
        assert row == {"client": each.id, "region": each.region, **expected}
    for row, name in zip(figures["regions"], ["north", "south"], strict=True):
        index = np.concatenate([each.holdout for each in who if each.region == name])
        assert row == {"region": name, "clients": 2, **by_hand(examples, index)}
    assert figures["client_data"] == "holdout"


def test_percentiles_are_over_clients_not_examples() -> None:
    figures = evaluate(clients(*WHO), data())
    accuracies = [row["accuracy"] for row in figures["clients"]]
    spread = figures["client_percentiles"]["accuracy"]
    assert list(spread) == ["min", "p5", "p25", "p50", "p75", "p95", "max"]
    assert (spread["min"], spread["max"]) == (min(accuracies), max(accuracies))
    assert spread["p50"] == pytest.approx(np.median(accuracies))


def test_the_batch_size_changes_no_count(monkeypatch: pytest.MonkeyPatch) -> None:
    who, examples = clients(*WHO), data()
    whole = evaluate(who, examples)
    monkeypatch.setattr(regions, "_BATCH", 100)
    parts = evaluate(who, examples)
    assert [row["accuracy"] for row in whole["clients"] + whole["regions"]] == [
        row["accuracy"] for row in parts["clients"] + parts["regions"]
    ]


def test_without_any_holdout_clients_are_measured_on_what_they_train_on() -> None:
    figures = evaluate(clients(("a", 5, 0), ("b", 9, 0)), data())
    assert figures["client_data"] == "training"
    assert [row["examples"] for row in figures["clients"]] == [5, 9]


def test_a_client_without_holdout_is_left_out_of_the_percentiles() -> None:
    figures = evaluate(clients(("a", 5, 0), ("a", 9, 6), ("b", 5, 0)), data())
    first, second, _ = figures["clients"]
    assert first == {"client": 0, "region": "a", "examples": 0, "loss": None, "accuracy": None}
    spread = figures["client_percentiles"]["accuracy"]
    assert spread["min"] == spread["max"] == second["accuracy"]
    assert figures["regions"][1] == {
        "region": "b",
        "clients": 1,
        "examples": 0,
        "loss": None,
        "accuracy": None,
        "f1_macro": None,
    }
