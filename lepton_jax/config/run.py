"""Everything that defines a run."""

from msgspec import Struct

from lepton_jax.config.data import Data
from lepton_jax.config.export import Export
from lepton_jax.config.federated import Federated
from lepton_jax.config.kinds import STRICT, Count, Name, Seed
from lepton_jax.config.model import Model
from lepton_jax.config.training import CrossEntropy, Loss, Train


class Checkpoint(Struct, **STRICT):
    """What is kept while a run goes on."""

    every: Count = 1
    """Epochs (train) or rounds (simulate) between two checkpoints."""
    keep: Count = 2
    """How many of the newest are kept, besides the best on validation."""


class Run(Struct, **STRICT):
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
