"""So many run, so many wait in line, the rest is told when to come back; who leaves the line leaves nothing behind."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gateway.admission import Slots
from gateway.errors import DeadlineExceeded, Overloaded


class Clock:
    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


class Runner:
    """One that asks for a slot and, once it has it, keeps it until told to end."""

    def __init__(self, slots: Slots, number: int, log: list[int]) -> None:
        self.number = number
        self.running = asyncio.Event()
        self.end = asyncio.Event()
        self.task = asyncio.create_task(self._run(slots, log))

    async def _run(self, slots: Slots, log: list[int]) -> None:
        async with slots.slot():
            log.append(self.number)
            self.running.set()
            await self.end.wait()

    async def finish(self) -> None:
        self.end.set()
        await self.task


async def settled() -> None:
    """Until nothing but this has anything to do: a step of the loop per hand-over, and some."""
    for _ in range(12):
        await asyncio.sleep(0)


def made(running: int, waiting: int, clock: Callable[[], float] | None = None) -> Slots:
    return Slots(running, waiting, clock=clock or Clock())


async def test_no_more_than_the_limit_run_and_the_rest_wait_in_order() -> None:
    slots, log = made(2, 10), list[int]()
    runners = [Runner(slots, number, log) for number in range(5)]
    await settled()
    assert (log, slots.running, slots.waiting) == ([0, 1], 2, 3)
    await runners[1].finish()
    await runners[2].running.wait()
    assert (log, slots.running, slots.waiting) == ([0, 1, 2], 2, 2)
    for runner in (runners[0], *runners[2:]):
        await runner.finish()
    assert (log, slots.running, slots.waiting) == ([0, 1, 2, 3, 4], 0, 0)


async def test_a_newcomer_does_not_overtake_the_one_a_slot_was_just_handed_to() -> None:
    slots, log = made(1, 10), list[int]()
    first, second = Runner(slots, 1, log), Runner(slots, 2, log)
    await settled()
    first.end.set()
    await first.task  # the slot is on its way to the second
    third = Runner(slots, 3, log)
    await settled()
    assert log == [1, 2]
    await second.finish()
    await third.finish()
    assert log == [1, 2, 3]


async def test_past_the_queue_a_caller_is_told_when_to_come_back() -> None:
    clock = Clock()
    slots, log = made(1, 1, clock), list[int]()
    first, second = Runner(slots, 1, log), Runner(slots, 2, log)
    await settled()
    with pytest.raises(Overloaded) as caught:
        async with slots.slot():
            pass
    assert caught.value.retry_after_s > 0
    assert (slots.running, slots.waiting) == (1, 1)
    clock.now += 60.0  # runs of a minute
    await first.finish()
    await second.running.wait()
    third = Runner(slots, 3, log)
    await settled()
    with pytest.raises(Overloaded) as later:
        async with slots.slot():
            pass
    assert later.value.retry_after_s > caught.value.retry_after_s
    await second.finish()
    await third.finish()


async def test_that_there_is_no_room_is_known_before_anything_is_done() -> None:
    clock = Clock()
    slots, log = made(1, 2, clock), list[int]()
    runners = []
    for number in range(3):
        assert not slots.full
        runners.append(Runner(slots, number, log))
        await settled()
    assert slots.full
    with pytest.raises(Overloaded) as refused:
        async with slots.slot():
            pass
    assert slots.overloaded().retry_after_s == refused.value.retry_after_s
    runners[1].task.cancel()
    await settled()
    assert not slots.full
    for runner in (runners[0], runners[2]):
        await runner.finish()
    clock.now += 1.0
    async with slots.slot():
        assert slots.overloaded().retry_after_s < refused.value.retry_after_s  # nobody waits any more


async def test_where_nobody_may_wait_there_is_no_room_once_all_run() -> None:
    slots = made(1, 0)
    assert not slots.full
    async with slots.slot():
        assert slots.full
    assert not slots.full


async def test_what_was_admitted_before_waits_in_line_though_the_queue_is_full() -> None:
    slots, log = made(1, 1), list[int]()
    first, second = Runner(slots, 1, log), Runner(slots, 2, log)
    await settled()

    async def next_step() -> None:
        async with slots.slot(admitted=True):
            log.append(3)

    step = asyncio.create_task(next_step())
    await settled()
    assert (log, slots.waiting) == ([1], 2)
    await first.finish()
    await second.running.wait()
    assert log == [1, 3, 2]
    await second.finish()
    await step
    assert (slots.running, slots.waiting) == (0, 0)


async def test_a_waiter_that_is_cancelled_leaves_the_line_at_once() -> None:
    slots, log = made(1, 2), list[int]()
    first, second, third = (Runner(slots, number, log) for number in (1, 2, 3))
    await settled()
    second.task.cancel()
    await asyncio.gather(second.task, return_exceptions=True)
    assert slots.waiting == 1
    await first.finish()
    await third.running.wait()
    await third.finish()
    assert (log, slots.running, slots.waiting) == ([1, 3], 0, 0)


async def test_a_waiter_cancelled_in_the_step_that_frees_a_slot_is_cancelled_and_the_next_runs() -> None:
    """The slot is freed between the cancelling of a waiter and the moment it learns of that."""
    slots, log = made(1, 5), list[int]()
    inside = slots.slot()
    await inside.__aenter__()
    second, third = Runner(slots, 2, log), Runner(slots, 3, log)
    await settled()
    second.task.cancel()
    await inside.__aexit__(None, None, None)
    (outcome,) = await asyncio.gather(second.task, return_exceptions=True)
    assert isinstance(outcome, asyncio.CancelledError)
    await third.running.wait()
    await third.finish()
    assert (log, slots.running, slots.waiting) == ([3], 0, 0)


async def test_a_waiter_cancelled_after_it_was_given_a_slot_passes_it_on() -> None:
    slots, log = made(1, 5), list[int]()
    inside = slots.slot()
    await inside.__aenter__()
    second, third = Runner(slots, 2, log), Runner(slots, 3, log)
    await settled()
    await inside.__aexit__(None, None, None)
    second.task.cancel()
    (outcome,) = await asyncio.gather(second.task, return_exceptions=True)
    assert isinstance(outcome, asyncio.CancelledError)
    await third.running.wait()
    await third.finish()
    assert (log, slots.running, slots.waiting) == ([3], 0, 0)


async def test_a_run_that_fails_gives_its_slot_back() -> None:
    slots = made(1, 0)
    for _ in range(3):
        with pytest.raises(ZeroDivisionError):
            async with slots.slot():
                raise ZeroDivisionError
    assert slots.running == 0


WHAT = st.sampled_from(["come", "come", "finish", "cancel"])
STEPS = st.lists(st.tuples(WHAT, st.integers(0, 5), st.booleans()), max_size=30)


@settings(deadline=None)
@given(limit=st.integers(1, 3), waiting=st.integers(0, 4), steps=STEPS)
def test_whatever_happens_the_limit_holds_the_order_is_kept_and_no_slot_is_lost(
    limit: int, waiting: int, steps: list[tuple[str, int, bool]]
) -> None:
    """`steps`: what happens, to whom, and whether the loop gets to run before the next."""

    async def story() -> None:
        slots, log = made(limit, waiting), list[int]()
        runners: list[Runner] = []
        for what, who, pause in steps:
            here = [runner for runner in runners if not runner.task.done()]
            if what == "come":
                runners.append(Runner(slots, len(runners), log))
            elif here and what == "finish":
                here[who % len(here)].end.set()
            elif here:
                here[who % len(here)].task.cancel()
            if pause:
                await settled()
            assert slots.running <= limit
            assert slots.waiting <= waiting
        for runner in runners:
            runner.end.set()
        outcomes = await asyncio.gather(*(runner.task for runner in runners), return_exceptions=True)
        assert all(outcome is None or isinstance(outcome, Overloaded | asyncio.CancelledError) for outcome in outcomes)
        if limit == 1:  # with more, one who owns a slot already may wake after a newcomer who found another free
            assert log == sorted(log), "first come, first served"
        assert (slots.running, slots.waiting) == (0, 0)

    asyncio.run(story())


async def test_runs_that_go_together_share_a_slot() -> None:
    slots, ends = made(2, 10), [asyncio.Event() for _ in range(8)]
    log: list[int] = []

    async def run(number: int, at_once: int) -> None:
        async with slots.slot(at_once=at_once):
            log.append(number)
            await ends[number].wait()

    tasks = [asyncio.create_task(run(number, at_once)) for number, at_once in enumerate((4, 4, 4, 4, 1, 1, 4))]
    await settled()
    assert log == [0, 1, 2, 3, 4]  # four in one slot, one in the other; the next in line needs a whole one
    assert (slots.running, slots.waiting) == (5, 2)
    ends[0].set()
    await settled()
    assert log == [0, 1, 2, 3, 4]  # a quarter is free, but whoever would fit may not overtake
    ends[4].set()
    await settled()
    assert log == [0, 1, 2, 3, 4, 5, 6]
    for end in ends:
        end.set()
    await asyncio.gather(*tasks)
    assert (slots.running, slots.waiting) == (0, 0)


async def test_who_leaves_the_line_lets_those_behind_pass() -> None:
    slots = made(1, 10)
    async with slots.slot(at_once=2):
        large = asyncio.create_task(enter(slots, 1))
        await settled()
        small = asyncio.create_task(enter(slots, 2))
        await settled()
        assert slots.waiting == 2
        large.cancel()
        await settled()
        assert (slots.waiting, small.done()) == (0, True)


async def enter(slots: Slots, at_once: int) -> None:
    async with slots.slot(at_once=at_once):
        pass


async def test_a_deadline_that_would_pass_in_line_is_told_at_once() -> None:
    clock = Clock()
    slots = made(1, 10, clock)
    async with slots.slot():
        with pytest.raises(DeadlineExceeded, match="would pass"):
            async with slots.slot(deadline=clock.now + 1e-3):
                pass
        assert slots.waiting == 0


async def test_a_deadline_that_passed_in_line_is_no_run() -> None:
    clock = Clock()
    slots, ran = made(1, 10, clock), False

    async def late() -> None:
        nonlocal ran
        async with slots.slot(deadline=10.0):
            ran = True

    async with slots.slot():
        task = asyncio.create_task(late())
        await settled()
        assert slots.waiting == 1
        clock.now = 11.0
    with pytest.raises(DeadlineExceeded, match="passed"):
        await task
    assert not ran
    assert (slots.running, slots.waiting) == (0, 0)


async def test_what_has_begun_goes_on_before_anything_new_begins() -> None:
    slots, order = made(1, 10), list[str]()

    async def step(name: str, admitted: bool) -> None:
        async with slots.slot(admitted=admitted):
            order.append(name)

    async with slots.slot():
        tasks = [
            asyncio.create_task(step(name, name.startswith("next"))) for name in ("new", "next", "newer", "next one")
        ]
        await settled()
        assert slots.waiting == 4
        left = asyncio.create_task(step("next that leaves", True))
        await settled()
        left.cancel()
        await settled()
        assert slots.waiting == 4
    await asyncio.gather(*tasks)
    assert order == ["next", "next one", "new", "newer"]
    assert (slots.running, slots.waiting) == (0, 0)
