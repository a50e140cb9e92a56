"""How examples are dealt to clients."""

from msgspec import Struct

from lepton_jax.config.kinds import STRICT, Count, NonNegative, Positive


class Iid(Struct, tag_field="kind", tag="iid", **STRICT):
    """Examples dealt at random; client sizes log-normal with this sigma (0: equal)."""

    size_sigma: NonNegative = 0.0


class Dirichlet(Struct, tag_field="kind", tag="dirichlet", **STRICT):
    """Each class spread over the clients by a draw from Dirichlet(alpha) (Hsu et al., 2019)."""

    alpha: Positive = 0.5
    min_examples: Count = 2


class LabelShards(Struct, tag_field="kind", tag="label_shards", **STRICT):
    """Sorted by label, cut into equal shards, a few of them a client (McMahan et al., 2017)."""

    shards_per_client: Count = 2


class ByRegion(Struct, tag_field="kind", tag="by_region", **STRICT):
    """First over the regions, then over each region's clients, IID with log-normal sizes.

    Where the data name a region for each example, that is the region; else classes are spread over
    the regions by Dirichlet(alpha).
    """

    alpha: Positive = 1.0
    size_sigma: NonNegative = 0.5


Partition = Iid | Dirichlet | LabelShards | ByRegion
