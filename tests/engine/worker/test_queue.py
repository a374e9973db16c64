"""The mailbox between the driver and a worker group, driven without Ray: nothing lost, nothing waited for in vain."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Coroutine
from typing import Any

import pytest

from bocb_tune.engine.worker import MAX_ATTEMPTS, queue
from bocb_tune.engine.worker.queue import Mailbox

Scenario = Callable[[Mailbox], Coroutine[Any, Any, None]]
COMPLETED = {"kind": "completed"}


@pytest.fixture(autouse=True)
def _no_batching(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(queue, "BATCH_S", 0.01)


def play(scenario: Scenario) -> None:
    async def played() -> None:
        await asyncio.wait_for(scenario(Mailbox()), 10)

    asyncio.run(played())


def order(trial: str, seen: int = 0) -> dict[str, Any]:
    return {"id": trial, "trial": {}, "seen": seen, "divisor": 1, "patience_s": 600.0}


def epoch(budget: int) -> dict[str, Any]:
    return {"budget": budget, "metrics": {"score": 50.0}, "elapsed_s": 1.0}


async def waits(task: asyncio.Task[Any]) -> bool:
    """Whether a task has nothing to do but wait."""
    for _ in range(20):
        await asyncio.sleep(0)
    return not task.done()


async def serve(mailbox: Mailbox, trial: str = "a", seen: int = 0) -> None:
    """A trial is submitted and taken by the group."""
    await mailbox.submit(order(trial, seen))
    assert await mailbox.next_trial() == order(trial, seen)


def kinds(items: list[queue.Item]) -> list[Any]:
    return [item.get("kind") for item in items]


async def at_once(answer: Awaitable[Any]) -> Any:
    return await asyncio.wait_for(answer, 5)


@pytest.mark.parametrize("verdict", ["go", "stop"])
def test_a_rung_waits_for_its_verdict_and_other_epochs_do_not(verdict: str) -> None:
    async def scenario(mailbox: Mailbox) -> None:
        await serve(mailbox)
        assert await at_once(mailbox.report("a", epoch(1), competes=False)) == "go"
        rung = asyncio.create_task(mailbox.report("a", epoch(2), competes=True))
        assert await waits(rung)
        await mailbox.decide("a", 1, "stop")  # of another rung: not this one's
        assert await waits(rung)
        await mailbox.decide("a", 2, verdict)
        assert await at_once(rung) == verdict

    play(scenario)


def test_what_was_seen_before_is_neither_said_again_nor_waited_for() -> None:
    async def scenario(mailbox: Mailbox) -> None:
        await serve(mailbox, seen=2)
        for budget in (1, 2):
            assert await at_once(mailbox.report("a", epoch(budget), competes=True)) == "go"
        assert await at_once(mailbox.report("a", epoch(3), competes=False)) == "go"
        assert [item["measurement"]["budget"] for item in await mailbox.take("a", 0)] == [3]

    play(scenario)


def test_a_group_that_died_at_a_rung_still_gets_its_verdict() -> None:
    async def scenario(mailbox: Mailbox) -> None:
        await serve(mailbox)
        lost = asyncio.create_task(mailbox.report("a", epoch(1), competes=True))
        assert await waits(lost)
        lost.cancel()
        assert await at_once(mailbox.next_trial()) == order("a")
        again = asyncio.create_task(mailbox.report("a", epoch(1), competes=True))
        assert await waits(again)
        await mailbox.decide("a", 1, "stop")
        assert await at_once(again) == "stop"
        assert kinds(await mailbox.take("a", 0)) == ["measured", "restarted"]

    play(scenario)


def test_a_verdict_given_while_the_group_was_down_is_kept() -> None:
    async def scenario(mailbox: Mailbox) -> None:
        await serve(mailbox)
        lost = asyncio.create_task(mailbox.report("a", epoch(1), competes=True))
        assert await waits(lost)
        lost.cancel()
        await mailbox.decide("a", 1, "stop")
        await mailbox.next_trial()
        assert await at_once(mailbox.report("a", epoch(1), competes=True)) == "stop"

    play(scenario)


def test_a_group_started_again_is_served_the_trial_in_flight_until_it_is_at_fault() -> None:
    async def scenario(mailbox: Mailbox) -> None:
        await serve(mailbox)
        await mailbox.submit(order("b"))
        for _ in range(MAX_ATTEMPTS - 1):
            assert await at_once(mailbox.next_trial()) == order("a")
        listening = asyncio.create_task(mailbox.take("b", 0))
        assert await at_once(mailbox.next_trial()) == order("b")
        assert await waits(listening)
        listening.cancel()

    play(scenario)


def test_the_third_death_over_one_trial_is_its_outcome() -> None:
    async def scenario(mailbox: Mailbox) -> None:
        await serve(mailbox)
        for _ in range(MAX_ATTEMPTS - 1):
            await mailbox.next_trial()
        idle = asyncio.create_task(mailbox.next_trial())
        assert await waits(idle)
        *before, last = await mailbox.take("a", 0)
        assert kinds(before) == ["restarted"] * (MAX_ATTEMPTS - 1)
        assert last == {"kind": "failed", "message": "a worker died 3 times while it trained this trial", "final": True}
        await mailbox.submit(order("b"))
        assert await at_once(idle) == order("b")
        assert await at_once(mailbox.next_trial()) == order("b")  # its count begins anew

    play(scenario)


def test_an_order_of_nothing_sends_the_group_home() -> None:
    async def scenario(mailbox: Mailbox) -> None:
        await mailbox.submit(None)
        assert await at_once(mailbox.next_trial()) is None

    play(scenario)


def test_leaving_ends_the_epoch_in_flight_even_at_a_rung() -> None:
    async def scenario(mailbox: Mailbox) -> None:
        await serve(mailbox)
        rung = asyncio.create_task(mailbox.report("a", epoch(1), competes=True))
        assert await waits(rung)
        await mailbox.interrupt()
        assert await at_once(rung) == "leave"
        assert await at_once(mailbox.report("a", epoch(2), competes=False)) == "leave"
        await mailbox.end("a", {"kind": "left"})
        assert kinds(await mailbox.take("a", 0)) == ["measured", "measured", "left"]

    play(scenario)


def test_leaving_gives_back_a_trial_that_nobody_has_taken() -> None:
    async def scenario(mailbox: Mailbox) -> None:
        await mailbox.submit(order("a"))
        await mailbox.interrupt()
        assert kinds(await at_once(mailbox.take("a", 0))) == ["left"]
        idle = asyncio.create_task(mailbox.next_trial())
        assert await waits(idle)
        await mailbox.submit(None)
        assert await at_once(idle) is None

    play(scenario)


def test_another_listener_hears_everything_again() -> None:
    async def scenario(mailbox: Mailbox) -> None:
        await serve(mailbox)
        await mailbox.report("a", epoch(1), competes=False)
        first = await mailbox.take("a", 0)
        await mailbox.report("a", epoch(2), competes=False)
        await mailbox.end("a", COMPLETED)
        rest = await mailbox.take("a", len(first))
        assert kinds(first + rest) == ["measured", "measured", "completed"]
        assert await mailbox.take("a", 0) == first + rest

    play(scenario)


def test_what_was_said_is_kept_until_another_trial_is_submitted() -> None:
    async def scenario(mailbox: Mailbox) -> None:
        await serve(mailbox)
        await mailbox.end("a", {"kind": "failed", "message": "once"})
        await serve(mailbox)  # the same trial, tried again
        await mailbox.end("a", COMPLETED)
        assert kinds(await mailbox.take("a", 0)) == ["failed", "completed"]
        await mailbox.submit(order("b"))
        late = asyncio.create_task(mailbox.take("a", 0))
        assert await waits(late)
        late.cancel()

    play(scenario)


def test_the_late_end_of_another_trial_is_ignored() -> None:
    async def scenario(mailbox: Mailbox) -> None:
        await serve(mailbox)
        await mailbox.end("a", {"kind": "oom", "message": "rank 1"})
        await mailbox.end("a", {"kind": "failed", "message": "rank 0, because of rank 1"})
        assert kinds(await mailbox.take("a", 0)) == ["oom"]
        await serve(mailbox, "b")
        await mailbox.end("a", COMPLETED)
        await mailbox.report("b", epoch(1), competes=False)
        assert kinds(await mailbox.take("b", 0)) == ["measured"]
        assert await at_once(mailbox.next_trial()) == order("b")  # still in flight

    play(scenario)


def test_a_group_that_cannot_be_had_fails_what_was_and_what_will_be_submitted() -> None:
    lost = {"kind": "failed", "message": "no such resource", "final": True, "group_lost": True}

    async def scenario(mailbox: Mailbox) -> None:
        await mailbox.submit(order("a"))
        await mailbox.broken("no such resource")
        assert await at_once(mailbox.take("a", 0)) == [lost]
        await mailbox.submit(order("b"))
        assert await at_once(mailbox.take("b", 0)) == [lost]

    play(scenario)


@pytest.mark.parametrize(
    ("word", "is_urgent"),
    [({"kind": "measured", "competes": True}, True), ({"kind": "measured", "competes": False}, False)]
    + [({"kind": kind}, True) for kind in queue.ENDS]
    + [({"kind": "restarted"}, False)],
)
def test_what_calls_for_a_decision_is_heard_at_once_and_the_rest_may_gather(
    monkeypatch: pytest.MonkeyPatch, word: queue.Item, is_urgent: bool
) -> None:
    monkeypatch.setattr(queue, "BATCH_S", 30.0)

    async def scenario(mailbox: Mailbox) -> None:
        await mailbox.submit(order("a"))
        listening = asyncio.create_task(mailbox.take("a", 0))
        assert await waits(listening)
        await mailbox._say("a", word)
        assert await waits(listening) != is_urgent
        await mailbox._say("a", COMPLETED)
        assert (await at_once(listening))[0] == word

    play(scenario)


def test_a_group_is_silent_when_neither_step_nor_measurement_came_and_no_verdict_is_waited_for(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    now = 0.0
    monkeypatch.setattr(queue, "monotonic", lambda: now)

    async def scenario(mailbox: Mailbox) -> None:
        nonlocal now
        await mailbox.submit(order("a") | {"patience_s": 10.0})
        now += 10
        assert not mailbox.is_silent()
        now += 1
        assert mailbox.is_silent()  # nobody has taken the trial
        await mailbox.next_trial()
        now += 10
        assert not mailbox.is_silent()
        now += 1
        assert mailbox.is_silent()
        for sign in (mailbox.hear(), mailbox.report("a", epoch(1), competes=False)):
            await sign
            assert not mailbox.is_silent()
            now += 11
            assert mailbox.is_silent()
        rung = asyncio.create_task(mailbox.report("a", epoch(2), competes=True))
        assert await waits(rung)
        now += 11
        assert not mailbox.is_silent()
        await mailbox.decide("a", 2, "go")
        await at_once(rung)
        assert not mailbox.is_silent()
        await mailbox.end("a", COMPLETED)
        now += 11
        assert not mailbox.is_silent()

    play(scenario)


def test_the_third_hang_over_one_trial_is_its_outcome_and_says_so() -> None:
    async def scenario(mailbox: Mailbox) -> None:
        await serve(mailbox)
        for _ in range(MAX_ATTEMPTS - 1):
            mailbox.restarted("it was silent")
            await mailbox.next_trial()
        mailbox.restarted("it was silent")
        idle = asyncio.create_task(mailbox.next_trial())
        assert await waits(idle)
        *_, last = await mailbox.take("a", 0)
        assert last["message"] == "it was silent 3 times while it trained this trial"
        await mailbox.submit(order("b"))
        await at_once(idle)
        for _ in range(MAX_ATTEMPTS):
            ended = asyncio.create_task(mailbox.next_trial())
            assert await waits(ended) == (_ == MAX_ATTEMPTS - 1)
        *_, last = await mailbox.take("b", 0)
        assert last["message"].startswith("a worker died 3 times")  # the hang was another trial's

    play(scenario)


def test_a_trial_that_is_given_back_is_left_and_what_its_group_says_later_is_not_heard() -> None:
    async def scenario(mailbox: Mailbox) -> None:
        await serve(mailbox)
        rung = asyncio.create_task(mailbox.report("a", epoch(1), competes=True))
        assert await waits(rung)
        await mailbox.give_back()
        assert await at_once(rung) == "leave"
        assert await at_once(mailbox.report("a", epoch(2), competes=False)) == "leave"
        await mailbox.end("a", COMPLETED)
        assert kinds(await mailbox.take("a", 0)) == ["measured", "left"]
        await mailbox.submit(None)
        assert await at_once(mailbox.next_trial()) is None

    play(scenario)


def test_a_trial_that_was_left_is_heard_of_anew_by_whoever_takes_it_on_the_same_slot() -> None:
    async def scenario(mailbox: Mailbox) -> None:
        await serve(mailbox)
        await mailbox.end("a", {"kind": "left"})
        assert kinds(await at_once(mailbox.take("a", 0))) == ["left"]
        await serve(mailbox)
        assert await waits(asyncio.create_task(mailbox.take("a", 0)))
        await mailbox.end("a", {"kind": "failed", "message": "", "final": False})
        await mailbox.submit(order("a"))  # a retry: the same listener, which has heard of the failure
        assert await mailbox.next_trial() == order("a")
        assert kinds(await at_once(mailbox.take("a", 0))) == ["failed"]

    play(scenario)


def test_a_group_about_to_be_ended_says_so_hands_over_and_takes_nothing_more() -> None:
    async def scenario(mailbox: Mailbox) -> None:
        await serve(mailbox)
        assert not await mailbox.hear()
        await mailbox.hand_over()
        assert await mailbox.hear()
        rung = asyncio.create_task(mailbox.report("a", epoch(1), competes=True))
        assert await waits(rung)  # the verdict counts
        await mailbox.decide("a", 1, "stop")
        assert await at_once(rung) == "stop"
        assert await at_once(mailbox.report("a", epoch(2), competes=False)) == "leave"
        await mailbox.end("a", {"kind": "left"})
        await mailbox.submit(order("b"))
        assert kinds(await at_once(mailbox.take("b", 0))) == ["left"]

    play(scenario)
