"""Secure aggregation: the server learns the sum of the clients' vectors, and of none by itself."""

from federated.secure.encode import Encoding, fixed_point
from federated.secure.graph import Shape, choose_shape
from federated.secure.messages import AbortError, Context
from federated.secure.plan import Plan, make_plan
from federated.secure.session import Outcome, simulate_round

__all__ = [
    "AbortError",
    "Context",
    "Encoding",
    "Outcome",
    "Plan",
    "Shape",
    "choose_shape",
    "fixed_point",
    "make_plan",
    "simulate_round",
]
