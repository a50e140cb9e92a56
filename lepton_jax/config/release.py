"""What happens to an update on its way from a client to the model."""

from typing import Annotated

from msgspec import Meta, Struct

from lepton_jax.config.kinds import STRICT, Count, Fraction, Positive


class Clip(Struct, tag_field="kind", tag="clip", **STRICT):
    """Scales a client's update down to this L2 norm where it is longer."""

    max_norm: Positive


class AdaptiveClip(Struct, tag_field="kind", tag="adaptive_clip", **STRICT):
    """Clips to a norm that follows a quantile of the clients' norms (Andrew et al., 2021)."""

    initial: Positive = 0.1
    """The norm of the first round."""
    quantile: Annotated[float, Meta(gt=0, lt=1)] = 0.5
    """The fraction of clients that are to stay below the norm."""
    learning_rate: Positive = 0.2
    """Of the norm's logarithm."""
    share: Annotated[float, Meta(gt=0, lt=1)] = 0.1
    """The part of a client's L2 bound that tells whether it stayed below; its noise is theirs too."""


class Rotate(Struct, tag_field="kind", tag="rotate", **STRICT):
    """Spreads an update evenly over its coordinates, by a random Hadamard rotation."""


Stage = Clip | AdaptiveClip | Rotate


class Gaussian(Struct, tag_field="kind", tag="gaussian", **STRICT):
    """Normal noise that the server adds to the sum of a round's updates."""

    multiplier: Positive | None = None
    """Deviation over the L2 bound of one client's share; unset: what `epsilon` needs."""


class Tree(Struct, tag_field="kind", tag="tree", **STRICT):
    """DP-FTRL: noise on the sums over a binary tree of rounds (Kairouz et al., 2021)."""

    multiplier: Positive | None = None


class Banded(Struct, tag_field="kind", tag="banded", **STRICT):
    """DP-FTRL: noise correlated over a band of rounds (Kalinin and Lampert, 2024)."""

    multiplier: Positive | None = None
    bands: Annotated[int, Meta(ge=2)] = 8


class Local(Struct, tag_field="kind", tag="local", **STRICT):
    """Normal noise that each client adds to its own update: the server need not be trusted."""

    multiplier: Positive | None = None


class Distributed(Struct, tag_field="kind", tag="distributed", **STRICT):
    """Discrete normal noise, a part by each client, summed securely (Kairouz et al., 2021)."""

    multiplier: Positive | None = None


Noise = Gaussian | Tree | Banded | Local | Distributed


class Plain(Struct, tag_field="kind", tag="plain", **STRICT):
    """The server adds up what each client sends."""


class Secure(Struct, tag_field="kind", tag="secure", **STRICT):
    """Secure aggregation (Bonawitz et al., 2017): the server learns the sum alone."""

    dropouts: Fraction = 0.0
    """The fraction of a round's clients that may drop out; so many do, at random stages."""
    colluders: Fraction = 0.0
    """The fraction that may collude with the server."""


Channel = Plain | Secure


class Hypothetical(Struct, **STRICT):
    """A larger federation that the noise is meant for; every epsilon is then called hypothetical."""

    clients: Count
    clients_per_round: Count

    def __post_init__(self) -> None:
        if self.clients_per_round > self.clients:
            raise ValueError(
                f"expected clients_per_round <= clients ({self.clients}), got {self.clients_per_round}"
            )
