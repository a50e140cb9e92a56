"""The privacy card: all that a reader needs to judge a run's claim, in one file.

Its fields are those by which NIST SP 800-226 (2025, "Guidelines for Evaluating Differential Privacy
Guarantees") asks to judge such a claim, and those of model cards (Mitchell et al., 2019).
"""

import math
from typing import Any, Literal

from msgspec import Struct

from lepton_jax.config import Accountant, Adjacency, Randomness
from lepton_jax.privacy.terms import Mechanism, Sampler, Terms

UNBOUNDED: Literal["unbounded"] = "unbounded"
FORMAT: Literal[1] = 1
NOT_FOR_RELEASE = "reproducible randomness: not for release"
HYPOTHETICAL = "hypothetical: every epsilon is that of a larger federation"

_STRICT = {"frozen": True, "forbid_unknown_fields": True, "kw_only": True}


class Subject(Struct, **_STRICT):
    """The model that the card is of."""

    run: str
    kind: Literal["train", "simulate"]
    architecture: str
    data: str
    library: str
    config_sha256: str
    params_sha256: str
    intended_use: str
    not_intended: str


class Guarantee(Struct, **_STRICT):
    """What is promised to whom; `releases` counts every one ever charged, those of killed tries too."""

    definition: str
    unit: Literal["client", "example"]
    adjacency: Adjacency
    neighbours: str
    epsilon: float | Literal["unbounded"]
    epsilon_is: Literal["proven", "hypothetical"]
    delta: float
    budget: float | None
    releases: int
    covers: tuple[str, ...]


class Making(Struct, **_STRICT):
    """How the promise is kept."""

    mechanism: Mechanism
    noise_multiplier: float
    clip_norm: float
    sampler: Sampler
    sampling_rate: float | None
    pass_length: int | None
    bands: int | None
    randomness: Randomness


class Accounting(Struct, **_STRICT):
    """By what epsilon is told."""

    accountant: Accountant
    version: str


class SecureAggregation(Struct, **_STRICT):
    """The fractions of a round's clients that may drop out, and that may collude with the server."""

    dropouts: float
    colluders: float


class Trust(Struct, **_STRICT):
    """Who has to be trusted."""

    model: Literal["central", "central, sums by secure aggregation", "distributed", "local"]
    statement: str
    secure_aggregation: SecureAggregation | None


class Evidence(Struct, **_STRICT):
    """The ledger that the card tells of: the hash of its last entry then, and whose key signs both."""

    head: str
    public_key: str


class RegionUtility(Struct, **_STRICT):
    """How well the model serves a region; None of no examples, and of what its policy withholds."""

    region: str
    clients: int
    examples: int | None
    accuracy: float | None


class Utility(Struct, **_STRICT):
    """How well the model serves whom. Measured on raw data: epsilon does not cover these figures."""

    test_accuracy: float | None
    test_examples: int
    regions: tuple[RegionUtility, ...]


class Card(Struct, **_STRICT):
    """A run's privacy card."""

    format: Literal[1]
    stamps: tuple[str, ...]
    model: Subject
    guarantee: Guarantee
    making: Making
    accounting: Accounting
    trust: Trust
    ledger: Evidence
    audits: tuple[dict[str, Any], ...]
    utility: Utility
    hazards_not_addressed: tuple[str, ...]
    not_private: tuple[str, ...]


def guarantee(terms: Terms, epsilon: float, releases: int) -> Guarantee:
    """What the terms promise after so many releases.

    Args:
      terms: of the run.
      epsilon: that of the releases; infinity and NaN are no bound.
      releases: how many were charged.
    """
    whose = "all of a client's examples" if terms.unit == "client" else "one training example"
    difference = (
        f"with or without {whose}"
        if terms.adjacency == "add-remove"
        else f"{whose} replaced by any other"
    )
    return Guarantee(
        definition="(epsilon, delta)-differential privacy (Dwork et al., 2006)",
        unit=terms.unit,
        adjacency=terms.adjacency,
        neighbours=difference,
        epsilon=epsilon if math.isfinite(epsilon) else UNBOUNDED,
        epsilon_is="hypothetical" if terms.hypothetical else "proven",
        delta=terms.delta,
        budget=terms.budget,
        releases=releases,
        covers=terms.covers,
    )


def making(terms: Terms) -> Making:
    """How the terms are kept."""
    return Making(**{name: getattr(terms, name) for name in Making.__struct_fields__})


def trust(terms: Terms) -> Trust:
    """Whom the terms trust."""
    secure = None
    if terms.dropouts is not None:
        secure = SecureAggregation(dropouts=terms.dropouts, colluders=terms.colluders or 0.0)
    if terms.mechanism in ("local", "distributed"):
        return Trust(model=terms.mechanism, statement=terms.trust, secure_aggregation=secure)
    model: Any = "central" if secure is None else "central, sums by secure aggregation"
    return Trust(model=model, statement=terms.trust, secure_aggregation=secure)


def stamps(terms: Terms) -> tuple[str, ...]:
    """What has to be seen before any figure."""
    reproducible = [NOT_FOR_RELEASE] if terms.randomness == "reproducible" else []
    return (*reproducible, *([HYPOTHETICAL] if terms.hypothetical else []))


def hazards(terms: Terms) -> tuple[str, ...]:
    """What may reveal more than epsilon says, and isn't prevented here."""
    several = "clients" if terms.unit == "client" else "examples"
    return (
        *_of_randomness(terms),
        *_of_trust(terms),
        *_of_sampling(terms),
        "Earlier and later runs on the same data, such as those that chose the config: epsilons add "
        "up.",
        f"Whoever owns several {several}, or whose {several} resemble those of others: a group of k "
        "has up to k times epsilon.",
        "Conclusions about everybody: what holds of a population is learned whether or not one "
        "takes part.",
        "Uneven utility: clipping and noise cost rare classes and small regions the most; see the "
        "figures by region.",
        "Validation and test examples, and whatever was chosen by their figures.",
        "Timing, memory and other side channels of the machines that trained.",
        "Access to the raw data, to the run folder and to the memory of the process: keep others out.",
    )


def _of_randomness(terms: Terms) -> list[str]:
    said = []
    if terms.randomness == "reproducible":
        said.append(
            "Noise and selection from the run's seed, by generators that are no cryptographic ones "
            "and in floating point: whoever knows or guesses the seed takes the noise off."
        )
    if terms.hypothetical:
        said.append(
            "A simulated federation smaller than the one that the noise is meant for: with these "
            "data as they are, epsilon would be larger."
        )
    return said


def _of_trust(terms: Terms) -> list[str]:
    if terms.mechanism == "distributed":
        return ["More dropouts or colluders than the fractions named here, which weaken the noise."]
    if terms.unit == "example" or terms.mechanism == "local":
        return ["Whoever trains, who sees the examples themselves."]
    if terms.dropouts is not None:
        return ["The server, which sees each round's sum before its noise."]
    return ["The server, which sees each client's update before the noise."]


def _of_sampling(terms: Terms) -> list[str]:
    if terms.sampler == "poisson":
        return [f"Who knows which {terms.unit}s took part in a release: that is to stay secret."]
    return []
