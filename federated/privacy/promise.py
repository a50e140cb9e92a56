"""What a federated run promises to each client or example, from its config: terms, and their price."""

import math
from collections.abc import Callable

import numpy as np

from federated.sampling import Sampler
from lepton_jax import config
from lepton_jax.privacy.accounting import accountant_version
from lepton_jax.privacy.promise import Promise, make_promise
from lepton_jax.privacy.terms import Mechanism, Terms

ROUND_FIGURES = ("clients", "examples", "train", "stages", "bytes_up", "bytes_down")
EVALUATION_FIGURES = ("clients", "regions", "client_percentiles")

_TRUST = {
    "plain": "the server, with each client's update as it leaves the client",
    "secure": "the server, with the sum of a round's updates before noise is added",
    "local": "nobody: noise is on each update before it leaves its client",
    "distributed": (
        "nobody with an update; the server knows who took part, so that against the server nothing "
        "is gained from sampling, and fewer may collude than the protocol allows for"
    ),
    "example": "each client, with its own examples",
}


def promise(federated: config.Federated, sampler: Sampler, clip_norm: float) -> Promise | None:
    """The guarantee that a config asks for; None where it asks for none.

    Args:
      federated: names noise, sampling, accountant and budget.
      sampler: the run's.
      clip_norm: the L2 bound of a client's share, in the units of the model's parameters.

    Raises:
      UserError: no noise keeps the budget, the terms can't be accounted for, or the extra `privacy`
        isn't installed.
    """
    if federated.example_privacy is not None:
        return _of_examples(federated, sampler, federated.example_privacy)
    if federated.noise is None:
        return None
    mechanism = _mechanism(federated.noise)
    local = mechanism == "local"
    secure = federated.channel if isinstance(federated.channel, config.Secure) else None
    terms = Terms(
        unit="client",
        adjacency="replace-one" if local else federated.adjacency,
        mechanism=mechanism,
        noise_multiplier=federated.noise.multiplier or 1.0,
        clip_norm=clip_norm,
        sampler=federated.sampling,
        sampling_rate=_rate(federated) if federated.sampling == "poisson" else None,
        pass_length=sampler.pass_length,
        bands=getattr(federated.noise, "bands", None),
        delta=federated.delta,
        budget=federated.epsilon,
        accountant=federated.accountant,
        accountant_version=accountant_version(),
        randomness=federated.randomness,
        trust=_TRUST[mechanism if mechanism in _TRUST else "secure" if secure else "plain"],
        hypothetical=federated.hypothetical is not None,
        dropouts=secure.dropouts if secure else None,
        colluders=secure.colluders if secure else None,
        covers=_covers(mechanism),
        not_private=_raw_figures(federated),
    )
    releases = _by_client(sampler, federated.rounds) if local else _by_round(sampler)
    return make_promise(terms, federated.noise.multiplier, releases, federated.rounds)


def _of_examples(
    federated: config.Federated, sampler: Sampler, privacy: config.ClientPrivacy
) -> Promise:
    """That of DP-SGD on the clients, where a round costs its client's steps."""
    steps = local_steps(federated.local_epochs, privacy.sampling_rate)
    by_client = _by_client(sampler, federated.rounds)
    terms = Terms(
        unit="example",
        adjacency=privacy.adjacency,
        mechanism="gaussian",
        noise_multiplier=privacy.noise_multiplier or 1.0,
        clip_norm=privacy.clip_norm,
        sampler="poisson",
        sampling_rate=privacy.sampling_rate,
        delta=privacy.delta,
        budget=privacy.epsilon,
        accountant=privacy.accountant,
        accountant_version=accountant_version(),
        randomness=privacy.randomness,
        trust=_TRUST["example"],
        covers=("each client's update", *_covers("gaussian")),
        not_private=_raw_figures(federated),
    )
    return make_promise(
        terms,
        privacy.noise_multiplier,
        lambda number, again: steps * by_client(number, again),
        federated.rounds,
    )


def _raw_figures(federated: config.Federated) -> tuple[str, ...]:
    """What is told without noise; how much left each region tells how many were chosen there."""
    counted = ("egress",) if federated.policies is not None else ()
    return (*ROUND_FIGURES, *counted, *EVALUATION_FIGURES)


def _by_round(sampler: Sampler) -> Callable[[int, bool], int]:
    """A round is one release; one done again may count its clients twice within a pass."""
    return lambda number, again: (sampler.pass_length or 1) if again else 1


def _by_client(sampler: Sampler, rounds: int) -> Callable[[int, bool], int]:
    """A round is a release where it raises how often the busiest client has taken part."""
    taken = np.zeros(sampler.clients, np.int64)
    most = [0]
    for number in range(1, rounds + 1):
        taken[sampler.sample(number)] += 1
        most.append(int(np.max(taken)))
    return lambda number, again: 1 if again else most[number] - most[number - 1]


def local_steps(epochs: int, sampling_rate: float) -> int:
    """The local steps of so many epochs, whatever a client holds.

    >>> local_steps(2, 0.3)
    8
    """
    return epochs * math.ceil(1 / sampling_rate)


def _rate(federated: config.Federated) -> float:
    meant = federated.hypothetical or federated
    return meant.clients_per_round / meant.clients


def _mechanism(noise: config.Noise) -> Mechanism:
    match noise:
        case config.Gaussian():
            return "gaussian"
        case config.Tree():
            return "tree"
        case config.Banded():
            return "banded"
        case config.Local():
            return "local"
        case config.Distributed():
            return "distributed"


def _covers(mechanism: Mechanism) -> tuple[str, ...]:
    kept = ", less the state of its noise" if mechanism in ("tree", "banded") else ""
    models = ("the model after each round", f"every checkpoint{kept}", "figures on the test split")
    return models if mechanism != "local" else ("each client's update", *models)
