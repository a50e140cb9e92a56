"""What the models are made of beside convolutions: norms, poolings and the classifying layer.

A mask means training: BatchNorm takes its statistics from the rows where it is True, and dropout
is on. Without one, a model evaluates.
"""

from collections.abc import Callable
from functools import partial
from typing import Literal

import jax.numpy as jnp
import numpy as np
from flax import linen as nn
from jax import lax
from jaxtyping import Array, Float

from lepton_jax.checks import UserError
from lepton_jax.models.conv import Features, Form, Pooled
from lepton_jax.models.window import Padding
from lepton_jax.typing import Logits, Mask

Norm = Literal["batch", "group", "none"]
Moment = Float[Array | np.ndarray, "R F"]  # R: one for all images, or one each
Values = Float[Array | np.ndarray, "F"]  # of NumPy where a trained model is exported

_MOMENTUM = 0.9  # of BatchNorm's statistics: short runs have no thousands of steps to settle
_EPSILON = 1e-5
_matmul = partial(jnp.matmul, precision=lax.Precision.HIGHEST)


def normalize(x: Features, mask: Mask | None, norm: Norm, name: str) -> Features:
    """Normalizes inside a module, computing in float32 and keeping the dtype of x [B,H,W,F].

    Sources: batch: Ioffe and Szegedy (2015); group: Wu and He (2018).
    """
    if norm == "none":
        return x
    if norm == "group":
        return GroupNorm(name=name)(x)
    return BatchNorm(name=name)(x, mask)


class BatchNorm(nn.Module):
    """BatchNorm from the moments of each image, of which the masked ones are averaged.

    The same mathematics, parameters and statistics as flax', which masks whole feature maps and so
    takes as long as the convolutions.
    """

    @nn.compact
    def __call__(self, x: Features, mask: Mask | None) -> Features:
        """Normalizes x [B,H,W,F] by the batch, or by the running statistics without a mask [B]."""
        channels = (x.shape[-1],)
        scale = self.param("scale", nn.initializers.ones, channels)
        bias = self.param("bias", nn.initializers.zeros, channels)
        means = self.variable("batch_stats", "mean", jnp.zeros, channels)
        variances = self.variable("batch_stats", "var", jnp.ones, channels)
        y = x.astype(jnp.float32)
        mean, variance = means.value, variances.value
        if mask is not None:
            share = mask.astype(jnp.float32) / jnp.sum(mask).astype(jnp.float32)
            mean, variance = _moments(y, lambda each: _matmul(share, each))
            means.value = _MOMENTUM * means.value + (1 - _MOMENTUM) * mean
            variances.value = _MOMENTUM * variances.value + (1 - _MOMENTUM) * variance
        return _standardize(y, mean[None], variance[None], scale, bias).astype(x.dtype)


class GroupNorm(nn.Module):
    """GroupNorm as moments of each channel times a constant matrix that averages over groups.

    The same mathematics and parameters as flax', in fewer and faster operations on a phone.
    """

    @nn.compact
    def __call__(self, x: Features) -> Features:
        """Normalizes x [B,H,W,F] by the mean and variance of each image's channel groups."""
        channels = x.shape[-1]
        scale = self.param("scale", nn.initializers.ones, (channels,))
        bias = self.param("bias", nn.initializers.zeros, (channels,))
        average = jnp.asarray(_group_average(channels))
        y = x.astype(jnp.float32)
        mean, variance = _moments(y, lambda each: _matmul(each, average))
        return _standardize(y, mean, variance, scale, bias).astype(x.dtype)


def _moments(y: Features, average: Callable[[Array], Array]) -> tuple[Array, Array]:
    """Mean and variance of each channel over pixels, and over what `average` goes over."""
    mean, square = average(y.mean((1, 2))), average(jnp.square(y).mean((1, 2)))
    return mean, jnp.maximum(square - jnp.square(mean), 0.0)


def _standardize(
    y: Features, mean: Moment, variance: Moment, scale: Values, bias: Values
) -> Features:
    """One multiplication and one addition a pixel."""
    factor = lax.rsqrt(variance + _EPSILON) * scale[None]
    shift = bias[None] - mean * factor
    return y * factor[:, None, None] + shift[:, None, None]


def group_count(channels: int) -> int:
    """Groups of a GroupNorm: the largest divisor of `channels` up to min(32, channels / 4).

    So a group has at least 4 channels, and 128 channels or more have 32 groups as in the paper.

    Raises:
      UserError: fewer than 4 channels.

    >>> [group_count(channels) for channels in (4, 16, 24, 64, 512)]
    [1, 4, 6, 16, 32]
    """
    if channels < 4:
        raise UserError(
            "model.norm",
            "at least 4 channels wherever group norm comes",
            f"{channels}",
            'use more filters, or set model.norm = "none"',
        )
    limit = min(32, channels // 4)
    return max(groups for groups in range(1, limit + 1) if channels % groups == 0)


def _group_average(channels: int) -> np.ndarray:
    groups = group_count(channels)
    size = channels // groups
    return np.kron(np.eye(groups), np.full((size, size), 1 / size)).astype(np.float32)


class Pool(nn.Module):
    """Max or average pooling; average pooling has stride = window and no padding."""

    form: Form
    kind: Literal["max", "average"]
    window: int
    stride: int
    padding: Padding = "VALID"

    def __call__(self, x: Features) -> Pooled:
        """Pools x [B,H,W,F] over height and width."""
        if self.kind == "max":
            return self.form.max_pool(x, self.window, self.stride, self.padding)
        return self.form.average_pool(x, self.window)


class GlobalAveragePool(nn.Module):
    """The mean over all pixels."""

    def __call__(self, x: Features) -> Float[Array, "B F"]:
        """Averages x [B,H,W,F] over height and width."""
        return x.mean((1, 2))


def classify(
    x: Float[Array, "B F"], mask: Mask | None, classes: int, dropout: float, form: Form
) -> Logits:
    """Dropout, then the last dense layer, in float32."""
    x = nn.Dropout(dropout, deterministic=mask is None)(x.astype(jnp.float32))
    return nn.Dense(classes, dot_general=form.product, name="head")(x)
