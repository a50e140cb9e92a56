import jax
import jax.numpy as jnp
import numpy as np
import pytest

from lepton_jax.models.conv import lax_form
from lepton_jax.models.fake_quantization import fake_quantized, round_inputs, round_kernel


def kernel(seed: int = 0) -> jax.Array:
    return jax.random.normal(jax.random.key(seed), (3, 3, 4, 5))


@pytest.mark.parametrize("bits", [4, 8])
def test_a_rounded_kernel_has_so_many_steps_a_channel(bits: int) -> None:
    rounded = np.asarray(round_kernel(kernel(), bits))
    largest = 2 ** (bits - 1) - 1
    scale = np.abs(np.asarray(kernel())).max((0, 1, 2)) / largest
    whole = rounded / scale
    np.testing.assert_allclose(whole, whole.round(), atol=1e-4)
    assert np.abs(whole).max() == pytest.approx(largest)
    assert np.abs(rounded - kernel()).max() <= scale.max() / 2 * 1.001


def test_rounding_before_and_after_a_norm_is_folded_is_the_same() -> None:
    factor = jnp.array([0.1, -3.0, 2.0, 1.0, 0.7]).reshape(1, 1, 1, 5)
    before, after = round_kernel(kernel(), 4) * factor, round_kernel(kernel() * factor, 4)
    np.testing.assert_allclose(before, after, atol=1e-6)


def test_what_is_rounded_already_stays() -> None:
    once = round_kernel(kernel(), 4)
    np.testing.assert_allclose(round_kernel(once, 4), once, atol=1e-6)
    x = round_inputs(kernel(), 8)
    np.testing.assert_allclose(round_inputs(x, 8), x, atol=1e-6)


def test_a_channel_of_zeros_stays_and_zero_is_always_a_step() -> None:
    assert (round_kernel(jnp.zeros((2, 3)), 4) == 0).all()
    assert (round_inputs(jnp.zeros(3), 8) == 0).all()
    assert round_inputs(jnp.array([0.0, 3.0, 7.77]), 8)[0] == 0
    assert jnp.unique(round_inputs(kernel(), 8)).size <= 256


def test_gradients_pass_as_if_nothing_were_rounded() -> None:
    grads = jax.grad(lambda k: (round_kernel(k, 4) * kernel(1)).sum())(kernel())
    np.testing.assert_array_equal(grads, kernel(1))


def test_a_form_rounds_kernels_and_inputs_where_asked() -> None:
    form = fake_quantized(lax_form(), weights=4)
    x, w = (
        jax.random.normal(jax.random.key(2), (6, 7)),
        jax.random.normal(jax.random.key(3), (7, 4)),
    )
    dimensions = (((1,), (0,)), ((), ()))
    np.testing.assert_allclose(form.product(x, w, dimensions), x @ round_kernel(w, 4), atol=1e-5)
    both = fake_quantized(lax_form(), weights=4, activations=8)
    expected = round_inputs(x, 8) @ round_kernel(w, 4)
    np.testing.assert_allclose(both.product(x, w, dimensions), expected, atol=1e-5)
    images, axes = jax.random.normal(jax.random.key(4), (2, 6, 6, 4)), ("NHWC", "HWIO", "NHWC")
    found = both.conv(1)(images, kernel(), (1, 1), "SAME", dimension_numbers=axes)
    inputs, rounded = round_inputs(images, 8), round_kernel(kernel(), 4)
    expected = jax.lax.conv(
        inputs.transpose(0, 3, 1, 2), rounded.transpose(3, 2, 0, 1), (1, 1), "SAME"
    )
    np.testing.assert_allclose(found, expected.transpose(0, 2, 3, 1), atol=1e-4)


def test_small_kernels_have_eight_bits() -> None:
    form = fake_quantized(lax_form(), weights=4, fine=29)
    x, dimensions = jax.random.normal(jax.random.key(2), (6, 7)), (((1,), (0,)), ((), ()))
    for columns, bits in ((4, 8), (5, 4)):
        w = jax.random.normal(jax.random.key(3), (7, columns))
        expected = x @ round_kernel(w, bits)
        np.testing.assert_allclose(form.product(x, w, dimensions), expected, atol=1e-5)
