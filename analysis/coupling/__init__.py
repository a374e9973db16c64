"""Coupling of backbone and optimizer: cells that fail, and the interaction among the others."""
