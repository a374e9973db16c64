"""Progress of a long piece of work: those who do it report it, whoever shows it listens. Nobody does by default."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

_listeners: list[Callable[[str], None]] = []


def say(text: str) -> None:
    """Tell the listener, if there is one, what is being done, such as `cell 3 of 20`."""
    if _listeners:
        _listeners[-1](text)


@contextmanager
def heard_by(listener: Callable[[str], None]) -> Iterator[None]:
    """Have `listener` told what is said within the context, in place of the listener before it."""
    _listeners.append(listener)
    try:
        yield
    finally:
        _listeners.pop()
