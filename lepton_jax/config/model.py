"""The model, by a preset or built of blocks."""

from typing import Literal

from msgspec import Struct

from lepton_jax.config.kinds import STRICT, Count, Fraction, Name


class ConvBlock(Struct, **STRICT):
    """One convolution, norm, activation and, with pool > 1, a pooling of that window."""

    filters: Count
    kernel: Count = 3
    stride: Count = 1
    padding: Literal["SAME", "VALID"] = "SAME"
    pool: Count = 1
    pool_stride: Count | None = None
    """Of max-pooling; unset: its window, so that no two windows overlap."""


class Model(Struct, **STRICT):
    """A preset by name; what is unset here is as the preset has it."""

    name: Name = "resnet8"
    """A preset (`lepton models` lists them), or `cnn` with `blocks` and `dense` of your own."""
    blocks: tuple[ConvBlock, ...] | None = None
    dense: tuple[Count, ...] | None = None
    activation: Literal["relu", "tanh", "sigmoid"] | None = None
    pooling: Literal["max", "average"] | None = None
    norm: Literal["batch", "group", "none"] | None = None
    dropout: Fraction | None = None
    stem: Literal["small", "imagenet"] | None = None
    """Of ResNet-18/34/50: 3x3 for small images, or 7x7 with stride 2 and max-pooling."""
    conv: Literal["auto", "lax", "matmul", "onednn"] = "auto"
    """How training computes a convolution; the parameters are the same whatever the form."""
    dtype: Literal["float32", "bfloat16"] = "float32"
    """Of the computation; parameters are always float32."""

    def __post_init__(self) -> None:
        if self.name == "cnn" and not self.blocks:
            raise ValueError("model 'cnn' needs `blocks`, at least one convolution")
