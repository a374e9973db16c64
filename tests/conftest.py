"""Which tests share a process when they are spread over several."""

from __future__ import annotations

import re
from functools import cache
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).parents[1]
STARTS_RAY = re.compile(r"^pytestmark = \[?pytest\.mark\.ray", re.MULTILINE)


@cache
def starts_ray(file: str) -> bool:
    """Tell whether all tests of a file, named from the root, start Ray."""
    return STARTS_RAY.search((ROOT / file).read_text(encoding="utf-8")) is not None


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Put the tests that start Ray first: they take longest, and one process has them all."""
    items.sort(key=lambda item: not starts_ray(item.nodeid.split("::")[0]))


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> Any:
    """Keep each file in one process, and all files that start Ray in one: one cluster at a time."""
    from xdist.scheduler import LoadScopeScheduling

    class ByFile(LoadScopeScheduling):
        def _split_scope(self, nodeid: str) -> str:
            file = nodeid.split("::")[0]
            return "ray" if starts_ray(file) else file

    return ByFile(config, log)
