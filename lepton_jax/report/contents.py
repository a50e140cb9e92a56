"""What the files of a run folder hold, as far as the report tells of it."""

from typing import Annotated, Literal

from msgspec import Meta, Struct

Count = Annotated[int, Meta(ge=0)]
Side = Annotated[int, Meta(ge=1, le=2**16)]
Kind = Literal["train", "simulate"]
Share = Annotated[float, Meta(ge=0, le=1)]
Time = Annotated[float, Meta(ge=0)]


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


class Gate(Struct, frozen=True):
    """What a phone model must be, and what it is."""

    name: str
    found: str
    limit: str
    passed: bool


class GroupFigures(Struct, frozen=True):
    """A phone model compared with JAX on the images of a region or client."""

    images: Count
    accuracy: float
    jax_accuracy: float
    loss: float
    agreement: Share


class NamedGroup(GroupFigures, frozen=True):
    """The same of the one that loses most."""

    name: str


class Groups(Struct, frozen=True):
    """A phone model by region and client, on examples that clients hold."""

    data: Literal["holdout", "training"]
    regions: dict[str, GroupFigures]
    clients: Count
    worst_region: NamedGroup | None = None
    worst_client: NamedGroup | None = None


class Setting(Struct, frozen=True):
    """Latency of a run with so many threads, and with XNNPACK or without."""

    threads: Count
    xnnpack: bool
    min_ms: Time
    median_ms: Time
    p95_ms: Time
    runs: Count


class OpFigures(Struct, frozen=True):
    """All ops of one name: their work, and their share of the time."""

    op: str
    count: Count
    multiply_adds: Count
    bytes_moved: Count
    share: Share


class Delegate(Struct, frozen=True):
    """In how many parts XNNPACK took a graph over, and which ops it left."""

    parts: Count
    taken: Count
    left: dict[str, Count]


class Phone(Struct, frozen=True):
    """What a phone model takes of a machine, an image."""

    batch: Count
    latency: list[Setting]
    first_run_ms: Time
    memory_bytes: Count | None
    runtime_bytes: Count | None
    multiply_adds: Count
    bytes_moved: Count
    ops: list[OpFigures]
    delegate: Delegate


class FineTuning(Struct, frozen=True):
    """Training on with rounded numbers: what it came to, in mean losses over `images` images."""

    kept: bool
    steps: Count
    images: Count
    cost: float
    cost_error: float
    loss_before: float
    loss_after: float | None = None


class Variant(Struct, frozen=True):
    """One phone model, compared with JAX; the fields with defaults came later than some files."""

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
    logit_diff: float | None = None
    gates: list[Gate] = []
    overridden: bool = False
    groups: Groups | None = None
    phone: Phone | None = None
    pareto: bool | None = None
    fine_tuning: FineTuning | None = None


class Input(Struct, frozen=True):
    """What the phone model takes: [B,H,W,F], B of -1 where it is dynamic."""

    dtype: str
    shape: tuple[Annotated[int, Meta(ge=-1, le=2**16)], Side, Side, Side]


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
    converter: str | None = None
