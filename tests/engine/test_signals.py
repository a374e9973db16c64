"""Signals that ask a run to stop. No Ray: only what is done about them."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Iterator
from types import SimpleNamespace

import pytest

from bocb_tune.engine import run
from bocb_tune.engine.run import Watcher, _interruptible


class Ended(BaseException):
    """Stands for the end of the process."""


class Slots:
    """Counts how often they were told to leave."""

    def __init__(self) -> None:
        self.told = 0

    def interrupt(self) -> None:
        self.told += 1


@pytest.fixture(autouse=True)
def _survive(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    def end(code: int) -> None:
        raise Ended(code)

    monkeypatch.setattr(os, "_exit", end)
    monkeypatch.setattr(run, "PAIR_S", 0.5)
    before = signal.signal(signal.SIGHUP, signal.SIG_DFL)
    yield
    signal.signal(signal.SIGHUP, before)


def send(*signals: signal.Signals) -> None:
    for number in signals:
        os.kill(os.getpid(), number)


STOPPING = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


@pytest.mark.parametrize("second", STOPPING)
@pytest.mark.parametrize("first", STOPPING)
def test_a_pair_of_signals_is_one_and_a_later_one_ends_at_once(first: signal.Signals, second: signal.Signals) -> None:
    search, slots = SimpleNamespace(leaving=False), Slots()
    with _interruptible(search, slots, Watcher()):  # type: ignore[arg-type]
        send(first, second, first)
        assert (search.leaving, slots.told) == (True, 1)
        time.sleep(run.PAIR_S)
        with pytest.raises(Ended, match="130"):
            send(second)


def test_a_run_under_nohup_outlives_its_terminal() -> None:
    signal.signal(signal.SIGHUP, signal.SIG_IGN)
    search, slots = SimpleNamespace(leaving=False), Slots()
    with _interruptible(search, slots, Watcher()):  # type: ignore[arg-type]
        send(signal.SIGHUP)
    assert (search.leaving, slots.told) == (False, 0)
