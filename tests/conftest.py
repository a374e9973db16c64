"""Which tests share a process when they are spread over several."""

from __future__ import annotations

import pytest


@pytest.hookimpl(tryfirst=True)  # before the names of groups are read
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Keep each file's tests together, and all that start Ray, which come first: one cluster at a time."""
    starts_ray = {item: item.get_closest_marker("ray") is not None for item in items}
    for item in items:
        item.add_marker(pytest.mark.xdist_group("ray" if starts_ray[item] else str(item.path)))
    items.sort(key=lambda item: not starts_ray[item])
