"""Attendance of a worker group: which of its ranks have joined, and since when it has been in the state it is in."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from enum import StrEnum
from typing import Any


class Condition(StrEnum):
    """Condition of a worker group."""

    starting = "starting"
    """Its ranks have not joined yet: they start, or wait for room."""
    ready = "ready"
    """All ranks have joined."""
    restarting = "restarting"
    """It had been ready, lost a rank, and is started again."""


@dataclass(frozen=True, slots=True, kw_only=True)
class GroupState:
    """Condition of a worker group, and what led to it."""

    condition: Condition
    since: float
    """Seconds since 1970."""
    why: str = ""
    """Cause of a restart."""
    nodes: frozenset[str] = frozenset()
    """Ids of the nodes that its ranks are on."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Arrival:
    """A rank that has come to the door of its group."""

    group: str
    """Name of this start of the group: every restart has another."""
    rank: int
    address: str
    """HOST:PORT at which rank 0 waits for the others; empty for them."""
    node: str
    """Id of the rank's node."""
    problem: str
    """Reason why this rank cannot serve; empty if it can."""
    handle: Any
    """Ray's handle of the rank's process."""


class Roll:
    """Roll of the ranks of one worker group, through its restarts."""

    def __init__(self, size: int, clock: Callable[[], float] = time.time) -> None:
        self.state = GroupState(condition=Condition.starting, since=clock())
        self.problem = ""
        """Reason why the group cannot serve, of whichever rank found it."""
        self.lost_starts = 0
        """Starts in a row that were lost; one is that of a group that had been ready."""
        self._size = size
        self._clock = clock
        self._ranks: dict[int, Arrival] = {}
        self._news = asyncio.Condition()

    @property
    def is_ready(self) -> bool:
        return self.state.condition == Condition.ready

    @property
    def handles(self) -> list[Any]:
        """Handles of the ranks that have joined."""
        return [arrival.handle for arrival in self._ranks.values()]

    async def join(self, arrival: Arrival) -> str | None:
        """Wait until all ranks of this start of the group are there.

        Returns:
            The address of rank 0; None if a rank has a problem, so that all go home.
        """
        async with self._news:
            if any(other.group != arrival.group for other in self._ranks.values()):
                self._ranks.clear()  # those of the start before, which are dead
            self._ranks[arrival.rank] = arrival
            if len(self._ranks) == self._size:
                self._complete()
            self._news.notify_all()
            await self._news.wait_for(lambda: len(self._ranks) == self._size)
        return None if self.problem else self._ranks[0].address

    def _complete(self) -> None:
        arrivals = self._ranks.values()
        self.problem = next((arrival.problem for arrival in arrivals if arrival.problem), "")
        nodes = frozenset(arrival.node for arrival in arrivals)
        self.state = GroupState(condition=Condition.ready, since=self._clock(), nodes=nodes)
        self.lost_starts = 0

    def lose(self, why: str) -> None:
        """Hear that the group has lost a rank, and is started again."""
        self.lost_starts += 1
        if self.is_ready:
            self.state = GroupState(condition=Condition.restarting, since=self._clock(), why=why)
        elif self.state.condition == Condition.starting:
            self.state = replace(self.state, why=why)
