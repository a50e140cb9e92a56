"""What a private run promises, fixed before it begins: the ledger opens with it, the card shows it."""

from typing import Literal

from msgspec import Struct

from lepton_jax.config import Accountant, Adjacency, Randomness

Mechanism = Literal["gaussian", "tree", "banded", "local", "distributed"]
Sampler = Literal["poisson", "cyclic", "fixed"]


class Terms(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One differential-privacy guarantee: whose, by what, accounted how.

    Attributes:
      unit: whom it protects: all of a client's examples, or one example.
      adjacency: what two neighbours differ by.
      mechanism: how noise is made; `gaussian` is that of DP-SGD and of DP-FedAvg.
      noise_multiplier: deviation of the noise over the L2 bound of one unit's share.
      clip_norm: that bound, in the units of the model's parameters; of an adaptive clip, its first.
      sampler: how a release's units are chosen.
      sampling_rate: of Poisson sampling: the probability of each unit.
      pass_length: of `cyclic`: the releases between two in which a unit takes part.
      bands: of `banded`: how many releases' noise is correlated.
      delta: at which epsilon is told.
      budget: the epsilon before which the run stops.
      accountant: by which epsilon is told.
      accountant_version: name and version of the library behind it.
      randomness: where noise and selection come from.
      trust: who has to be trusted, and with what, in one sentence.
      hypothetical: the noise is meant for a larger federation than the simulated one.
      dropouts: of secure aggregation: the fraction of clients that may drop out; None: plain sums.
      colluders: of secure aggregation: the fraction that may collude with the server.
      covers: the releases that epsilon covers.
      not_private: figures in the run folder that come from the same data without noise.
    """

    unit: Literal["client", "example"]
    adjacency: Adjacency
    mechanism: Mechanism
    noise_multiplier: float
    clip_norm: float
    sampler: Sampler
    sampling_rate: float | None = None
    pass_length: int | None = None
    bands: int | None = None
    delta: float
    budget: float | None = None
    accountant: Accountant
    accountant_version: str
    randomness: Randomness
    trust: str
    hypothetical: bool = False
    dropouts: float | None = None
    colluders: float | None = None
    covers: tuple[str, ...]
    not_private: tuple[str, ...]
