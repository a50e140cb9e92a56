"""A dense layer's product is lax' own, differentiated any number of times, mapped and looped."""

from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax
from jax.test_util import check_grads

from lepton_jax.models import dense

DIMENSIONS = (((1,), (0,)), ((), ()))


@pytest.fixture(autouse=True)
def small_is_large(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(dense, "_LARGE", 1)


def arrays(rows: int, *leading: int) -> tuple[jax.Array, jax.Array]:
    rng = np.random.default_rng(rows)
    inputs = rng.normal(size=(*leading, rows, 5))
    return jnp.float32(inputs), jnp.float32(rng.normal(size=(*leading, 5, 7)))


def gradients(product: Callable) -> Callable:
    return jax.grad(lambda x, w: (product(x, w, DIMENSIONS) ** 2).sum(), argnums=(0, 1))


def assert_close(a: object, b: object) -> None:
    jax.tree.map(lambda x, y: np.testing.assert_allclose(x, y, rtol=1e-5, atol=1e-5), a, b)


@pytest.mark.parametrize("rows", [1, 3, 16, 17])
def test_values_and_gradients_are_those_of_lax(rows: int) -> None:
    x, w = arrays(rows)
    ours = jax.jit(lambda x, w: dense.product(x, w, DIMENSIONS, precision=None))
    assert_close(ours(x, w), lax.dot_general(x, w, DIMENSIONS))
    assert_close(jax.jit(gradients(dense.product))(x, w), gradients(lax.dot_general)(x, w))


def test_it_is_differentiated_in_both_modes_and_twice() -> None:
    with jax.numpy_rank_promotion("allow"):  # in the checker's own arithmetic
        check_grads(
            lambda x, w: dense.product(jnp.asarray(x), jnp.asarray(w), DIMENSIONS),
            arrays(3),
            order=2,
            rtol=2e-2,
        )


@pytest.mark.parametrize("axes", [(0, 0), (0, None), (None, 0)])
def test_it_maps_over_inputs_kernels_and_both(axes: tuple) -> None:
    x, w = arrays(4, 3)
    inputs = [a if axis == 0 else a[0] for a, axis in zip((x, w), axes, strict=True)]
    mapped = jax.jit(jax.vmap(gradients(dense.product), in_axes=axes))(*inputs)
    assert_close(mapped, jax.vmap(gradients(lax.dot_general), in_axes=axes)(*inputs))


def test_only_a_few_rows_on_a_large_kernel_take_the_way_of_their_own(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def own(rows: int) -> bool:
        traced = jax.make_jaxpr(lambda x, w: dense.product(x, w, DIMENSIONS))(*arrays(rows))
        return "dense_outputs" in str(traced)

    assert own(16) and not own(17)
    monkeypatch.setattr(dense, "_LARGE", 36)
    assert not own(16)
