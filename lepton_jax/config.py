"""One run's configuration: TOML in, a frozen and validated `Run` out. Every default lives here.

Sections are the fields of `Run`. A kind of thing that has variants (an optimizer, a partition) is a
table with a `kind`: `optimizer = {kind = "adam", learning_rate = 0.001}`.
"""

from typing import Annotated, Literal

from msgspec import Meta, Struct

Positive = Annotated[float, Meta(gt=0)]
NonNegative = Annotated[float, Meta(ge=0)]
Fraction = Annotated[float, Meta(ge=0, lt=1)]
Count = Annotated[int, Meta(ge=1)]
Seed = Annotated[int, Meta(ge=0, lt=2**31)]
Name = Annotated[str, Meta(pattern=r"^[A-Za-z0-9][A-Za-z0-9_.\-]*$")]

_STRICT = {"frozen": True, "forbid_unknown_fields": True, "kw_only": True}


# --- data -----------------------------------------------------------------------------------------


class Crop(Struct, tag_field="kind", tag="crop", **_STRICT):
    """Pads by reflection, then crops back at a random place."""

    padding: Count = 4


class Flip(Struct, tag_field="kind", tag="flip", **_STRICT):
    """Mirrors left and right, half of the time; not for digits or text."""


class Shift(Struct, tag_field="kind", tag="shift", **_STRICT):
    """Moves by up to `pixels` in both directions; what comes in is black."""

    pixels: Count = 2


class Brightness(Struct, tag_field="kind", tag="brightness", **_STRICT):
    """Adds up to `max_delta` of the pixel range, the same for a whole image."""

    max_delta: Annotated[float, Meta(gt=0, le=1)] = 0.2


class Contrast(Struct, tag_field="kind", tag="contrast", **_STRICT):
    """Scales the distance to the image's mean by a factor in [lower, upper]."""

    lower: Positive = 0.8
    upper: Positive = 1.2

    def __post_init__(self) -> None:
        if self.lower > self.upper:
            raise ValueError(f"expected lower <= upper, got {self.lower} > {self.upper}")


class Cutout(Struct, tag_field="kind", tag="cutout", **_STRICT):
    """Blanks a square of `size` pixels at a random place (DeVries and Taylor, 2017)."""

    size: Count = 8


Augmentation = Crop | Flip | Shift | Brightness | Contrast | Cutout


class Data(Struct, **_STRICT):
    """Which images, how they are split, and how they are varied while training."""

    name: Name = "digits"
    """`digits` (embedded), `folder` (your own images), or any TFDS image classification set."""
    path: str | None = None
    """The image folder's root, or the TFDS `data_dir` (else `TFDS_DATA_DIR`, else TFDS' default)."""
    image_size: tuple[Count, Count] | None = None
    """(height, width) to resize to; needed where a folder's images differ in size."""
    channels: Literal[1, 3] | None = None
    """1: grayscale, 3: RGB, unset: as stored."""
    test_fraction: Annotated[float, Meta(gt=0, lt=1)] = 0.2
    """The part kept for testing; used only where the set has no test split of its own."""
    validation_fraction: Fraction = 0.1
    """The part of the training split kept for validation."""
    split_seed: Seed = 0
    normalization: Literal["standard", "unit"] = "standard"
    """`standard`: by each channel's mean and deviation over the training split; `unit`: to [0, 1]."""
    augment: tuple[Augmentation, ...] = ()

    def __post_init__(self) -> None:
        if self.name == "folder" and self.path is None:
            raise ValueError("name 'folder' needs `path`, the root of the image folder")


# --- model ----------------------------------------------------------------------------------------


class ConvBlock(Struct, **_STRICT):
    """One convolution, norm, activation and, with pool > 1, a pooling of that window and stride."""

    filters: Count
    kernel: Count = 3
    stride: Count = 1
    padding: Literal["SAME", "VALID"] = "SAME"
    pool: Count = 1


class Model(Struct, **_STRICT):
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


# --- optimization ---------------------------------------------------------------------------------


class Sgd(Struct, tag_field="kind", tag="sgd", **_STRICT):
    """Stochastic gradient descent; `weight_decay` leaves out norms and biases."""

    learning_rate: Positive = 0.1
    momentum: Fraction = 0.0
    nesterov: bool = False
    weight_decay: NonNegative = 0.0

    def __post_init__(self) -> None:
        if self.nesterov and self.momentum == 0:
            raise ValueError("nesterov needs a momentum above 0; set momentum = 0.9")


