"""A model's layers: output shapes, parameters and multiply-adds, from shapes alone."""

from collections.abc import Callable
from math import prod
from typing import Any, NamedTuple

import jax
from flax import linen as nn

from lepton_jax import trees
from lepton_jax.config import Model
from lepton_jax.models.build import network
from lepton_jax.models.conv import lax_form
from lepton_jax.models.initialize import variable_shapes
from lepton_jax.models.layers import BatchNorm, GlobalAveragePool, GroupNorm, Pool


class Row(NamedTuple):
    """One layer; the shape is its output's, of one image."""

    name: str
    kind: str
    shape: tuple[int, ...]
    parameters: int
    multiply_adds: int


class Summary(NamedTuple):
    """All layers and their totals."""

    rows: tuple[Row, ...]
    parameters: int
    multiply_adds: int


def summary(config: Model, image_shape: tuple[int, int, int], classes: int) -> Summary:
    """The layers of a model in the order of their computation, without computing anything.

    Args:
      config: the model.
      image_shape: (height, width, channels).
      classes: number of classes K.

    Returns:
      Rows and totals; multiply-adds are those of convolutions and dense layers, for one image.

    Raises:
      UserError: an unknown model, or a combination that cannot be.

    >>> summary(Model(name="fedavg_cnn"), (28, 28, 1), 10).parameters
    1663370
    """
    module = network(config, image_shape, classes, lax_form())
    rows: list[Row] = []

    def record(following: Callable, args: tuple, kwargs: dict, context: Any) -> Any:
        out = following(*args, **kwargs)
        kind = _kind(context.module)
        if kind is not None:
            rows.append(_row(context.module, kind, out))
        return out

    with nn.intercept_methods(record):
        variable_shapes(module, image_shape)
    return Summary(
        tuple(rows),
        sum(row.parameters for row in rows),
        sum(row.multiply_adds for row in rows),
    )


def _row(layer: nn.Module, kind: str, out: jax.Array) -> Row:
    params = layer.variables.get("params", {})
    pixels = prod(out.shape[1:-1])
    multiply_adds = pixels * prod(params["kernel"].shape) if "kernel" in params else 0
    return Row("/".join(layer.path), kind, out.shape[1:], trees.size(params), multiply_adds)


def _kind(layer: nn.Module) -> str | None:
    match layer:
        case nn.Conv():
            sides = "x".join(str(side) for side in layer.kernel_size)
            return f"conv {sides}" + (f" stride {layer.strides[0]}" if layer.strides[0] > 1 else "")
        case nn.Dense():
            return "dense"
        case BatchNorm():
            return "batch norm"
        case GroupNorm():
            return "group norm"
        case Pool():
            return f"{layer.kind} pool {layer.window}x{layer.window}"
        case GlobalAveragePool():
            return "global average pool"
    return None
