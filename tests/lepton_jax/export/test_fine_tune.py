"""Quantization-aware training wins what rounding loses, and touches nobody's private images."""

from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import msgspec
import numpy as np
import pytest

from lepton_jax import config, data, metrics
from lepton_jax.checks import UserError
from lepton_jax.export import fine_tune as module
from lepton_jax.export.fine_tune import _model, fine_tune
from lepton_jax.training import SavedRun, evaluate, finish, load_run, make_loss, train
from lepton_jax.typing import Variables


def settings(**changes: Any) -> config.Run:
    blocks = (config.ConvBlock(filters=6, pool=2), config.ConvBlock(filters=8))
    run = config.Run(
        data=config.Data(validation_fraction=0.2),
        model=config.Model(name="cnn", blocks=blocks, norm="batch"),
        train=config.Train(
            epochs=6, batch_size=32, optimizer=config.Sgd(learning_rate=0.1, momentum=0.9)
        ),
        export=config.Export(fine_tuning=config.FineTuning(epochs=3, learning_rate=0.02)),
    )
    return msgspec.structs.replace(run, **changes)


@pytest.fixture(autouse=True)
def coarse(monkeypatch: pytest.MonkeyPatch) -> None:
    """Digits are too easy for 4 bits to cost anything: 2 bits stand for them."""
    monkeypatch.setitem(module._BITS, "int4", (2, None))
    monkeypatch.setattr(module, "FINE", 0)


@pytest.fixture(scope="module")
def saved(tmp_path_factory: pytest.TempPathFactory) -> SavedRun:
    folder = tmp_path_factory.mktemp("runs") / "run"
    finish(train(settings(), folder))
    return load_run(folder)


def test_fine_tuning_lowers_the_loss_of_the_rounded_model(saved: SavedRun) -> None:
    splits = data.load(saved.config.data)
    tuned = fine_tune(saved, splits, "int4")
    assert tuned.kept and tuned.loss_after is not None
    assert tuned.cost > 2 * tuned.cost_error > 0 and tuned.steps > 0
    assert tuned.loss_after < tuned.loss_before
    model, loss = _model(saved, splits, "int4"), make_loss(saved.config.loss)
    measured = metrics.result(evaluate(model, tuned.variables, splits.validation, loss))["loss"]
    assert measured == pytest.approx(tuned.loss_after)


def test_fine_tuning_that_loses_is_dropped(saved: SavedRun) -> None:
    wild = settings(export=config.Export(fine_tuning=config.FineTuning(epochs=1, learning_rate=5)))
    splits = data.load(wild.data)
    tuned = fine_tune(saved._replace(config=wild), splits, "int4")
    assert tuned.steps > 0 and not tuned.kept
    for mine, own in zip(
        jax.tree.leaves(tuned.variables), jax.tree.leaves(saved.variables), strict=True
    ):
        np.testing.assert_array_equal(mine, own)


def test_where_rounding_costs_nothing_nothing_is_trained(saved: SavedRun) -> None:
    tuned = fine_tune(saved, data.load(saved.config.data), "int8-qat")
    assert tuned.cost <= 2 * tuned.cost_error
    assert (tuned.steps, tuned.kept, tuned.loss_after) == (0, False, None)
    assert tuned.variables is saved.variables


def test_the_same_run_is_tuned_alike_and_left_as_it_was(saved: SavedRun) -> None:
    before = jax.tree.map(np.array, tuple(saved.variables))
    splits = data.load(saved.config.data)
    first, second = (fine_tune(saved, splits, "int4").variables for _ in range(2))
    jax.tree.map(np.testing.assert_array_equal, tuple(first), tuple(second))
    jax.tree.map(np.testing.assert_array_equal, before, tuple(saved.variables))


@pytest.mark.parametrize(
    ("kind", "privacy", "why"),
    [
        ("simulate", None, "a federated run"),
        ("train", config.Privacy(noise_multiplier=1.0), "a private run"),
    ],
)
def test_images_that_are_not_ours_are_not_trained_on(kind: Any, privacy: Any, why: str) -> None:
    run = settings(train=config.Train(privacy=privacy))
    saved = SavedRun(Path(), run, kind, {}, Variables({"w": jnp.zeros(1)}, {}))
    with pytest.raises(UserError, match=f"may be trained on again, got {why}"):
        fine_tune(saved, data.load(run.data), "int8-qat")


def test_a_rate_that_diverges_is_named(saved: SavedRun) -> None:
    wild = settings(export=config.Export(fine_tuning=config.FineTuning(learning_rate=1e20)))
    with pytest.raises(UserError, match=r"export\.fine_tuning\.learning_rate: expected a rate"):
        fine_tune(saved._replace(config=wild), data.load(wild.data), "int4")
