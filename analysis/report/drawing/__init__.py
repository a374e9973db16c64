"""Draws the values of `plots/values.py`: one function a kind of figure. `figures.py` is the door."""
