"""Which values each tensor of a phone model takes on real images: what fixes the scales of its integers."""

from typing import Any, NamedTuple

import numpy as np

from lepton_jax.checks import UserError
from lepton_jax.export.answers import as_input
from lepton_jax.export.extras import litert, open_interpreter
from lepton_jax.export.flatbuffer import unpack
from lepton_jax.export.interpreter import INPUT
from lepton_jax.export.surgery import is_constant

Ranges = dict[str, tuple[float, float]]  # smallest and largest value, by the name of a tensor
_FEWEST = 10  # images; of fewer a range is that of chance


class _Tails(NamedTuple):
    """The smallest and the largest values of a tensor so far, and how many it had in all."""

    low: np.ndarray
    high: np.ndarray
    total: int


def measure(model: bytes, images: np.ndarray | None, percentile: float = 100.0) -> Ranges:
    """Runs a float32 model on images and gives the range of each of its tensors.

    Args:
      model: the content of a .tflite file with one signature, whose input is `image`.
      images: raw bytes [N,H,W,F] of the shape that it takes.
      percentile: of a tensor's values, how many lie below the range's upper end and above its
        lower one, in (50, 100]; 100: its exact minimum and maximum.

    Returns:
      The range of each tensor of floats by name; that of the input is all that it can be, whatever
      the images.

    Raises:
      UserError: no images, fewer than 10, of another shape or type; another percentile; LiteRT is
        not installed.
    """
    if not 50 < percentile <= 100:
        raise UserError("export.calibration.percentile", "above 50, at most 100", percentile)
    kernels = litert().OpResolverType.BUILTIN_WITHOUT_DEFAULT_DELEGATES
    opened = open_interpreter(
        model, experimental_preserve_all_tensors=True, experimental_op_resolver_type=kernels
    )
    (given,) = opened.get_input_details()
    images = _checked(images, given["shape"])
    batch = given["shape"][0]
    floats = _computed(model, opened)
    tails: dict[str, _Tails] = {}
    for start in range(0, len(images), batch):
        some = np.take(images, range(start, start + batch), axis=0, mode="wrap")
        opened.set_tensor(given["index"], as_input(given["dtype"], some))
        opened.invoke()
        for each in floats:
            values = _value(opened, each["index"])
            if values.size and np.isfinite(values).all():
                name = each["name"]
                tails[name] = _add(tails.get(name), values, len(images), percentile)
    found = {name: _range(each, percentile) for name, each in tails.items()}
    return found | {INPUT: (0.0, 1.0 if given["dtype"] is np.float32 else 255.0)}


def _checked(images: np.ndarray | None, shape: np.ndarray) -> np.ndarray:
    expected = f"at least {_FEWEST} images, uint8 [N, {', '.join(str(n) for n in shape[1:])}]"
    if images is None:
        raise UserError("calibration", expected, "none")
    fits = images.shape[1:] == tuple(shape[1:])
    if images.dtype != np.uint8 or not fits or len(images) < _FEWEST:
        raise UserError("calibration", expected, f"{images.dtype.name} {list(images.shape)}")
    return images


def _computed(model: bytes, opened: Any) -> list[dict[str, Any]]:
    """The tensors of floats that are neither constants nor an op's own, all of which go by no name."""
    content = unpack(model)
    (graph,) = content.subgraphs
    return [
        each
        for each in opened.get_tensor_details()
        if each["dtype"] is np.float32
        and each["index"] < len(graph.tensors)
        and not is_constant(content, graph, each["index"])
    ]


def _value(opened: Any, index: int) -> np.ndarray:
    try:
        return opened.get_tensor(index).reshape(-1)
    except ValueError:  # it was folded away
        return np.zeros(0, np.float32)


def _add(tails: _Tails | None, values: np.ndarray, runs: int, percentile: float) -> _Tails:
    """Keeps as many values of both ends as all runs together may leave out, and one more."""
    keep = int(values.size * runs * (100 - percentile) / 100) + 1
    if tails is None:
        tails = _Tails(np.zeros(0, np.float32), np.zeros(0, np.float32), 0)
    low = np.concatenate([tails.low, _smallest(values, keep)])
    high = np.concatenate([tails.high, -_smallest(-values, keep)])
    return _Tails(_smallest(low, keep), -_smallest(-high, keep), tails.total + values.size)


def _smallest(values: np.ndarray, keep: int) -> np.ndarray:
    if keep == 1:
        return values.min(keepdims=True)
    return values if len(values) <= keep else np.partition(values, keep - 1)[:keep]


def _range(tails: _Tails, percentile: float) -> tuple[float, float]:
    outside = int(tails.total * (100 - percentile) / 100)
    low, high = np.sort(tails.low), np.sort(tails.high)[::-1]
    return float(low[outside]), float(high[outside])
