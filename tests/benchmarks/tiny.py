"""A federation of embedded digits that is over in a second, and outcomes made up."""

from pathlib import Path

from benchmarks.measure import Outcome
from benchmarks.sides import Side
from benchmarks.workloads import Workload, cohorts
from lepton_jax import config

CLIENTS, CHOSEN, BATCH = 8, 2, 60

_RUN = config.Run(
    # Of 1,797 digits 1,600 are left for training: every client gets as many as the others.
    data=config.Data(name="digits", validation_fraction=0.0, test_fraction=0.1096),
    model=config.Model(name="cnn", blocks=(config.ConvBlock(filters=4, pool=2),), norm="none"),
    train=config.Train(batch_size=BATCH, optimizer=config.Sgd(learning_rate=0.1)),
    federated=cohorts(CLIENTS, CHOSEN, BATCH),
)
FEDERATED = Workload("tiny", "federated", _RUN, (), 2)
CENTRAL = Workload("tiny-central", "central", _RUN, (), 1, 3)


def outcome(name: str, variant: str, *seconds: float) -> Outcome:
    """Of a side that went over 100 images at each repetition."""
    side = Side(name, variant, Path(), 1, 100)
    return Outcome(side, seconds, 2**30, 0.5, {name: "1.0"})
