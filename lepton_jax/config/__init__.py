"""One run's configuration: TOML in, a frozen and validated `Run` out. Every default lives here.

Sections are the fields of `Run`. A kind of thing that has variants (an optimizer, a partition) is a
table with a `kind`: `optimizer = {kind = "adam", learning_rate = 0.001}`.
"""

from lepton_jax.config.data import (
    Augmentation,
    Brightness,
    Contrast,
    Crop,
    Cutout,
    Data,
    Flip,
    Shift,
)
from lepton_jax.config.federated import (
    Federated,
)
from lepton_jax.config.kinds import (
    Count,
    Fraction,
    Name,
    NonNegative,
    Positive,
    Seed,
)
from lepton_jax.config.model import (
    ConvBlock,
    Model,
)
from lepton_jax.config.partition import (
    ByRegion,
    Dirichlet,
    Iid,
    LabelShards,
    Partition,
)
from lepton_jax.config.privacy import (
    Accountant,
    Adjacency,
    ClientPrivacy,
    Privacy,
    Randomness,
)
from lepton_jax.config.release import (
    AdaptiveClip,
    Banded,
    Channel,
    Clip,
    Distributed,
    Gaussian,
    Hypothetical,
    Local,
    Noise,
    Plain,
    Rotate,
    Secure,
    Stage,
    Tree,
)
from lepton_jax.config.run import (
    Checkpoint,
    Export,
    Run,
)
from lepton_jax.config.training import (
    Adam,
    Constant,
    Cosine,
    CrossEntropy,
    Loss,
    MeanSquaredError,
    Optimizer,
    Schedule,
    Sgd,
    Step,
    Train,
    Yogi,
)

__all__ = [
    "Accountant",
    "Adam",
    "AdaptiveClip",
    "Adjacency",
    "Augmentation",
    "Banded",
    "Brightness",
    "ByRegion",
    "Channel",
    "Checkpoint",
    "ClientPrivacy",
    "Clip",
    "Constant",
    "Contrast",
    "ConvBlock",
    "Cosine",
    "Count",
    "Crop",
    "CrossEntropy",
    "Cutout",
    "Data",
    "Dirichlet",
    "Distributed",
    "Export",
    "Federated",
    "Flip",
    "Fraction",
    "Gaussian",
    "Hypothetical",
    "Iid",
    "LabelShards",
    "Local",
    "Loss",
    "MeanSquaredError",
    "Model",
    "Name",
    "Noise",
    "NonNegative",
    "Optimizer",
    "Partition",
    "Plain",
    "Positive",
    "Privacy",
    "Randomness",
    "Rotate",
    "Run",
    "Schedule",
    "Secure",
    "Seed",
    "Sgd",
    "Shift",
    "Stage",
    "Step",
    "Train",
    "Tree",
    "Yogi",
]
