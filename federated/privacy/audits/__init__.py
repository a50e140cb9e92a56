"""Attacks on our own runs: gates by valid lower bounds on epsilon, and estimates called estimates."""

from federated.privacy.audits.audit import audit

__all__ = ["audit"]
