"""Settings of the whole session."""

from __future__ import annotations

import gc


def pytest_configure() -> None:
    """Look for no garbage while thousands of tests are imported, which are kept: two fifths of that time."""
    gc.disable()


def pytest_collection_finish() -> None:
    """Leave out what is kept whenever garbage is looked for."""
    gc.freeze()
    gc.enable()
