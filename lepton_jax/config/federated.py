"""Federated averaging, and what it may not be combined with."""

from typing import Annotated, Literal

from msgspec import Meta, Struct

from lepton_jax.config.kinds import STRICT, Count, Fraction, Name, NonNegative, Positive, Seed
from lepton_jax.config.partition import Dirichlet, Partition
from lepton_jax.config.privacy import Accountant, Adjacency, ClientPrivacy, Randomness
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
    Secure,
    Stage,
    Tree,
)
from lepton_jax.config.training import Adam, Optimizer, Sgd


class Federated(Struct, **STRICT):
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
    sampling: Literal["fixed", "poisson", "cyclic"] = "fixed"
    """`fixed`: so many clients, uniformly without replacement; `poisson`: each one independently;
    `cyclic`: one block of them after another, each client once a pass."""
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
    weight_cap: Count | None = None
    """With weights by examples and noise or secure sums: a client counts min(examples, cap) / cap."""
    stages: tuple[Stage, ...] = ()
    """What happens to a client's update before it leaves."""
    channel: Channel = Plain()
    """What the server sees of the updates."""
    noise: Noise | None = None
    """Differential privacy of each client."""
    epsilon: Positive | None = None
    """The budget of each client: training stops before a round that would spend more."""
    delta: Annotated[float, Meta(gt=0, lt=1)] = 1e-5
    accountant: Accountant = "pld"
    adjacency: Adjacency = "add-remove"
    """What two neighbours differ by: a client more or less, or another one in its place."""
    randomness: Randomness = "secure"
    """`secure`: noise and cohorts from the system's entropy; `reproducible`: from the run's seed."""
    hypothetical: Hypothetical | None = None
    example_privacy: ClientPrivacy | None = None
    """Differential privacy of each client's examples, by DP-SGD on the client."""
    policies: str | None = None
    """A folder with one TOML file a region: what may leave it (`federated/policy.py`)."""
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
            self._check_noise(self.noise)
        elif self.epsilon is not None or self.hypothetical is not None:
            raise ValueError(
                "epsilon and hypothetical are of noise, but `noise` is unset; "
                'set noise = {kind = "gaussian"}, or example_privacy.epsilon'
            )
        if self.noise is not None or isinstance(self.channel, Secure):
            self._check_bound()
        elif self.weight_cap is not None:
            raise ValueError(
                "weight_cap is of noise and secure sums, but there are neither; remove it"
            )
        if self.example_privacy is not None:
            self._check_example_privacy()

    def _check_bound(self) -> None:
        if not any(isinstance(stage, Clip | AdaptiveClip) for stage in self.stages):
            raise ValueError(
                "noise and secure sums need a finite bound, but `stages` has none; "
                'add {kind = "clip", max_norm = 1.0} to stages'
            )
        if self.weights != "uniform" and self.weight_cap is None:
            raise ValueError(
                "weights by example count leave the noised or secure sum unbounded; "
                'set weights = "uniform" or a weight_cap'
            )

    def _check_noise(self, noise: Noise) -> None:
        if noise.multiplier is None and self.epsilon is None:
            raise ValueError("expected noise.multiplier, epsilon or both, got neither")
        if not isinstance(noise, Local) and self.sampling == "fixed":
            raise ValueError(
                "epsilon is accounted for cohorts that are Poisson-sampled or known beforehand; "
                'set sampling = "poisson" or "cyclic"'
            )
        if isinstance(noise, Tree | Banded) and self.sampling != "cyclic":
            raise ValueError(
                "noise that is correlated over rounds is for cohorts that are not chosen at random; "
                'set sampling = "cyclic"'
            )
        if isinstance(noise, Distributed) and not isinstance(self.channel, Secure):
            raise ValueError(
                "distributed noise protects a sum alone, but a plain channel shows each update; "
                'set channel = {kind = "secure"}'
            )
        if isinstance(noise, Distributed) and self.sampling == "poisson" and self._may_miss():
            raise ValueError(
                "distributed noise makes up for those who may be missing, and so would tell how many "
                'were chosen at random; set sampling = "cyclic", or dropouts and colluders to 0'
            )
        if isinstance(noise, Distributed) and self.accountant != "rdp":
            raise ValueError(
                'discrete noise is accounted by Renyi divergence; set accountant = "rdp"'
            )
        if self.hypothetical is not None and (
            not isinstance(noise, Gaussian) or self.sampling != "poisson"
        ):
            raise ValueError(
                'hypothetical is for noise = {kind = "gaussian"} with sampling = "poisson"'
            )

    def _may_miss(self) -> bool:
        channel = self.channel
        return isinstance(channel, Secure) and channel.dropouts + channel.colluders > 0

    def _check_example_privacy(self) -> None:
        if self.noise is not None:
            raise ValueError("expected noise or example_privacy, got both; a run keeps one promise")
        if self.weights != "uniform":
            raise ValueError(
                'weights by example count tell what a client has; set weights = "uniform"'
            )
