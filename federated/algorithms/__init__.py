"""Federated algorithms: each is a state and one compiled program that takes it through a round."""

from federated.algorithms.fedavg import FederatedAlgorithm, ServerState, fed_avg, rounds

__all__ = ["FederatedAlgorithm", "ServerState", "fed_avg", "rounds"]
