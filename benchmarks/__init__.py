"""Speed and memory of lepton-jax beside its peers, measured in turns within one run."""
