"""Versions and machine that made a result."""

from __future__ import annotations

import importlib.metadata
import platform
from collections.abc import Iterator

from bocb_tune.core.version import VERSION

PACKAGES = ("torch", "timm", "ray", "optuna", "numpy")


def provenance() -> dict[str, str]:
    """Name the machine, and the versions of what is installed of PACKAGES."""
    here = {"host": platform.node(), "python": platform.python_version(), "bocb-tune": VERSION}
    return {**here, **dict(_versions())}


def _versions() -> Iterator[tuple[str, str]]:
    for package in PACKAGES:
        try:
            yield package, importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:  # training alone needs neither Ray nor Optuna
            continue
