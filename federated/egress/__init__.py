"""What leaves a region: held to its policy, counted, sealed for the server, opened there once."""

from federated.egress.desk import Books, Desk, open_desk
from federated.egress.gate import Gate, Passed, open_gate
from federated.egress.letters import About, Sealed
from federated.egress.rules import check_policies, contributing, large_enough

__all__ = [
    "About",
    "Books",
    "Desk",
    "Gate",
    "Passed",
    "Sealed",
    "check_policies",
    "contributing",
    "large_enough",
    "open_desk",
    "open_gate",
]
