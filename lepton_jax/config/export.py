"""The phone model: which variants, what goes in and comes out, what its files say of themselves."""

from typing import Annotated, Literal

from msgspec import Meta, Struct

from lepton_jax.config.kinds import STRICT, Count, Fraction, Positive
from lepton_jax.config.locales import check_locale

Variant = Literal[
    "float32", "float16", "dynamic", "weight-only", "int8", "int8-qat", "16x8", "int4"
]
Signature = Literal["infer", "train", "evaluate", "get_weights", "set_weights"]
Locale = str  # such as `pt-BR`; what is one, `check_locale` says


class Interface(Struct, **STRICT):
    """What the phone model takes and gives."""

    input: Literal["uint8", "int8", "float32"] = "uint8"
    """`uint8`: raw camera bytes; `int8`: those less 128; `float32`: those divided by 255."""
    frame: tuple[Count, Count] | None = None
    """(height, width) of the camera's frames, resized inside the model; unset: as the model's."""
    output: Literal["probabilities", "logits", "top_k"] = "probabilities"
    top_k: Count = 3
    """How many `top_k` gives, with their labels."""
    output_type: Literal["float32", "int8", "uint8"] = "float32"
    """Of int8 models' probabilities or logits."""
    batch: Count | Literal["dynamic"] = 1
    """Images at a time; `dynamic`: as many as are given."""


class Calibration(Struct, **STRICT):
    """How the ranges of int8 and 16x8 are fixed."""

    images_per_class: Count = 26
    """Training images; of a private run, images of the server's own."""
    percentile: Annotated[float, Meta(gt=50, le=100)] = 100.0
    """Of a tensor's values that its range holds, on both sides; 100: exact minima and maxima."""


class FineTuning(Struct, **STRICT):
    """Quantization-aware training, for `int8-qat` and `int4` (Jacob et al., 2018)."""

    epochs: Count = 2
    batch_size: Count = 64
    learning_rate: Positive = 0.01


class TrainOnPhone(Struct, **STRICT):
    """What the signatures `train` and `evaluate` compute."""

    batch_size: Count = 16
    momentum: Fraction = 0.9


class About(Struct, **STRICT):
    """What a phone model says of itself."""

    description: str = ""
    author: str = ""
    licence: str = ""
    version: str = "1"
    locales: tuple[Locale, ...] = ()
    """Of the labels in the file, beside the classes' own names; unset: all there are."""

    def __post_init__(self) -> None:
        for locale in self.locales:
            check_locale(locale)


class Export(Struct, **STRICT):
    """The phone model: `lepton export`."""

    variants: tuple[Variant, ...] = ("float32", "int8")
    converter: Literal["auto", "jax2tf", "litert"] = "auto"
    """`jax2tf`: TensorFlow's; `litert`: without TensorFlow; `auto`: the first of them that is installed."""
    interface: Interface = Interface()
    calibration: Calibration = Calibration()
    fine_tuning: FineTuning = FineTuning()
    signatures: tuple[Signature, ...] = ("infer",)
    training: TrainOnPhone = TrainOnPhone()
    about: About = About()
