"""Laws of a classifier; compiled functions are shared between tests, since compiling is the cost."""

from collections.abc import Callable
from functools import cache
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from lepton_jax.config import ConvBlock, Model
from lepton_jax.models import build
from lepton_jax.models.build import network
from lepton_jax.models.conv import lax_form, matmul_form
from lepton_jax.models.initialize import initialize, variable_shapes
from lepton_jax.models.resnet import Architecture, ResNet
from lepton_jax.typing import Variables

SHAPE, CLASSES, B = (9, 8, 2), 5, 4
BLOCKS = (
    ConvBlock(filters=8, padding="VALID", pool=2),  # 7x6: the pool drops a row
    ConvBlock(filters=8, kernel=2, stride=2),
)
CONFIGS: dict[str, dict[str, Any]] = {
    "cnn": {"name": "cnn", "blocks": BLOCKS, "dense": (6,)},
    "tanh": {"name": "cnn", "blocks": BLOCKS, "activation": "tanh", "pooling": "average"},
    "group": {"name": "cnn", "blocks": BLOCKS, "norm": "group"},
    "batch": {"name": "cnn", "blocks": BLOCKS, "norm": "batch", "activation": "sigmoid"},
    "resnet8": {"name": "resnet8"},
}


class Made(NamedTuple):
    variables: Variables
    apply: Callable
    learn: Callable


@cache
def _make(name: str, **changes: Any) -> Made:
    config = Model(**{**CONFIGS[name], **changes})
    model = build(config, SHAPE, CLASSES, mean=[0.4, 0.6], std=[0.25, 0.3])
    learn = jax.jit(model.learn)

    def learn_all(variables: Variables, images: jax.Array, mask: Any = None, seed: int = 1) -> Any:
        mask = jnp.ones(len(images), bool) if mask is None else jnp.asarray(mask)
        return learn(variables, images, mask, jax.random.key(seed))

    return Made(model.init(jax.random.key(0)), jax.jit(model.apply), learn_all)


def _images(seed: int = 0) -> jax.Array:
    return jnp.asarray(np.random.default_rng(seed).integers(0, 256, (B, *SHAPE), np.uint8))


def _close(a: Any, b: Any, tolerance: float = 2e-5) -> None:
    jax.tree.map(lambda x, y: np.testing.assert_allclose(x, y, rtol=0, atol=tolerance), a, b)


def _equal(a: Any, b: Any) -> None:
    jax.tree.map(np.testing.assert_array_equal, a, b)


@pytest.mark.parametrize("name", CONFIGS)
def test_the_form_changes_neither_parameters_nor_logits_nor_statistics(name: str) -> None:
    with_lax, with_matmul = _make(name, conv="lax"), _make(name, conv="matmul")
    variables = with_lax.variables
    _equal(variables, with_matmul.variables)
    _close(with_lax.learn(variables, _images()), with_matmul.learn(variables, _images()))


@pytest.mark.parametrize("name", ["cnn", "tanh", "group"])
def test_without_batch_norm_and_dropout_learn_computes_what_apply_does(name: str) -> None:
    model = _make(name, conv="matmul")
    logits, stats = model.learn(model.variables, _images())
    assert stats == model.variables.stats == {}
    _close(logits, model.apply(model.variables, _images()))


@pytest.mark.parametrize(("bottleneck", "shortcut"), [(False, "pad"), (True, "conv_norm")])
def test_a_resnet_evaluates_alike_in_both_forms(bottleneck: bool, shortcut: Any) -> None:
    arch = Architecture((1, 1), (4, 8), bottleneck, shortcut, stem="imagenet", norm="group")
    x = jnp.asarray(np.random.default_rng(0).normal(size=(2, 13, 12, 3)), jnp.float32)
    with_lax, with_matmul = (
        ResNet(arch, 3, form, jnp.float32) for form in (lax_form(), matmul_form())
    )
    fresh = initialize(variable_shapes(with_lax, (13, 12, 3)), jax.random.key(0))
    variables = {"params": fresh.params}
    logits = jax.jit(with_lax.apply)(variables, x, None)
    _close(logits, jax.jit(with_matmul.apply)(variables, x, None))


