"""From a config's stage to the stage."""

from federated.stages.adaptive_clip import adaptive_clip
from federated.stages.clip import clip
from federated.stages.rotate import rotate
from federated.stages.stage import Stage
from lepton_jax import config


def make_stage(settings: config.Stage, seed: int = 0) -> Stage:
    """A config's stage; the seed is that of the run, and fixes a rotation."""
    match settings:
        case config.Clip(max_norm=max_norm):
            return clip(max_norm)
        case config.AdaptiveClip():
            return adaptive_clip(settings)
        case config.Rotate():
            return rotate(seed)
