"""The models that have a name, and what of them a config may change."""

from typing import NamedTuple

from lepton_jax.checks import UserError, suggestion
from lepton_jax.config import ConvBlock, Model
from lepton_jax.models import cnn, resnet

_CHOICES = ("blocks", "dense", "activation", "pooling", "norm", "dropout", "stem")


class Description(NamedTuple):
    """A preset in one line: its parameters at its native image shape and classes, its source."""

    name: str
    parameters: int
    image_shape: tuple[int, int, int]
    classes: int
    source: str


class Preset(NamedTuple):
    """An architecture with a name."""

    architecture: cnn.Architecture | resnet.Architecture
    description: Description


def names() -> tuple[str, ...]:
    """The presets' names; `cnn`, with blocks of one's own, comes besides.

    >>> names()[:3]
    ('lepton_cnn', 'keras_cnn', 'fedavg_cnn')
    """
    return tuple(preset.description.name for preset in _PRESETS)


def describe(name: str) -> Description:
    """One preset's name, parameters, native image shape and classes, and source.

    Raises:
      UserError: no preset has this name.

    >>> describe("resnet8").parameters
    78186
    """
    return _find(name).description


def resolve(config: Model) -> cnn.Architecture | resnet.Architecture:
    """The preset's architecture with what the config sets in its place.

    Raises:
      UserError: an unknown name, or a choice that this model does not have.
    """
    blank = cnn.Architecture(blocks=())
    architecture = blank if config.name == "cnn" else _find(config.name).architecture
    chosen = {key: getattr(config, key) for key in _CHOICES if getattr(config, key) is not None}
    for key, value in chosen.items():
        if not _offers(architecture, key):
            others = [p.description.name for p in _PRESETS if _offers(p.architecture, key)]
            raise UserError(
                f"model.{key}",
                f"nothing, as {config.name} has no such choice",
                f"{value}",
                f"remove it, or take one of {', '.join(others)}",
            )
    return architecture._replace(**chosen)


def _offers(architecture: cnn.Architecture | resnet.Architecture, choice: str) -> bool:
    return getattr(architecture, choice, None) is not None


def _find(name: str) -> Preset:
    for preset in _PRESETS:
        if preset.description.name == name:
            return preset
    known = (*names(), "cnn")
    raise UserError(
        "model.name",
        f"one of {', '.join(known)}",
        name,
        suggestion(name, known, "choose one of these"),
    )


_DIGIT, _SMALL, _PHOTO = (28, 28, 1), (32, 32, 3), (224, 224, 3)
_HE = "He et al. 2016, Deep residual learning for image recognition"

_PRESETS = (
    Preset(
        cnn.Architecture(
            blocks=(
                ConvBlock(filters=32),
                ConvBlock(filters=32, pool=2),
                ConvBlock(filters=64),
                ConvBlock(filters=64, pool=2),
                ConvBlock(filters=128, pool=2),
            ),
            dense=(128,),
        ),
        Description("lepton_cnn", 287_722, _DIGIT, 10, "this project: 5 convolutions, 2 dense"),
    ),
    Preset(
        cnn.Architecture(
            blocks=(
                ConvBlock(filters=32, padding="VALID", pool=2),
                ConvBlock(filters=64, padding="VALID", pool=2),
                ConvBlock(filters=64, padding="VALID"),
            ),
            dense=(64,),
        ),
        Description("keras_cnn", 93_322, _DIGIT, 10, "the classic Keras tutorial"),
    ),
    Preset(
        cnn.Architecture(
            blocks=(
                ConvBlock(filters=32, kernel=5, pool=2),
                ConvBlock(filters=64, kernel=5, pool=2),
            ),
            dense=(512,),
        ),
        Description("fedavg_cnn", 1_663_370, _DIGIT, 10, "McMahan et al. 2017, FedAvg"),
    ),
    Preset(
        resnet.Architecture((1, 1, 1), (16, 32, 64), shortcut="conv", bias=True),
        Description("resnet8", 78_186, _SMALL, 10, "MLPerf Tiny v1, image classification"),
    ),
    *(
        Preset(
            resnet.Architecture((n, n, n), (16, 32, 64), shortcut="pad"),
            Description(f"resnet{6 * n + 2}", parameters, _SMALL, 10, f"{_HE}, CIFAR-10"),
        )
        for n, parameters in ((3, 269_722), (5, 464_154), (9, 853_018))
    ),
    *(
        Preset(
            resnet.Architecture(depths, (64, 128, 256, 512), bottleneck, stem="imagenet"),
            Description(name, parameters, _PHOTO, 1000, f"{_HE}, ImageNet"),
        )
        for name, depths, bottleneck, parameters in (
            ("resnet18", (2, 2, 2, 2), False, 11_689_512),
            ("resnet34", (3, 4, 6, 3), False, 21_797_672),
            ("resnet50", (3, 4, 6, 3), True, 25_557_032),
        )
    ),
)
