"""Rounds of tiny clients, played: what the tests of noise and of sums made elsewhere share."""

import jax
import optax

from federated.aggregate import Aggregator, Report
from federated.algorithms import FederatedAlgorithm, ServerState, fed_avg, rounds
from federated.client import local_update
from federated.over import Kind, make_over
from federated.sampling import Cohort
from lepton_jax.privacy.entropy import Source, seeded_source
from lepton_jax.typing import Variables
from tests.federated import tiny

MODEL = tiny.make_model()
KEY = jax.random.key(7)
CLIENT = local_update(MODEL, lambda round: optax.sgd(0.5), tiny.LOSS, augment=tiny.as_floats)


def make(aggregator: Aggregator, over: Kind = "scan") -> FederatedAlgorithm:
    return fed_avg(CLIENT, optax.sgd(1.0), aggregator, make_over(over))


def lay(*ids: int, slots: int = 4) -> Cohort:
    return tiny.make_cohort(9, 2, 5, 7, ids=list(ids), slots=slots)


def begin() -> Variables:
    return MODEL.init(jax.random.key(0))


def sources(number: int) -> Source:
    return seeded_source(7, number)


def play(algorithm: FederatedAlgorithm, *cohorts: Cohort) -> tuple[ServerState, Report]:
    start = algorithm.init(begin())
    *_, (_, state, report) = rounds(algorithm, start, cohorts, KEY, sources)
    return jax.device_get((state, report))
