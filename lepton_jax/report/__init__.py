"""Pages that tell what a run did: self-contained HTML and PNG plots, made from run folders."""

from lepton_jax.report.write import report

__all__ = ["report"]
