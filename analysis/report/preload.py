"""Modules that other processes need, imported once by the server that they are forked from."""

import os

try:
    from bocb_tune.analysis.cell import modelling
    from bocb_tune.analysis.report import figures
    from bocb_tune.analysis.sources import load
except KeyboardInterrupt:  # Ctrl-C reaches this process too; the command itself prints the message
    os._exit(130)

__all__ = ["figures", "load", "modelling"]
