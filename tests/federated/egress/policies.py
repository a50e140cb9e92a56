"""Policies for tests."""

from typing import Any

from federated.policy import Policy


def a_policy(region: str = "asia", **changes: Any) -> Policy:
    """One that lets each client's update out from a cohort of 3, and two figures."""
    fields: dict[str, Any] = {
        "region": region,
        "language": "en",
        "outputs": ("update", "figures"),
        "cross_border": "updates",
        "metrics": ("loss", "accuracy"),
        "minimum_cohort": 3,
        "retention_days": 30,
    }
    return Policy(**{**fields, **changes})


def silent(region: str = "asia", **changes: Any) -> Policy:
    """One that lets no update out."""
    none: dict[str, Any] = {"outputs": ("figures",), "cross_border": "none"}
    return a_policy(region, **{**none, **changes})
