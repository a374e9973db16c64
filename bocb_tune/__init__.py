"""bocb-tune: how sensitive a vision backbone and its optimizer are to their hyperparameters."""

__version__ = "0.1.0"
