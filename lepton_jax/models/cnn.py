"""The configurable CNN: convolution blocks, hidden dense layers, a classifying layer."""

from collections.abc import Callable
from typing import Any, Literal, NamedTuple

from flax import linen as nn

from lepton_jax.checks import UserError
from lepton_jax.config import ConvBlock
from lepton_jax.models.conv import Convolved, Features, Form, Pooled
from lepton_jax.models.layers import Norm, Pool, classify, group_count, normalize
from lepton_jax.typing import Logits, Mask


class Architecture(NamedTuple):
    """What defines a CNN; each field can be set in the config's `[model]`."""

    blocks: tuple[ConvBlock, ...]
    dense: tuple[int, ...] = ()
    activation: Literal["relu", "tanh", "sigmoid"] = "relu"
    pooling: Literal["max", "average"] = "max"
    norm: Norm = "none"
    dropout: float = 0.0


class Cnn(nn.Module):
    """A CNN over standardized pixels; dropout comes before the last dense layer."""

    architecture: Architecture
    classes: int
    form: Form
    dtype: Any

    @nn.compact
    def __call__(self, x: Features, mask: Mask | None) -> Logits:
        """Logits [B,K] for x [B,H,W,F]; in training mode with a mask [B]."""
        for i, block in enumerate(self.architecture.blocks, 1):
            x = self._convolve(x, mask, block, i)
        x = x.reshape(x.shape[0], -1)
        for i, width in enumerate(self.architecture.dense, 1):
            dense = nn.Dense(
                width, dtype=self.dtype, dot_general=self.form.product, name=f"dense{i}"
            )
            x = self._activate(dense(x))
        return classify(x, mask, self.classes, self.architecture.dropout, self.form)

    def _convolve(self, x: Features, mask: Mask | None, block: ConvBlock, i: int) -> Convolved:
        plain = self.architecture.norm == "none"
        kind, window, stride = self.architecture.pooling, block.pool, pool_stride(block)
        # What the pool drops still counts in a norm's statistics: crop only without one.
        convolution = self.form.conv(window if plain and stride == window else 1)
        # The greatest stays the greatest through bias and activation, which then go over fewer
        # elements; a phone's compiler, though, wants them right after the convolution.
        pools_first = window > 1 and plain and kind == "max" and mask is not None
        if pools_first:
            convolution = _pooled(convolution, self.form, window, stride)
        conv = nn.Conv(
            block.filters,
            (block.kernel, block.kernel),
            (block.stride, block.stride),
            padding=block.padding,
            use_bias=plain,  # a norm brings its own
            dtype=self.dtype,
            conv_general_dilated=convolution,
            name=f"conv{i}",
        )
        x = self._activate(normalize(conv(x), mask, self.architecture.norm, f"norm{i}"))
        if window == 1 or pools_first:
            return x
        return Pool(self.form, kind, window, stride, name=f"pool{i}")(x)

    def _activate(self, x: Any) -> Any:
        return getattr(nn, self.architecture.activation)(x)


def pool_stride(block: ConvBlock) -> int:
    """How far apart a block's pooling windows begin."""
    return block.pool if block.pool_stride is None else block.pool_stride


def _pooled(
    convolution: Callable[..., Convolved], form: Form, window: int, stride: int
) -> Callable[..., Pooled]:
    """Max-pooling right after a convolution."""

    def both(*arrays: Any, **options: Any) -> Pooled:
        return form.max_pool(convolution(*arrays, **options), window, stride, "VALID")

    return both


def check(name: str, architecture: Architecture, image_shape: tuple[int, int, int]) -> None:
    """Refuses images that vanish on their way through the blocks, and norms that cannot be.

    Raises:
      UserError: an image that is too small, or group norm over too few channels.
    """
    height, width, _ = image_shape
    least = _least_size(architecture.blocks)
    if min(height, width) < least:
        raise UserError(
            "model.blocks" if name == "cnn" else "model.name",
            f"images of at least {least}x{least} pixels for the blocks of {name}",
            f"{height}x{width}",
            f"set data.image_size = [{least}, {least}] or larger, or take smaller kernels or pools",
        )
    overlaps = any(pool_stride(block) != block.pool for block in architecture.blocks)
    if overlaps and architecture.pooling == "average":
        raise UserError("model.blocks", "max-pooling with a pool_stride", "average", "unset it")
    if architecture.norm == "group":
        for block in architecture.blocks:
            group_count(block.filters)


def _least_size(blocks: tuple[ConvBlock, ...]) -> int:
    """The smallest height or width of which the last block leaves one pixel."""
    size = 1
    for block in reversed(blocks):
        reach = block.kernel if block.padding == "VALID" else 1
        before = (size - 1) * pool_stride(block) + block.pool
        size = (before - 1) * block.stride + reach
    return size