class Adam(Struct, tag_field="kind", tag="adam", **_STRICT):
    """Adam (Kingma and Ba, 2015) with decoupled weight decay (Loshchilov and Hutter, 2019)."""

    learning_rate: Positive = 1e-3
    b1: Fraction = 0.9
    b2: Fraction = 0.999
    eps: Positive = 1e-8
    weight_decay: NonNegative = 0.0


class Yogi(Struct, tag_field="kind", tag="yogi", **_STRICT):
    """Yogi (Zaheer et al., 2018), as a server optimizer after Reddi et al. (2021)."""

    learning_rate: Positive = 1e-2
    b1: Fraction = 0.9
    b2: Fraction = 0.999
    eps: Positive = 1e-3


Optimizer = Sgd | Adam | Yogi


class Constant(Struct, tag_field="kind", tag="constant", **_STRICT):
    """The optimizer's learning rate, unchanged."""


class Cosine(Struct, tag_field="kind", tag="cosine", **_STRICT):
    """Half a cosine down to `final` times the learning rate (Loshchilov and Hutter, 2017)."""

    final: Fraction = 0.0


class Step(Struct, tag_field="kind", tag="step", **_STRICT):
    """Multiplies the learning rate by `factor` at each of these epochs."""

    epochs: tuple[Count, ...]
    factor: Positive = 0.1


Schedule = Constant | Cosine | Step


class CrossEntropy(Struct, tag_field="kind", tag="cross_entropy", **_STRICT):
    """Softmax cross-entropy in nats."""

    label_smoothing: Fraction = 0.0


class MeanSquaredError(Struct, tag_field="kind", tag="mean_squared_error", **_STRICT):
    """Mean over the classes of (softmax - one-hot) squared."""


Loss = CrossEntropy | MeanSquaredError


class Privacy(Struct, **_STRICT):
    """Differential privacy of each training example, by DP-SGD (Abadi et al., 2016)."""

    noise_multiplier: Positive
    """Deviation of the normal noise on the gradients' sum, over clip_norm."""
    clip_norm: Positive = 1.0
    """Scales each example's gradient down to this L2 norm where it is longer."""
    delta: Annotated[float, Meta(gt=0, lt=1)] = 1e-5
    microbatch: Count = 16
    """How many examples' gradients are in memory at a time."""


class Train(Struct, **_STRICT):
    """Centralized training: `lepton train`."""

    epochs: Count = 10
    batch_size: Count = 64
    optimizer: Optimizer = Sgd(learning_rate=0.1, momentum=0.9, nesterov=True)
    schedule: Schedule = Constant()
    warmup_epochs: NonNegative = 0.0
    clip_norm: Positive | None = None
    """Scales a gradient down to this L2 norm where it is longer."""
    ema: Fraction | None = None
    """Decay per step of the exponential moving average of the parameters, which is then evaluated."""
    patience: Count | None = None
    """Stop after this many epochs without a better validation loss."""
    privacy: Privacy | None = None
    """Makes batches random, each example in each with equal probability: `batch_size` is expected."""

    def __post_init__(self) -> None:
        if self.privacy is not None and self.clip_norm is not None:
            raise ValueError("`privacy` clips each example's gradient; remove clip_norm")
        if self.warmup_epochs >= self.epochs:
            raise ValueError(
                f"expected warmup_epochs < epochs ({self.epochs}), got {self.warmup_epochs}"
            )


# --- federation -----------------------------------------------------------------------------------


class Iid(Struct, tag_field="kind", tag="iid", **_STRICT):
    """Examples dealt at random; client sizes log-normal with this sigma (0: equal)."""

    size_sigma: NonNegative = 0.0


class Dirichlet(Struct, tag_field="kind", tag="dirichlet", **_STRICT):
    """Each class spread over the clients by a draw from Dirichlet(alpha) (Hsu et al., 2019)."""

    alpha: Positive = 0.5
    min_examples: Count = 2


class LabelShards(Struct, tag_field="kind", tag="label_shards", **_STRICT):
    """Sorted by label, cut into equal shards, a few of them a client (McMahan et al., 2017)."""

    shards_per_client: Count = 2


class ByRegion(Struct, tag_field="kind", tag="by_region", **_STRICT):
    """First over the regions, then over each region's clients, IID with log-normal sizes.

    Where the data name a region for each example, that is the region; else classes are spread over
    the regions by Dirichlet(alpha).
    """

    alpha: Positive = 1.0
    size_sigma: NonNegative = 0.5


