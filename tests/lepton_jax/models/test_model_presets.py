from typing import Any

import pytest

from lepton_jax.checks import UserError
from lepton_jax.config import ConvBlock, Model
from lepton_jax.models import build, describe, names, summary

# From the papers and torchvision, or by hand from the architecture.
_PUBLISHED = {
    "lepton_cnn": 287_722,
    "keras_cnn": 93_322,
    "fedavg_cnn": 1_663_370,
    "resnet8": 78_186,
    "resnet20": 269_722,
    "resnet32": 464_154,
    "resnet56": 853_018,
    "resnet18": 11_689_512,
    "resnet34": 21_797_672,
    "resnet50": 25_557_032,
}


def test_every_preset_is_listed() -> None:
    assert names() == tuple(_PUBLISHED)


@pytest.mark.parametrize("name", names())
def test_a_preset_has_the_published_number_of_parameters(name: str) -> None:
    about = describe(name)
    counted = summary(Model(name=name), about.image_shape, about.classes).parameters
    assert counted == about.parameters == _PUBLISHED[name]


@pytest.mark.parametrize(
    ("name", "billions"), [("resnet18", 1.814), ("resnet34", 3.664), ("resnet50", 4.089)]
)
def test_the_imagenet_resnets_do_the_multiply_adds_that_torchvision_names(
    name: str, billions: float
) -> None:
    total = summary(Model(name=name), (224, 224, 3), 1000).multiply_adds
    assert round(total / 1e9, 3) == billions


def test_the_small_stem_keeps_the_resolution() -> None:
    rows = summary(Model(name="resnet18", stem="small"), (32, 32, 3), 10).rows
    assert rows[0].shape == (32, 32, 64)
    assert [row.shape[0] for row in rows if row.name.endswith("conv2")][-1] == 4


@pytest.mark.parametrize("name", names())
@pytest.mark.parametrize("norm", ["batch", "group", "none"])
def test_every_model_takes_every_norm(name: str, norm: Any) -> None:
    rows = summary(Model(name=name, norm=norm), (32, 32, 3), 10).rows
    kinds = {row.kind for row in rows if row.kind.endswith("norm")}
    assert kinds == (set() if norm == "none" else {f"{norm} norm"})


def test_without_a_norm_every_convolution_has_a_bias() -> None:
    with_norm = summary(Model(name="resnet20"), (32, 32, 3), 10)
    without = summary(Model(name="resnet20", norm="none"), (32, 32, 3), 10)
    channels = sum(row.shape[-1] for row in with_norm.rows if row.kind.startswith("conv"))
    assert with_norm.parameters - without.parameters == channels  # scale and bias; bias


def test_blocks_and_dense_of_ones_own_make_a_cnn() -> None:
    config = Model(name="cnn", blocks=(ConvBlock(filters=4, stride=2, pool=2),), dense=(5,))
    rows = summary(config, (9, 8, 1), 3).rows
    assert [(row.name, row.kind, row.shape) for row in rows] == [
        ("conv1", "conv 3x3 stride 2", (5, 4, 4)),
        ("pool1", "max pool 2x2", (2, 2, 4)),
        ("dense1", "dense", (5,)),
        ("head", "dense", (3,)),
    ]


def test_a_cnn_preset_can_be_changed_in_part() -> None:
    rows = summary(Model(name="keras_cnn", dense=(), pooling="average"), (28, 28, 1), 10).rows
    assert [row.kind for row in rows][-2:] == ["conv 3x3", "dense"]
    assert "average pool 2x2" in {row.kind for row in rows}


def _cnn(**fields: Any) -> Model:
    return Model(name="cnn", **fields)


@pytest.mark.parametrize(
    ("config", "message"),
    [
        (
            Model(name="resnet-20"),
            r"model\.name: .*fedavg_cnn.*got resnet-20; did you mean resnet20\?",
        ),
        (Model(name="zzz"), r"model\.name: expected one of lepton_cnn, .*cnn, got zzz"),
        (
            Model(name="resnet8", blocks=(ConvBlock(filters=4),)),
            r"model\.blocks: .*resnet8.*take one of lepton_cnn, keras_cnn, fedavg_cnn",
        ),
        (Model(name="resnet8", dense=(5,)), r"model\.dense: expected nothing"),
        (Model(name="resnet20", activation="tanh"), r"model\.activation: .*resnet20.*got tanh"),
        (Model(name="resnet18", pooling="average"), r"model\.pooling: .*resnet18"),
        (
            Model(name="resnet20", stem="small"),
            r"model\.stem: .*got small; .*one of resnet18, resnet34, resnet50",
        ),
        (Model(name="keras_cnn", stem="imagenet"), r"model\.stem: .*keras_cnn"),
        (
            Model(name="keras_cnn"),
            r"model\.name: expected images of at least 18x18 .*keras_cnn, got 8x8; set data\.image_s",
        ),
        (
            _cnn(blocks=(ConvBlock(filters=4, kernel=9, padding="VALID"),)),
            r"model\.blocks: expected images of at least 9x9",
        ),
        (
            _cnn(blocks=(ConvBlock(filters=4, pool=3), ConvBlock(filters=4, stride=3, pool=2))),
            r"model\.blocks: expected images of at least 12x12",
        ),
        (
            _cnn(blocks=(ConvBlock(filters=2),), norm="group"),
            r"model\.norm: expected at least 4 channels",
        ),
    ],
)
def test_what_cannot_be_is_refused_at_construction(config: Model, message: str) -> None:
    with pytest.raises(UserError, match=message):
        build(config, (8, 8, 1), 10, mean=[0.0], std=[1.0])


def test_the_smallest_image_passes_and_one_pixel_less_does_not() -> None:
    for name, least in (("keras_cnn", 18), ("lepton_cnn", 8), ("fedavg_cnn", 4)):
        assert summary(Model(name=name), (least, least, 1), 10).rows
        with pytest.raises(UserError, match=f"at least {least}x{least}"):
            summary(Model(name=name), (least, least - 1, 1), 10)


def test_standardization_needs_one_positive_deviation_a_channel() -> None:
    with pytest.raises(UserError, match=r"mean: expected one number a channel \(3\)"):
        build(Model(), (8, 8, 3), 10, mean=[0.0], std=[1.0, 1.0, 1.0])
    with pytest.raises(UserError, match="std: expected deviations above 0"):
        build(Model(), (8, 8, 1), 10, mean=[0.0], std=[0.0])


def test_an_unknown_name_cannot_be_described() -> None:
    with pytest.raises(UserError, match="did you mean keras_cnn"):
        describe("keras_cn")