def test_batch_norm_evaluates_alike_in_both_forms() -> None:
    model = _make("batch", conv="lax")
    params, stats = model.variables.params, model.learn(model.variables, _images())[1]
    module = network(Model(**CONFIGS["batch"]), SHAPE, CLASSES, matmul_form())
    mean, std = (np.array(pair).reshape(1, 1, 1, 2) for pair in ((0.4, 0.6), (0.25, 0.3)))
    pixels = jnp.asarray((np.asarray(_images()) / 255 - mean) / std, jnp.float32)
    logits = jax.jit(module.apply)({"params": params, "batch_stats": stats}, pixels, None)
    _close(logits, model.apply(Variables(params, stats), _images()))


def test_gradients_are_the_same_in_both_forms() -> None:
    gradients = []
    for conv in ("lax", "matmul"):
        model = _make("cnn", conv=conv)

        def loss(params: Any, model: Made = model) -> jax.Array:
            return jnp.sum(jnp.sin(model.learn(Variables(params, {}), _images())[0]))

        gradients.append(jax.jit(jax.grad(loss))(model.variables.params))
    with_lax, with_matmul = gradients
    _close(with_lax, with_matmul, 1e-4)


@pytest.mark.parametrize("name", ["cnn", "batch", "resnet8"])
def test_permuting_the_batch_permutes_the_logits(name: str) -> None:
    model = _make(name, conv="lax")
    order = np.array([2, 0, 3, 1])
    permuted = model.apply(model.variables, _images()[order])
    _close(permuted, model.apply(model.variables, _images())[order], 1e-6)


@pytest.mark.parametrize("name", ["cnn", "group", "batch", "resnet8"])
def test_what_stands_in_padding_rows_changes_nothing(name: str) -> None:
    model = _make(name, conv="lax")
    mask = np.array([True, False, True, False])
    other = jnp.where(mask[:, None, None, None], _images(0), _images(1))
    a, stats_a = model.learn(model.variables, _images(0), mask)
    b, stats_b = model.learn(model.variables, other, mask)
    _equal(a[mask], b[mask])
    _equal(stats_a, stats_b)


def test_padding_leaves_the_statistics_of_the_examples_alone() -> None:
    model = _make("batch", conv="lax")
    mask = np.array([True, False, True, True])
    logits, stats = model.learn(model.variables, _images(), mask)
    alone, expected = model.learn(model.variables, _images()[mask])
    _close(stats, expected)
    _close(logits[mask], alone)


def test_a_batch_of_padding_alone_leaves_the_statistics_and_finite_gradients() -> None:
    model = _make("batch", conv="lax")
    nothing = jnp.zeros(B, bool)

    def loss(params: Any) -> tuple[jax.Array, Any]:
        variables = model.variables._replace(params=params)
        logits, stats = model.learn(variables, jnp.zeros_like(_images()), nothing)
        return jnp.sum(jnp.where(nothing[:, None], logits, 0.0)), (logits, stats)

    gradients, (logits, stats) = jax.jit(jax.grad(loss, has_aux=True))(model.variables.params)
    _equal(stats, model.variables.stats)
    assert np.isfinite(logits).all()
    _equal(gradients, jax.tree.map(jnp.zeros_like, gradients))


def test_statistics_move_a_tenth_of_the_way_to_the_batch() -> None:
    model = _make("batch", conv="lax")
    once = model.learn(model.variables, _images())[1]["norm1"]
    twice = model.learn(
        model.variables._replace(stats={**model.variables.stats, "norm1": once}), _images()
    )[1]["norm1"]
    _close(twice["mean"], 1.9 * once["mean"])
    _close(twice["var"], 0.9 * once["var"] + (once["var"] - 0.9))


@pytest.mark.parametrize("name", ["cnn", "group", "batch"])
def test_bfloat16_computes_while_parameters_logits_and_gradients_stay_float32(name: str) -> None:
    exact, rough = _make(name, conv="lax"), _make(name, conv="lax", dtype="bfloat16")
    _equal(exact.variables, rough.variables)

    def loss(params: Any) -> tuple[jax.Array, Any]:
        logits, stats = rough.learn(rough.variables._replace(params=params), _images())
        return jnp.sum(logits), (logits, stats)

    gradients, (logits, stats) = jax.jit(jax.grad(loss, has_aux=True))(rough.variables.params)
    for leaf in jax.tree.leaves((rough.variables, gradients, logits, stats)):
        assert leaf.dtype == jnp.float32
    expected = exact.learn(exact.variables, _images())[0]
    assert 0 < np.abs(logits - expected).max() < 0.1 * np.abs(expected).max() + 0.1


