"""Differential privacy: how much a mechanism reveals, and the noise that it draws."""
