"""Who has joined a worker group, through its restarts. No Ray."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

import pytest

from bocb_tune.engine.worker.roll import Arrival, Condition, Roll


def arrival(rank: int, group: str = "first", problem: str = "") -> Arrival:
    address = f"{group}:1" if rank == 0 else ""
    return Arrival(group=group, rank=rank, address=address, node=f"n{rank}", problem=problem, handle=(group, rank))


def play(scenario: Callable[[Roll], Awaitable[Any]]) -> None:
    async def played() -> None:
        await asyncio.wait_for(scenario(Roll(2)), 10)  # type: ignore[arg-type]

    asyncio.run(played())


async def joins(roll: Roll, *arrivals: Arrival) -> list[str | None]:
    return list(await asyncio.gather(*(roll.join(each) for each in arrivals)))


async def stands_at_the_door(roll: Roll, one: Arrival) -> asyncio.Task[str | None]:
    task = asyncio.create_task(roll.join(one))
    for _ in range(20):
        await asyncio.sleep(0)
    assert not task.done()
    return task


@pytest.mark.parametrize("first", [0, 1])
def test_a_group_is_ready_when_all_its_ranks_have_joined(first: int) -> None:
    async def scenario(roll: Roll) -> None:
        waiting = await stands_at_the_door(roll, arrival(first))
        assert roll.state.condition == Condition.starting
        assert await joins(roll, arrival(1 - first)) == ["first:1"]
        assert await waiting == "first:1"
        assert (roll.state.condition, roll.state.nodes) == (Condition.ready, {"n0", "n1"})

    play(scenario)


def test_a_group_that_lost_a_rank_is_ready_again_when_all_ranks_of_its_next_start_have_joined() -> None:
    async def scenario(roll: Roll) -> None:
        await joins(roll, arrival(0), arrival(1))
        for why in ("killed", "the rest follows"):
            roll.lose(why)
            assert (roll.state.condition, roll.state.why) == (Condition.restarting, "killed")
        later = await stands_at_the_door(roll, arrival(1, "second"))  # not with rank 0 of the first start
        assert roll.state.condition == Condition.restarting
        assert await joins(roll, arrival(0, "second")) == ["second:1"]
        assert await later == "second:1"
        assert roll.state.condition == Condition.ready
        assert sorted(roll.handles) == [("second", 0), ("second", 1)]

    play(scenario)


def test_a_group_that_never_was_ready_is_not_said_to_start_again() -> None:
    async def scenario(roll: Roll) -> None:
        roll.lose("killed")
        assert (roll.state.condition, roll.state.why) == (Condition.starting, "killed")

    play(scenario)


def test_starts_that_are_lost_in_a_row_are_counted() -> None:
    async def scenario(roll: Roll) -> None:
        for lost in (1, 2):
            roll.lose("no module")
            assert roll.lost_starts == lost
        await joins(roll, arrival(0), arrival(1))
        roll.lose("killed")
        assert roll.lost_starts == 1

    play(scenario)


def test_all_ranks_go_home_when_one_cannot_serve() -> None:
    async def scenario(roll: Roll) -> None:
        assert await joins(roll, arrival(0), arrival(1, problem="no such folder")) == [None, None]
        assert roll.problem == "no such folder"

    play(scenario)
