"""What a phone model says of itself, as Android's and MediaPipe's task libraries read it."""

from lepton_jax.export.metadata.content import Image, Metadata, image_of
from lepton_jax.export.metadata.model_card import model_card
from lepton_jax.export.metadata.read import read
from lepton_jax.export.metadata.write import describe

__all__ = ["Image", "Metadata", "describe", "image_of", "model_card", "read"]
