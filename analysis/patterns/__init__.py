"""Patterns in the weights of kept checkpoints."""
