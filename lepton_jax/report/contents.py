"""What the files of a run folder hold, as far as the report tells of it."""

from typing import Annotated, Literal

from msgspec import Meta, Struct

Count = Annotated[int, Meta(ge=0)]
Side = Annotated[int, Meta(ge=1, le=2**16)]
Kind = Literal["train", "simulate"]


class Figures(Struct, frozen=True):
    """Loss and accuracy of a split; None of no examples."""

    loss: float | None
    accuracy: float | None


class Record(Struct, frozen=True):
    """A line of metrics.jsonl, of an epoch or of a round."""

    train: Figures | None
    epoch: Count | None = None
    round: Count | None = None
    validation: Figures | None = None
    test: Figures | None = None
    clients: Count | None = None
    examples: Count | None = None
    bytes_up: Count | None = None
    bytes_down: Count | None = None
    epsilon: float | None = None

    @property
    def number(self) -> int:
        """Of the epoch or round."""
        return (self.epoch if self.round is None else self.round) or 0


class Timing(Struct, frozen=True):
    """A line of timings.jsonl."""

    seconds: float
    epoch: Count | None = None
    round: Count | None = None

    @property
    def number(self) -> int:
        """Of the epoch or round."""
        return (self.epoch if self.round is None else self.round) or 0


class Result(Struct, frozen=True):
    """result.json: how the run ended."""

    kind: Kind
    test_accuracy: float
    test_loss: float
    seconds: float
    images_per_second: float
    params_sha256: str
    epsilon: float | None = None
    delta: float | None = None
    noise_multiplier: float | None = None
    randomness: str | None = None
    hypothetical: bool | None = None
    stopped: str | None = None
    rounds_to_target: int | None = None


class PerClass(Struct, frozen=True):
    """Figures of each class, in the order of the classes."""

    precision: list[float]
    recall: list[float]
    f1: list[float]
    support: list[Count]


class SplitFigures(Struct, frozen=True):
    """Figures of the test split; `confusion` has a row per true and a column per predicted class."""

    loss: float | None
    accuracy: float | None
    examples: Count
    top5_accuracy: float | None
    precision_macro: float | None
    recall_macro: float | None
    f1_macro: float | None
    per_class: PerClass
    confusion: list[list[Count]]


class Sample(Struct, frozen=True):
    """One image of the test split, and what the model made of it."""

    index: Count
    label: Count
    predicted: Count
    confidence: float


class ClientFigures(Struct, frozen=True):
    """How one client is served."""

    client: int
    region: str
    examples: Count
    loss: float | None
    accuracy: float | None


class RegionFigures(Struct, frozen=True):
    """How one region is served; None is what its policy withholds, or of no examples."""

    region: str
    clients: Count
    examples: Count | None
    loss: float | None
    accuracy: float | None
    f1_macro: float | None


class Evaluation(Struct, frozen=True):
    """evaluation.json; clients and regions are there for a federated run alone."""

    test: SplitFigures
    samples: list[Sample] = []
    clients: list[ClientFigures] = []
    regions: list[RegionFigures] = []
    client_percentiles: dict[str, dict[str, float | None]] = {}
    client_data: Literal["holdout", "training"] = "holdout"


class ClientData(Struct, frozen=True):
    """What a client holds; `labels` counts training and holdout examples of each class together."""

    client: int
    region: str
    examples: list[int]
    holdout: list[int]
    labels: list[Count]


class Partition(Struct, frozen=True):
    """partition.json."""

    kind: str
    seed: int
    clients: list[ClientData]


class Latency(Struct, frozen=True):
    """Milliseconds for one image."""

    median: float
    p95: float


class Variant(Struct, frozen=True):
    """One phone model, compared with JAX."""

    name: str
    file: str
    bytes: Count
    max_abs_diff: float
    top1_agreement: float
    accuracy: float
    jax_accuracy: float
    latency_ms: Latency
    ops: dict[str, int]
    within_tolerance: bool = True


class Input(Struct, frozen=True):
    """What the phone model takes: [1,H,W,F]."""

    dtype: str
    shape: tuple[Side, Side, Side, Side]


class Calibration(Struct, frozen=True):
    """The images that fixed the ranges of int8."""

    split: str
    images: Count


class Export(Struct, frozen=True):
    """export.json."""

    classes: list[str]
    input: Input
    variants: list[Variant]
    calibration: Calibration | None = None
