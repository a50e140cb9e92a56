"""One runner a peer: a script for that peer's own environment; all but `lepton` know nothing of lepton-jax."""
