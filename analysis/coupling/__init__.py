"""Coupling of backbone and optimizer: which cells fail, and what interaction there is among the others."""
