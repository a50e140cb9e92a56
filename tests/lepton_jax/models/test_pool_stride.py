"""Pooling windows that overlap: the same in every form, and only of the greatest."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from lepton_jax import config
from lepton_jax.checks import UserError
from lepton_jax.models import build, summary
from tests.lepton_jax.models import windows

SHAPE = (28, 28, 1)
BLOCKS = (
    config.ConvBlock(filters=16, kernel=8, stride=2, pool=2, pool_stride=1),
    config.ConvBlock(filters=32, kernel=4, stride=2, padding="VALID", pool=2, pool_stride=1),
)


def model(**changes: Any) -> config.Model:
    settings = {"blocks": BLOCKS, "dense": (32,), "activation": "tanh", "norm": "none"}
    return config.Model(name="cnn", **{**settings, **changes})


def test_the_private_cnn_of_papernot_et_al_has_26010_parameters() -> None:
    assert summary(model(), SHAPE, 10).parameters == 26_010


@pytest.mark.parametrize("form", ["matmul", pytest.param("onednn", marks=windows.needs_onednn)])
def test_every_form_learns_what_lax_does(form: str) -> None:
    images = np.random.default_rng(0).integers(256, size=(3, *SHAPE)).astype(np.float32)

    def gradient(conv: str) -> Any:
        made = build(model(conv=conv), SHAPE, 10, mean=(0.0,), std=(255.0,), in_loop=True)
        variables = made.init(jax.random.key(0))

        def loss(params: Any) -> jax.Array:
            mask, key = jnp.ones(3, bool), jax.random.key(1)
            logits, _ = made.learn(
                variables._replace(params=params), jnp.asarray(images), mask, key
            )
            return jnp.sum(logits**2)

        return jax.jit(jax.grad(loss))(variables.params)

    jax.tree.map(
        lambda x, y: np.testing.assert_allclose(x, y, rtol=1e-3, atol=1e-4),
        gradient(form),
        gradient("lax"),
    )


def test_average_pooling_has_no_windows_that_overlap() -> None:
    with pytest.raises(UserError, match=r"model\.blocks: expected max-pooling with a pool_stride"):
        build(model(pooling="average"), SHAPE, 10, mean=(0.0,), std=(1.0,))
