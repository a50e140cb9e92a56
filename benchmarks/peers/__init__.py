"""One runner a peer: a script for that peer's own environment; all but `lepton` and `secure` know nothing of lepton-jax."""
