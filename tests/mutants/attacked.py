"""The audit that mutants have to pass and must not: `python -m tests.mutants.attacked clients`."""

import sys

from federated.privacy.audits.mechanisms import Mechanism, of_clients, of_examples
from federated.privacy.audits.noise import Deviation, noise_audit
from federated.privacy.audits.step import Verdict, step_audit
from lepton_jax import config

_EXAMPLES = config.Privacy(noise_multiplier=1.5, clip_norm=0.3, randomness="reproducible")
_CLIENTS = config.Federated(
    clients_per_round=9,
    sampling="poisson",
    weights="uniform",
    stages=(config.Clip(max_norm=0.2),),
    noise=config.Gaussian(multiplier=0.8),
    randomness="reproducible",
)


def mechanism(kind: str) -> Mechanism:
    """What is attacked."""
    if kind == "examples":
        return of_examples(_EXAMPLES, 1.5, batch_size=32, numbers=64)
    return of_clients(config.Run(federated=_CLIENTS), numbers=64)


def failed(kind: str) -> list[str]:
    """The gates that it fails; of a correct one none, but in one of 50 seeds."""
    one = mechanism(kind)
    gates: list[Verdict | Deviation] = [
        *step_audit(one, delta=1e-5, trials=1024),
        *noise_audit(one, trials=256),
    ]
    return [gate.name for gate in gates if not gate.passed]


if __name__ == "__main__":
    print(*failed(sys.argv[1]), sep="\n")
