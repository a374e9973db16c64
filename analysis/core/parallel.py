"""Work that consists of independent parts, spread over the cores."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager
from multiprocessing import forkserver
from multiprocessing.context import ForkServerContext, ForkServerProcess
from pathlib import Path
from typing import Any, TypeVar

from bocb_tune.core.progress import say

CHUNKS = 8
"""Portions in which a worker receives its parts: several, so that all workers finish at nearly the same time."""
Part = TypeVar("Part")
Result = TypeVar("Result")


def workers() -> int:
    """Return the number of processes that work is spread over."""
    return os.cpu_count() or 1


def warm_up() -> None:
    """Start to import, in the background, what other processes will need."""
    if workers() > 1:
        forkserver.set_forkserver_preload(["bocb_tune.analysis.report.preload"])
        with _same_package():
            forkserver.ensure_running()


@contextmanager
def _same_package() -> Iterator[None]:
    """Let new processes import this package from where it is, not another one from the folder they start in."""
    root = str(Path(__file__).absolute().parents[3])
    ours = {"PYTHONSAFEPATH": "1", "PYTHONPATH": os.pathsep.join(filter(None, (root, os.environ.get("PYTHONPATH"))))}
    before = {name: os.environ.get(name) for name in ours}
    os.environ.update(ours)
    try:
        yield
    finally:
        for name, value in before.items():
            os.environ.pop(name)
            os.environ.update({name: value} if value is not None else {})


class _Process(ForkServerProcess):
    """A process that does not run the caller's script again.

    `multiprocessing` has each new process import the `__main__` of its parent. Nothing here is defined there, and a
    script that calls the analysis without `if __name__ == "__main__":`, or is read from a pipe, would break it.
    """

    @staticmethod
    def _Popen(process_obj: Any) -> Any:
        main = vars(sys.modules["__main__"])
        kept: dict[str, Any] = {name: main.pop(name) for name in ("__spec__", "__file__") if name in main}
        try:
            main["__spec__"] = None
            return ForkServerProcess._Popen(process_obj)
        finally:
            main.update(kept)


class _Context(ForkServerContext):
    Process = _Process


def pool(size: int) -> ProcessPoolExecutor:
    """Start processes to hand work to; functions, arguments and results must be picklable."""
    warm_up()
    return ProcessPoolExecutor(size, mp_context=_Context())


def spread(work: Callable[[Part], Result], parts: Sequence[Part], *, fewest: int) -> list[Result]:
    """Run `work` on each part and return the results in order; function, parts and results must be picklable.

    Fewer parts than `fewest` are done in this process, before others would have started.
    """
    size = min(workers(), len(parts))
    if len(parts) < fewest or size < 2:
        return list(_counted(map(work, parts), len(parts)))
    with pool(size) as others:
        results = others.map(work, parts, chunksize=max(1, len(parts) // (CHUNKS * size)))
        return list(_counted(results, len(parts)))


def _counted(results: Iterator[Result], total: int) -> Iterator[Result]:
    """Pass results on and report how many there are so far."""
    for done, result in enumerate(results, start=1):
        say(f"cell {done} of {total}")
        yield result
