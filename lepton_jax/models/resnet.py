"""Residual networks (He et al., 2016), from MLPerf Tiny's ResNet-8 to ImageNet's ResNet-50."""

from typing import Any, Literal, NamedTuple

import jax.numpy as jnp
from flax import linen as nn

from lepton_jax.models.conv import Convolved, Features, Form
from lepton_jax.models.layers import GlobalAveragePool, Norm, Pool, classify, normalize
from lepton_jax.typing import Logits, Mask


class Architecture(NamedTuple):
    """What defines a ResNet; `norm`, `stem` and `dropout` can be set in the config's `[model]`.

    Attributes:
      depths: blocks of each stage; from the second stage on, the first block has stride 2.
      widths: channels of each stage (of a bottleneck: of its 3x3 convolution).
      bottleneck: blocks of 1x1, 3x3 and 1x1 with four times the channels, instead of two 3x3.
      shortcut: where the shape changes: `pad` drops pixels and pads channels with zeros (option A
        of the paper), `conv` is a 1x1 convolution, `conv_norm` the same with a norm (option B).
      bias: whether convolutions have one although a norm follows.
      stem: `small` is a 3x3 convolution, `imagenet` 7x7 with stride 2, then max-pooling; None: as
        `small`, and no choice of the user's.
      norm: after each convolution, but for `conv` shortcuts.
      dropout: rate before the last dense layer.
    """

    depths: tuple[int, ...]
    widths: tuple[int, ...]
    bottleneck: bool = False
    shortcut: Literal["pad", "conv", "conv_norm"] = "conv_norm"
    bias: bool = False
    stem: Literal["small", "imagenet"] | None = None
    norm: Norm = "batch"
    dropout: float = 0.0


class ResNet(nn.Module):
    """A ResNet over standardized pixels.

    Strides come with SAME padding: explicit padding leaves PAD operations in phone models.
    """

    architecture: Architecture
    classes: int
    form: Form
    dtype: Any

    @nn.compact
    def __call__(self, x: Features, mask: Mask | None) -> Logits:
        """Logits [B,K] for x [B,H,W,F]; in training mode with a mask [B]."""
        arch = self.architecture
        imagenet = arch.stem == "imagenet"
        kernel, stride = (7, 2) if imagenet else (3, 1)
        x = _convolve(self, x, arch.widths[0], "stem_conv", kernel=kernel, stride=stride)
        x = nn.relu(normalize(x, mask, arch.norm, "stem_norm"))
        if imagenet:
            x = Pool(self.form, "max", 3, 2, "SAME", name="stem_pool")(x)
        for i, (depth, width) in enumerate(zip(arch.depths, arch.widths, strict=True), 1):
            for j in range(1, depth + 1):
                stride = 2 if i > 1 and j == 1 else 1
                block = Block(arch, self.form, self.dtype, width, stride, name=f"stage{i}_block{j}")
                x = block(x, mask)
        x = GlobalAveragePool(name="pool")(x)
        return classify(x, mask, self.classes, arch.dropout, self.form)


class Block(nn.Module):
    """Two 3x3 convolutions, or a bottleneck of three, added to a shortcut."""

    architecture: Architecture
    form: Form
    dtype: Any
    width: int
    stride: int

    @nn.compact
    def __call__(self, x: Features, mask: Mask | None) -> Convolved:
        """relu(residual + shortcut) for x [B,H,W,F]."""
        layers = [(3, self.stride, self.width), (3, 1, self.width)]
        if self.architecture.bottleneck:  # the stride in the 3x3 convolution, as torchvision has it
            layers = [(1, 1, self.width), (3, self.stride, self.width), (1, 1, 4 * self.width)]
        y = x
        for i, (kernel, stride, filters) in enumerate(layers, 1):
            y = nn.relu(y) if i > 1 else y
            y = _convolve(self, y, filters, f"conv{i}", kernel=kernel, stride=stride)
            y = normalize(y, mask, self.architecture.norm, f"norm{i}")
        return nn.relu(y + self._shortcut(x, mask, filters))

    def _shortcut(self, x: Features, mask: Mask | None, filters: int) -> Convolved:
        if self.stride == 1 and x.shape[-1] == filters:
            return x
        if self.architecture.shortcut == "pad":
            missing = filters - x.shape[-1]
            pairs = (missing // 2, missing - missing // 2)
            kept = x[:, :: self.stride, :: self.stride]
            return jnp.pad(kept, ((0, 0), (0, 0), (0, 0), pairs))
        x = _convolve(self, x, filters, "shortcut_conv", kernel=1, stride=self.stride)
        if self.architecture.shortcut == "conv":
            return x
        return normalize(x, mask, self.architecture.norm, "shortcut_norm")


def _convolve(
    parent: ResNet | Block, x: Features, filters: int, name: str, *, kernel: int, stride: int = 1
) -> Convolved:
    """A convolution in the scope of `parent`; it has a bias where no norm brings one."""
    conv = nn.Conv(
        filters,
        (kernel, kernel),
        (stride, stride),
        use_bias=parent.architecture.bias or parent.architecture.norm == "none",
        dtype=parent.dtype,
        conv_general_dilated=parent.form.conv(1),
        name=name,
    )
    return conv(x)
