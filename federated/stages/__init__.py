"""What happens to one client's update before it leaves: Optax' grammar, for federated updates."""

from federated.stages.adaptive_clip import adaptive_clip
from federated.stages.clip import clip
from federated.stages.make import make_stage
from federated.stages.rotate import rotate
from federated.stages.stage import Stage, chain

__all__ = ["Stage", "adaptive_clip", "chain", "clip", "make_stage", "rotate"]
