"""Drawing of the values in `plots/values.py`, one function per kind of figure. `figures.py` calls it."""
