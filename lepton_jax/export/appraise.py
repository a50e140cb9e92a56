"""All figures of one phone model, as export.json holds them, and the gates it must pass."""

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Float

from lepton_jax.data import Examples
from lepton_jax.export.facts import Facts
from lepton_jax.export.gates import Gate, judge
from lepton_jax.export.groups import Groups, compare_groups
from lepton_jax.export.pareto import Point, front
from lepton_jax.export.profile import profile
from lepton_jax.export.verify import Agreement


class Reference(NamedTuple):
    """What phone models are held against.

    Attributes:
      facts: of the JAX function that was converted.
      test: the images and labels of the comparison.
      logits: what JAX gives those images.
      groups: examples by region and client, of a federated run.
      group_logits: what JAX gives those.
    """

    facts: Facts
    test: Examples
    logits: Float[np.ndarray, "N K"]
    groups: Groups | None = None
    group_logits: Float[np.ndarray, "M K"] | None = None


def appraise(variant: str, model: bytes, found: Agreement, against: Reference) -> dict[str, Any]:
    """Measures a phone model and judges it.

    Args:
      variant: its name.
      model: the content of the .tflite file.
      found: how it compares with JAX, measured before its file said so.
      against: the same for all variants.

    Returns:
      `name`, `file`; the fields of `Agreement`; `gates`: the fields of each `Gate`;
      `within_tolerance`: whether all of them were passed; `overridden`: whether it is kept all the
      same, False so far; `groups`: as `compare_groups` gives it, None where there are none; `phone`:
      as `profile` gives it.
    """
    found = found._replace(bytes=len(model))
    gates = judge(variant, model, found, against.facts)
    groups = None
    if (
        against.groups is not None
        and against.group_logits is not None
        and len(against.group_logits)
    ):
        groups, more = compare_groups(variant, model, against.groups, against.group_logits)
        gates = (*gates, *more)
    return {
        "name": variant,
        "file": f"{variant}.tflite",
        **found._asdict(),
        "within_tolerance": all(gate.passed for gate in gates),
        "gates": [gate._asdict() for gate in gates],
        "overridden": False,
        "groups": groups,
        "phone": profile(model),
    }


def gates_of(figures: dict[str, Any]) -> tuple[Gate, ...]:
    """The gates in a variant's figures."""
    return tuple(Gate(**each) for each in figures["gates"])


def settle(variants: Sequence[dict[str, Any]], *, override: bool) -> list[dict[str, Any]]:
    """The same figures with what only all of them together tell.

    Args:
      variants: as `appraise` gives them.
      override: whether models that fail a gate are kept.

    Returns:
      Each with `pareto`: whether no other variant beats it in size, latency and accuracy;
      `overridden`: whether it was kept in spite of its gates.
    """
    fastest: dict[tuple, float] = {}
    for each in variants:
        median, same = each["latency_ms"]["median"], _same(each)
        fastest[same] = min(median, fastest.get(same, median))
    points = [Point(each["bytes"], fastest[_same(each)], each["accuracy"]) for each in variants]
    return [
        {**each, "pareto": marked, "overridden": override and not each["within_tolerance"]}
        for each, marked in zip(variants, front(points), strict=True)
    ]


def _same(figures: dict[str, Any]) -> tuple:
    """What is alike where times alone differ, as of int8 and an int8-qat that won nothing."""
    return tuple(figures[key] for key in ("bytes", "max_abs_diff", "top1_agreement", "accuracy"))
