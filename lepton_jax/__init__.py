"""lepton-jax: functional vision models in JAX, trained centrally or federated, exported to phones."""

__version__ = "0.1.0"
