from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import linen as nn

from lepton_jax.checks import UserError
from lepton_jax.models.layers import BatchNorm, GroupNorm, group_count


@pytest.mark.parametrize("channels", [4, 24, 64])
def test_group_norm_is_flax_group_norm(channels: int) -> None:
    rng = np.random.default_rng(0)
    x = jnp.asarray(rng.normal(1.0, 2.0, (3, 5, 4, channels)), jnp.float32)
    params = {
        "scale": jnp.asarray(rng.normal(size=channels), jnp.float32),
        "bias": jnp.asarray(rng.normal(size=channels), jnp.float32),
    }
    theirs = nn.GroupNorm(num_groups=group_count(channels), epsilon=1e-5)
    values = []
    for module in (GroupNorm(), theirs):

        def loss(params: dict, x: jax.Array, module: nn.Module = module) -> tuple:
            out = module.apply({"params": params}, x)
            return jnp.sum(jnp.sin(out)), out

        values.append(jax.jit(jax.value_and_grad(loss, argnums=(0, 1), has_aux=True))(params, x))
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=0, atol=2e-4), *values)


def test_group_norm_has_the_parameters_of_flax() -> None:
    x = jnp.zeros((1, 2, 2, 16))
    ours = GroupNorm().init(jax.random.key(0), x)
    theirs = nn.GroupNorm(num_groups=4).init(jax.random.key(0), x)
    jax.tree.map(np.testing.assert_array_equal, ours, theirs)


def test_a_group_has_at_least_4_channels_and_all_groups_one_size() -> None:
    for channels in range(4, 200):
        groups = group_count(channels)
        assert channels % groups == 0 and channels // groups >= 4 and groups <= 32


def test_fewer_than_4_channels_have_no_groups() -> None:
    with pytest.raises(UserError, match=r"model\.norm: expected at least 4 channels"):
        group_count(3)


@pytest.mark.parametrize("examples", [1, 3, 5, None])
def test_batch_norm_is_flax_batch_norm_of_the_rows_that_are_there(examples: int | None) -> None:
    """With so many of 5 rows masked in, or (None) with the running statistics."""
    rng = np.random.default_rng(0)
    x = jnp.asarray(rng.normal(1.0, 2.0, (5, 4, 3, 6)), jnp.float32)
    variables = {
        "params": {
            name: jnp.asarray(rng.normal(size=6), jnp.float32) for name in ("scale", "bias")
        },
        "batch_stats": {
            "mean": jnp.asarray(rng.normal(size=6), jnp.float32),
            "var": jnp.asarray(rng.uniform(0.5, 2.0, size=6), jnp.float32),
        },
    }
    mask = None if examples is None else jnp.arange(5) < examples
    rows = None if mask is None else mask[:, None, None, None]
    flax = nn.BatchNorm(use_running_average=mask is None, momentum=0.9, epsilon=1e-5)

    def outcome(norm: Callable) -> tuple:
        def loss(params: dict, x: jax.Array) -> tuple:
            out, new = norm({**variables, "params": params}, x)
            seen = out if rows is None else jnp.where(rows, out, 0.0)
            return jnp.sum(jnp.sin(seen)), (seen, new)

        gradient = jax.value_and_grad(loss, argnums=(0, 1), has_aux=True)
        return jax.jit(gradient)(variables["params"], x)

    ours = outcome(lambda v, x: BatchNorm().apply(v, x, mask, mutable=["batch_stats"]))
    theirs = outcome(lambda v, x: flax.apply(v, x, mask=rows, mutable=["batch_stats"]))
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=0, atol=2e-4), ours, theirs)


def test_batch_norm_has_the_variables_of_flax() -> None:
    x = jnp.zeros((1, 2, 2, 16))
    ours = BatchNorm().init(jax.random.key(0), x, None)
    theirs = nn.BatchNorm(use_running_average=True).init(jax.random.key(0), x)
    jax.tree.map(np.testing.assert_array_equal, ours, theirs)
