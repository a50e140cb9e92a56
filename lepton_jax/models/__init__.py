"""Image classifiers behind `Classifier`; the only importer of flax."""

from lepton_jax.models.build import build, build_in, check_learner, learner
from lepton_jax.models.presets import Description, describe, names
from lepton_jax.models.summary import Row, Summary, summary

__all__ = [
    "Description",
    "Row",
    "Summary",
    "build",
    "build_in",
    "check_learner",
    "describe",
    "learner",
    "names",
    "summary",
]