@pytest.mark.parametrize("name", ["cnn", "batch"])
def test_the_matmul_form_maps_over_clients_parameters(name: str) -> None:
    config = Model(**CONFIGS[name], conv="matmul")
    model = build(config, SHAPE, CLASSES, mean=[0.4, 0.6], std=[0.25, 0.3])
    clients = [model.init(jax.random.key(seed)) for seed in range(2)]
    stacked = jax.tree.map(lambda *leaves: jnp.stack(leaves), *clients)
    images = jnp.stack([_images(seed) for seed in range(2)])
    masks, keys = jnp.ones((2, B), bool), jax.random.split(jax.random.key(1), 2)
    mapped, _ = jax.jit(jax.vmap(model.learn))(stacked, images, masks, keys)
    for client, logits in enumerate(mapped):
        alone, _ = _make(name, conv="matmul").learn(clients[client], images[client])
        _close(logits, alone)


def test_bytes_and_floats_of_the_same_pixels_are_the_same() -> None:
    model = _make("cnn", conv="lax")
    floats = _images().astype(jnp.float32)
    _equal(model.apply(model.variables, _images()), model.apply(model.variables, floats))


def test_pixels_are_standardized_by_channel() -> None:
    model = _make("cnn", conv="lax")
    config = Model(**CONFIGS["cnn"])
    plain = build(config, SHAPE, CLASSES, mean=[0.0, 0.0], std=[1 / 255, 1 / 255])
    mean, std = (np.array(pair).reshape(1, 1, 1, 2) for pair in ((0.4, 0.6), (0.25, 0.3)))
    pixels = jnp.asarray((np.asarray(_images()) / 255 - mean) / std, jnp.float32)
    expected = jax.jit(plain.apply)(model.variables, pixels)
    _close(model.apply(model.variables, _images()), expected)


@pytest.mark.parametrize("name", ["cnn", "group"])
def test_dropout_depends_on_the_key_and_spares_evaluation(name: str) -> None:
    sure, dropping = _make(name, conv="lax"), _make(name, conv="lax", dropout=0.5)
    variables = sure.variables
    _equal(variables, dropping.variables)
    _equal(sure.apply(variables, _images()), dropping.apply(variables, _images()))
    first, same, other = (dropping.learn(variables, _images(), seed=seed)[0] for seed in (0, 0, 1))
    _equal(first, same)
    assert np.abs(first - other).max() > 1e-3


def test_kernels_have_two_axes_or_more_and_norms_and_biases_one() -> None:
    for name in CONFIGS:
        module = network(Model(**CONFIGS[name]), SHAPE, CLASSES, lax_form())
        for path, leaf in jax.tree.leaves_with_path(variable_shapes(module, SHAPE).params):
            assert (leaf.ndim > 1) == (path[-1].key == "kernel")


def test_a_fresh_model_keeps_the_scale_of_its_input_and_starts_its_norms_at_rest() -> None:
    config = Model(
        name="cnn", blocks=(ConvBlock(filters=64, kernel=5),), dense=(256,), norm="batch"
    )
    model = build(config, (8, 8, 3), 10, mean=[0.5] * 3, std=[0.3] * 3)
    variables = model.init(jax.random.key(3))
    for layer, variance in (("conv1", 2 / 75), ("dense1", 2 / 4096), ("head", 1 / 256)):
        measured = np.var(variables.params[layer]["kernel"])
        np.testing.assert_allclose(measured, variance, rtol=0.1)
    assert (variables.params["norm1"]["scale"] == 1).all()
    assert (variables.params["norm1"]["bias"] == 0).all()
    assert (variables.params["head"]["bias"] == 0).all()
    assert (variables.stats["norm1"]["mean"] == 0).all()
    assert (variables.stats["norm1"]["var"] == 1).all()
