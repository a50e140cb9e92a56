"""From a config's noise to the noise."""

from federated.privacy.client_noise import distributed, local
from federated.privacy.ftrl import banded, tree
from federated.privacy.noise import Noise, gaussian
from federated.sampling import Sampler
from lepton_jax import config
from lepton_jax.privacy.terms import Terms


def make_noise(federated: config.Federated, terms: Terms, sampler: Sampler) -> Noise | None:
    """The noise that keeps a promise; None where it is not of clients.

    Noise that is meant for a larger, hypothetical cohort is as much smaller as this one is: the mean
    is then as noisy as it would be there.

    Args:
      federated: names the noise, the channel and the cohorts.
      terms: with the noise multiplier.
      sampler: the run's.
    """
    expected, most = federated.clients_per_round, federated.clients
    multiplier, length = terms.noise_multiplier, sampler.pass_length or 1
    match federated.noise, federated.channel:
        case None, _:
            return None
        case config.Gaussian(), _:
            meant = federated.hypothetical or federated
            return gaussian(multiplier * expected / meant.clients_per_round, expected, most)
        case config.Tree(), _:
            return tree(multiplier, expected, length, most)
        case config.Banded(bands=bands), _:
            return banded(multiplier, expected, length, bands, most)
        case config.Local(), _:
            return local(multiplier, expected, most)
        case config.Distributed(), config.Secure() as channel:
            return distributed(multiplier, expected, channel, most)
    raise ValueError(f"no noise is made of {federated.noise}")
