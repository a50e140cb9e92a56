"""Fixed-point sums are exact, and nothing is wrapped, clamped or let through."""

import math

import numpy as np
import pytest

from federated.secure.encode import fixed_point
from lepton_jax.checks import UserError


def float32(*values: float) -> np.ndarray:
    return np.array(values, np.float32)


@pytest.mark.parametrize(("clip", "scale", "clients"), [(1.0, 2.0**16, 1000), (0.3, 1e7, 7)])
def test_the_sum_is_the_sum_of_the_rounded_vectors(clip: float, scale: float, clients: int) -> None:
    coding = fixed_point(clip, scale, clients)
    rng = np.random.default_rng(0)
    vectors = rng.uniform(-clip, clip, (clients, 50)).astype(np.float32)
    encoded = np.stack([coding.encode(vector) for vector in vectors])
    total = coding.decode(encoded.sum(0, dtype=np.uint32))
    rounded = np.rint(vectors.astype(np.float64) * scale).sum(0)  # whole numbers: exact
    assert np.array_equal(total, rounded / scale)
    assert np.abs(total - vectors.sum(0, dtype=np.float64)).max() <= clients * coding.error
    one = coding.decode(encoded[0])
    assert np.abs(one - vectors[0]).max() <= coding.error


@pytest.mark.parametrize("sign", [1, -1])
def test_the_largest_element_of_all_clients_does_not_wrap(sign: int) -> None:
    clients, scale = 1000, float((2**31 - 1) // 1000)
    coding = fixed_point(1.0, scale, clients)
    total = clients * coding.encode(float32(sign))
    assert coding.decode(total.astype(np.uint32)).tolist() == [sign * clients]


def test_what_could_wrap_is_refused() -> None:
    most = (2**31 - 1) // 1000
    fixed_point(1.0, float(most), 1000)
    for scale, clients in ((float(most + 1), 1000), (1e300, 1), (2.0**31, 1)):
        with pytest.raises(UserError, match=r"clip \* scale: expected at most 2\^31 - 1"):
            fixed_point(1.0, scale, clients)
    with pytest.raises(UserError, match=r"at most 2\^31 - 1"):
        fixed_point(1e300, 1e300, 1)


@pytest.mark.parametrize("value", [0.0, -1.0, math.nan, math.inf])
def test_a_clip_or_scale_out_of_range_is_refused(value: float) -> None:
    with pytest.raises(UserError, match=r"^fixed_point: clip: expected a finite number above 0"):
        fixed_point(value, 1.0, 1)
    with pytest.raises(UserError, match=r"^fixed_point: scale: expected a finite number above 0"):
        fixed_point(1.0, value, 1)


def test_a_scale_that_rounds_everything_to_0_is_refused() -> None:
    fixed_point(1.0, 0.51, 1)
    with pytest.raises(UserError, match=r"expected above 1/2, got 0.5; raise the scale"):
        fixed_point(1.0, 0.5, 1)


def test_no_clients_are_refused() -> None:
    with pytest.raises(UserError, match=r"^fixed_point: clients: expected at least 1, got 0"):
        fixed_point(1.0, 1.0, 0)


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf, 1.0000001, -2.0])
def test_what_can_not_be_encoded_is_refused(value: float) -> None:
    coding = fixed_point(1.0, 2.0**10, 2)
    with pytest.raises(UserError, match=r"^fixed_point: vector: expected finite numbers of at"):
        coding.encode(float32(0.0, value, 0.5))


def test_zeros_of_any_kind_are_zeros() -> None:
    coding = fixed_point(1.0, 2.0**10, 2)
    assert not coding.encode(float32(0.0, -0.0, 1e-45, -1e-45)).any()
    assert not coding.decode(np.zeros(3, np.uint32)).any()
    assert coding.encode(float32()).shape == (0,)