Partition = Iid | Dirichlet | LabelShards | ByRegion


class Clip(Struct, tag_field="kind", tag="clip", **_STRICT):
    """Scales a client's update down to this L2 norm where it is longer."""

    max_norm: Positive


Stage = Clip


class Gaussian(Struct, tag_field="kind", tag="gaussian", **_STRICT):
    """Normal noise on the sum of updates; its deviation is `multiplier` times the chain's bound."""

    multiplier: Positive


class Federated(Struct, **_STRICT):
    """Federated averaging: `lepton simulate`."""

    rounds: Count = 20
    clients: Count = 30
    regions: tuple[Name, ...] = ("north", "centre", "south")
    """Names to deal the clients to; data with regions of their own bring theirs (`by_region`)."""
    partition: Partition = Dirichlet(alpha=0.5)
    partition_seed: Seed = 0
    holdout_fraction: Fraction = 0.2
    """The part of each client's examples kept for evaluating there; 0 evaluates on what it trains on."""
    clients_per_round: Count = 10
    sampling: Literal["fixed", "poisson"] = "fixed"
    """`fixed`: so many clients, uniformly without replacement; `poisson`: each one independently."""
    local_epochs: Count = 1
    batch_size: Count | Literal["all"] = 32
    """Of a local step; `"all"`: one step over all that the client has (FedSGD with one epoch)."""
    client: Sgd | Adam = Sgd(learning_rate=0.1)
    client_decay: Annotated[float, Meta(gt=0, le=1)] = 1.0
    """Factor on the client's learning rate after each round."""
    proximal: NonNegative = 0.0
    """mu of FedProx (Li et al., 2020): pulls the client towards the round's start; 0: FedAvg."""
    server: Optimizer = Sgd(learning_rate=1.0)
    """Its gradient is minus the mean update: sgd(1) is FedAvg, with momentum FedAvgM, ..."""
    weights: Literal["examples", "uniform"] = "examples"
    stages: tuple[Stage, ...] = ()
    """What happens to a client's update before it leaves."""
    noise: Gaussian | None = None
    delta: Annotated[float, Meta(gt=0, lt=1)] = 1e-5
    over: Literal["auto", "scan", "vmap", "shard"] = "auto"
    """How a round goes over its clients: one after another, batched, or split over the devices."""
    evaluate_every: Count = 1

    def __post_init__(self) -> None:
        if not self.regions:
            raise ValueError("expected at least one name in `regions`, got none")
        if len(set(self.regions)) != len(self.regions):
            raise ValueError(f"expected distinct names in `regions`, got {list(self.regions)}")
        if self.clients < len(self.regions):
            raise ValueError(
                f"expected at least one client a region ({len(self.regions)}), got clients = {self.clients}"
            )
        if self.clients_per_round > self.clients:
            raise ValueError(
                f"expected clients_per_round <= clients ({self.clients}), got {self.clients_per_round}"
            )
        if self.noise is not None:
            self._check_noise()

    def _check_noise(self) -> None:
        if not self.stages:
            raise ValueError(
                "gaussian noise needs a finite bound, but `stages` has none; "
                'add {kind = "clip", max_norm = 1.0} to stages'
            )
        if self.weights != "uniform":
            raise ValueError(
                'weights by example count leave the noised sum unbounded; set weights = "uniform"'
            )
        if self.sampling != "poisson":
            raise ValueError('epsilon is accounted for Poisson sampling; set sampling = "poisson"')


# --- the rest -------------------------------------------------------------------------------------


class Checkpoint(Struct, **_STRICT):
    """What is kept while a run goes on."""

    every: Count = 1
    """Epochs (train) or rounds (simulate) between two checkpoints."""
    keep: Count = 2
    """How many of the newest are kept, besides the best on validation."""


class Export(Struct, **_STRICT):
    """The phone model: `lepton export`."""

    variants: tuple[Literal["float32", "int8"], ...] = ("float32", "int8")
    calibration_images: Count = 256
    """Training images that fix the ranges of int8."""


class Run(Struct, **_STRICT):
    """Everything that defines a run; with the same version and hardware, the same result."""

    name: Name = "run"
    seed: Seed = 0
    data: Data = Data()
    model: Model = Model()
    loss: Loss = CrossEntropy()
    train: Train = Train()
    federated: Federated = Federated()
    checkpoint: Checkpoint = Checkpoint()
    export: Export = Export()
