"""From a config to a `Classifier`: pixels are standardized inside, parameters stay float32."""

from collections.abc import Callable, Sequence
from functools import partial

import jax
import jax.numpy as jnp
import msgspec
import numpy as np
from flax import linen as nn

from lepton_jax import trees
from lepton_jax.checks import UserError
from lepton_jax.config import Model
from lepton_jax.models import cnn, resnet
from lepton_jax.models.conv import Features, Form, choose_form, lax_form
from lepton_jax.models.initialize import initialize, variable_shapes
from lepton_jax.models.phone import phone_form
from lepton_jax.models.presets import resolve
from lepton_jax.typing import Classifier, Logits, Mask, Pixels, PRNGKey, PyTree, Variables


def build(
    config: Model,
    image_shape: tuple[int, int, int],
    classes: int,
    *,
    mean: Sequence[float],
    std: Sequence[float],
    in_loop: bool = False,
) -> Classifier:
    """A model as three pure functions of pixels on 0..255, bytes or floats.

    `apply` computes with XLA's own convolutions, `learn` with the form that `config.conv` names;
    parameters and logits are float32 whatever `config.dtype` the layers compute in.

    Args:
      config: the preset and what differs from it.
      image_shape: (height, width, channels).
      classes: number of classes K.
      mean: of each channel, of pixels scaled to [0, 1].
      std: of each channel, likewise.
      in_loop: whether `learn` will be compiled into a loop (`scan`, `while`); bears on speed alone.

    Returns:
      init, apply and learn.

    Raises:
      UserError: an unknown model, or a combination that cannot be.

    >>> model = build(Model(name="resnet8"), (8, 8, 1), 10, mean=[0.3], std=[0.4])
    >>> variables = model.init(jax.random.key(0))
    >>> jax.eval_shape(model.apply, variables, jnp.zeros((2, 8, 8, 1), jnp.uint8)).shape
    (2, 10)
    """
    plain = network(config, image_shape, classes, lax_form())
    form = choose_form(config.conv, in_loop=in_loop, residual=isinstance(plain, resnet.ResNet))
    fast = network(config, image_shape, classes, form)
    return _classifier(plain, fast, image_shape, _standardizer(config, mean, std, image_shape[-1]))


def build_in(
    form: Form,
    config: Model,
    image_shape: tuple[int, int, int],
    classes: int,
    *,
    mean: Sequence[float],
    std: Sequence[float],
) -> Classifier:
    """As `build`, with `apply` and `learn` both computed in a form of the caller's."""
    module = network(config, image_shape, classes, form)
    standardize = _standardizer(config, mean, std, image_shape[-1])
    return _classifier(module, module, image_shape, standardize)


def _classifier(
    plain: nn.Module,
    fast: nn.Module,
    image_shape: tuple[int, int, int],
    standardize: Callable[[Pixels], Features],
) -> Classifier:
    """The three functions of a module, which `fast` computes in another form."""

    def init(key: PRNGKey) -> Variables:
        return jax.jit(partial(initialize, variable_shapes(plain, image_shape)))(key)

    def apply(variables: Variables, pixels: Pixels) -> Logits:
        return plain.apply(_collections(variables), standardize(pixels), None)

    def learn(
        variables: Variables, pixels: Pixels, mask: Mask, key: PRNGKey
    ) -> tuple[Logits, PyTree]:
        some = mask.any()
        logits, new = fast.apply(
            _collections(variables),
            standardize(pixels),
            mask | ~some,  # of padding alone: finite statistics, and then none of them is kept
            rngs={"dropout": key},
            mutable=["batch_stats"],
        )
        return logits, trees.select(some, new.get("batch_stats", {}), variables.stats)

    return Classifier(init, apply, learn)


def learner(
    config: Model,
    image_shape: tuple[int, int, int],
    classes: int,
    *,
    mean: Sequence[float],
    std: Sequence[float],
) -> Callable[[PyTree, Pixels], Logits]:
    """A model as a phone trains it: what `learn` of `build` computes, in ops that phones have.

    Args:
      config: as of `build`; computed in float32 whatever its dtype.
      image_shape: (height, width, channels).
      classes: number of classes K.
      mean: of each channel, of pixels scaled to [0, 1].
      std: of each channel, likewise.

    Returns:
      (params, pixels [B,H,W,F] on 0..255) -> logits [B,K].

    Raises:
      UserError: as `check_learner`, or as `build`.
    """
    check_learner(config)
    config = msgspec.structs.replace(config, dtype="float32")
    module = network(config, image_shape, classes, phone_form())
    standardize = _standardizer(config, mean, std, image_shape[-1])

    def logits(params: PyTree, pixels: Pixels) -> Logits:
        # No mask: without batch norm and dropout, training and evaluation compute the same.
        return module.apply({"params": params}, standardize(pixels), None)

    return logits


def check_learner(config: Model) -> None:
    """Refuses what phones do not train: BatchNorm, whose statistics would be theirs, and dropout.

    Raises:
      UserError: the model has one of them.
    """
    architecture = resolve(config)
    if architecture.norm == "batch":
        expected = "'group' or 'none' where phones train"
        raise UserError("model.norm", expected, "'batch'", "train with model.norm=group")
    if architecture.dropout > 0:
        expected = "0 where phones train, which have no random numbers"
        raise UserError("model.dropout", expected, architecture.dropout, "set model.dropout=0")


def network(
    config: Model, image_shape: tuple[int, int, int], classes: int, form: Form
) -> nn.Module:
    """The flax module behind a config: (standardized pixels, mask or None) -> logits.

    Raises:
      UserError: an unknown model, or a combination that cannot be.
    """
    architecture = resolve(config)
    dtype = jnp.dtype(config.dtype)
    if isinstance(architecture, resnet.Architecture):
        return resnet.ResNet(architecture, classes, form, dtype)
    cnn.check(config.name, architecture, image_shape)
    return cnn.Cnn(architecture, classes, form, dtype)


def _collections(variables: Variables) -> dict[str, PyTree]:
    return {"params": variables.params, "batch_stats": variables.stats}


def _standardizer(
    config: Model, mean: Sequence[float], std: Sequence[float], channels: int
) -> Callable[[Pixels], Features]:
    scale, shift = _standardization(mean, std, channels)

    def standardize(pixels: Pixels) -> Features:
        floats = pixels.astype(jnp.float32) * jnp.asarray(scale) + jnp.asarray(shift)
        return floats.astype(config.dtype)

    return standardize


def _standardization(
    mean: Sequence[float], std: Sequence[float], channels: int
) -> tuple[np.ndarray, np.ndarray]:
    """(pixels / 255 - mean) / std as one multiply-add: scale and shift [1,1,1,F]."""
    for name, values in (("mean", mean), ("std", std)):
        if len(values) != channels:
            raise UserError(name, f"one number a channel ({channels})", list(values))
    if min(std) <= 0:
        raise UserError("std", "deviations above 0", list(std))
    deviation = np.asarray(std, np.float64).reshape(1, 1, 1, -1)
    scale = 1 / (255 * deviation)
    shift = -np.asarray(mean, np.float64).reshape(1, 1, 1, -1) / deviation
    return scale.astype(np.float32), shift.astype(np.float32)
