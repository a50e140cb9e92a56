"""Federated learning: clients keep their data, and only updates travel."""

from federated.aggregate import aggregate
from federated.algorithms import fed_avg, rounds
from federated.channel import plain
from federated.client import local_update
from federated.devices import simulate_on_devices
from federated.evaluate import evaluate_run
from federated.over import make_over
from federated.privacy.client_noise import distributed, local
from federated.privacy.ftrl import banded, tree
from federated.privacy.noise import gaussian
from federated.sampling import Cohort, cohort, make_sampler
from federated.shards import partition
from federated.simulate import simulate
from federated.stages import adaptive_clip, chain, clip, rotate

__all__ = [
    "Cohort",
    "adaptive_clip",
    "aggregate",
    "banded",
    "chain",
    "clip",
    "cohort",
    "distributed",
    "evaluate_run",
    "fed_avg",
    "gaussian",
    "local",
    "local_update",
    "make_over",
    "make_sampler",
    "partition",
    "plain",
    "rotate",
    "rounds",
    "simulate",
    "simulate_on_devices",
    "tree",
]
