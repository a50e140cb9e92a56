"""A phone model by region and client: rows that somebody else drew, and how they are served."""

from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Float, Int

from lepton_jax.data import Examples
from lepton_jax.export.answers import answers
from lepton_jax.export.gates import Gate, judge_groups
from lepton_jax.export.verify import GroupAgreement, by_group

# Of a variant, those that come from what clients hold; where a gate is meant, it is by its name.
FIGURES = ("groups", "gates.regions", "gates.clients")


class Groups(NamedTuple):
    """Whose examples are whose.

    Attributes:
      data: what the rows are: `holdout` or `training` examples of clients.
      examples: all of them together.
      regions: rows by region.
      clients: rows by client.
    """

    data: str
    examples: Examples
    regions: dict[str, Int[np.ndarray, "_"]]
    clients: dict[str, Int[np.ndarray, "_"]]


def compare_groups(
    variant: str, model: bytes, groups: Groups, logits: Float[np.ndarray, "N K"]
) -> tuple[dict[str, Any], tuple[Gate, ...]]:
    """Compares a phone model with JAX by region and client.

    Args:
      variant: its name.
      model: the content of the .tflite file.
      groups: with at least one example.
      logits: what JAX gives the examples.

    Returns:
      `data`; `regions`: the fields of `GroupAgreement` by region; `clients`: how many were
      compared; `worst_region` and `worst_client`: the `name` of the one that loses most, with its
      fields; None where there is none. And the gates `regions` and `clients`, as far as there are
      groups.
    """
    chosen = answers(model, np.asarray(groups.examples.images)).choices
    told = {
        name: by_group(groups.examples.labels, logits.argmax(axis=-1), chosen, rows)
        for name, rows in (("regions", groups.regions), ("clients", groups.clients))
    }
    figures = {
        "data": groups.data,
        "regions": {name: each._asdict() for name, each in told["regions"].items()},
        "clients": len(told["clients"]),
        "worst_region": _worst(told["regions"]),
        "worst_client": _worst(told["clients"]),
    }
    return figures, tuple(judge_groups(name, variant, own) for name, own in told.items() if own)


def _worst(groups: dict[str, GroupAgreement]) -> dict[str, Any] | None:
    if not groups:
        return None
    name = max(groups, key=lambda each: groups[each].loss)
    return {"name": name, **groups[name]._asdict()}
