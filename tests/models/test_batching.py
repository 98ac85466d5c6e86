"""Batches of like sizes, a short window, a bounded line that forgets who has left or is too late."""

from __future__ import annotations

import asyncio
import math
import threading
from collections.abc import AsyncIterator, Callable, Sequence
from concurrent.futures import ThreadPoolExecutor

import pytest

from models.batching import Batcher
from models.engine import ERRAND, Busy, EngineError, Errand, TooLate


class Clock:
    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


class Work:
    """Doubles numbers, batch by batch, once `go` is set."""

    def __init__(self) -> None:
        self.batches: list[list[int]] = []
        self.go = threading.Event()

    def __call__(self, items: Sequence[int]) -> list[int]:
        self.go.wait(30)
        self.batches.append(list(items))
        if 13 in items:
            raise ValueError("thirteen")
        return [2 * item for item in items]


class Rig:
    def __init__(self, pool: ThreadPoolExecutor) -> None:
        self.pool, self.work, self.clock = pool, Work(), Clock()

    def batcher(
        self,
        runners: int = 1,
        most: int = 4,
        waiting: int = 100,
        window_s: float = 0.0,
        bucket: Callable[[int], int] = lambda size: 0,
    ) -> Batcher[int, int]:
        return Batcher(
            self.work, self.pool, runners=runners, most=most, waiting=waiting, bucket=bucket, window_s=window_s,
            clock=self.clock,
        )  # fmt: skip


@pytest.fixture
async def rig() -> AsyncIterator[Rig]:
    with ThreadPoolExecutor(4) as pool:
        rig = Rig(pool)
        yield rig
        rig.work.go.set()


async def turn() -> None:
    """Until every task that can has taken its place in the line."""
    for _ in range(5):
        await asyncio.sleep(0)


def ask(batcher: Batcher[int, int], item: int, size: int = 10, deadline: float = math.inf) -> asyncio.Task[int]:
    async def errand() -> int:
        ERRAND.set(Errand(deadline))
        return await batcher.run(item, size)

    return asyncio.create_task(errand())


async def test_one_alone_does_not_wait_for_company(rig: Rig) -> None:
    rig.work.go.set()
    assert await ask(rig.batcher(window_s=3600.0), 1) == 2
    assert rig.work.batches == [[1]]


async def test_who_comes_meanwhile_goes_together_in_order(rig: Rig) -> None:
    batcher = rig.batcher(most=3)
    tasks = [ask(batcher, number) for number in range(6)]
    await turn()
    assert batcher.waiting == 5
    rig.work.go.set()
    assert await asyncio.gather(*tasks) == [0, 2, 4, 6, 8, 10]
    assert rig.work.batches == [[0], [1, 2, 3], [4, 5]]


async def test_like_goes_with_like_and_nobody_is_left_behind(rig: Rig) -> None:
    batcher = rig.batcher(bucket=lambda size: size // 10)
    tasks = [ask(batcher, number, size) for number, size in enumerate((5, 42, 12, 47, 19, 45))]
    await turn()
    rig.work.go.set()
    await asyncio.gather(*tasks)
    assert rig.work.batches == [[0], [1, 3, 5], [2, 4]]


async def test_with_company_the_first_waits_until_the_batch_is_full(rig: Rig) -> None:
    batcher = rig.batcher(runners=2, most=2, window_s=3600.0)
    first, second = ask(batcher, 1), ask(batcher, 2)
    await turn()
    assert batcher.waiting == 1  # a runner is free, but the other one works, so company is likely
    third = ask(batcher, 3)
    await turn()
    assert batcher.waiting == 0
    rig.work.go.set()
    assert await asyncio.gather(first, second, third) == [2, 4, 6]
    assert sorted(rig.work.batches) == [[1], [2, 3]]


async def test_the_window_ends(rig: Rig) -> None:
    rig.work.go.set()
    batcher = rig.batcher(runners=2, window_s=0.001)
    batcher._last = 5
    waits = ask(batcher, 1)
    await turn()
    rig.clock.now += 1.0
    assert await waits == 2


async def test_a_full_line_says_when_to_come_back(rig: Rig) -> None:
    batcher = rig.batcher(waiting=2)
    tasks = [ask(batcher, number) for number in range(3)]
    await turn()
    with pytest.raises(Busy) as told:
        await ask(batcher, 9)
    assert told.value.retry_after_s > 0
    rig.work.go.set()
    assert await asyncio.gather(*tasks) == [0, 2, 4]


async def test_the_cancelled_leave_before_they_run(rig: Rig) -> None:
    batcher = rig.batcher()
    tasks = [ask(batcher, number) for number in range(4)]
    await turn()
    tasks[2].cancel()
    await turn()
    assert batcher.waiting == 2
    rig.work.go.set()
    answers = await asyncio.gather(*tasks, return_exceptions=True)
    assert answers[:2] == [0, 2]
    assert isinstance(answers[2], asyncio.CancelledError)
    assert rig.work.batches == [[0], [1, 3]]


async def test_who_is_cancelled_while_it_runs_takes_nobody_along(rig: Rig) -> None:
    batcher = rig.batcher(runners=1)
    first = ask(batcher, 0)
    rest = [ask(batcher, number) for number in (1, 2)]
    await turn()
    first.cancel()
    await turn()
    rig.work.go.set()
    assert await asyncio.gather(*rest) == [2, 4]


async def test_the_late_are_told_and_do_not_run(rig: Rig) -> None:
    batcher = rig.batcher()
    first, late, other = ask(batcher, 0), ask(batcher, 1, deadline=101.0), ask(batcher, 2)
    await turn()
    rig.clock.now = 102.0
    rig.work.go.set()
    with pytest.raises(TooLate, match="passed"):
        await late
    assert await asyncio.gather(first, other) == [0, 4]
    assert rig.work.batches == [[0], [2]]
    with pytest.raises(TooLate):
        await ask(batcher, 3, deadline=101.0)


async def test_who_would_be_late_is_told_at_once(rig: Rig) -> None:
    batcher = rig.batcher()
    first = ask(batcher, 0, size=10)
    await turn()
    rig.clock.now += 5.0  # half a second for each unit of size
    rig.work.go.set()
    await first
    rig.work.go.clear()
    running = ask(batcher, 1, size=10)
    await turn()
    with pytest.raises(TooLate, match="would pass"):
        await ask(batcher, 2, deadline=rig.clock.now + 4.0)
    in_time = ask(batcher, 3, deadline=rig.clock.now + 6.0)
    await turn()
    rig.work.go.set()
    assert await asyncio.gather(running, in_time) == [2, 6]


async def test_a_failed_batch_fails_for_those_in_it_alone(rig: Rig) -> None:
    batcher = rig.batcher(most=2)
    tasks = [ask(batcher, number) for number in (0, 12, 13, 14)]
    await turn()
    rig.work.go.set()
    answers = await asyncio.gather(*tasks, return_exceptions=True)
    assert [answers[0], answers[3]] == [0, 28]
    assert {str(answer) for answer in answers[1:3]} == {"thirteen"}


async def test_a_run_is_charged_its_share_and_not_its_wait(rig: Rig) -> None:
    batcher = rig.batcher()
    errands = [Errand() for _ in range(3)]

    async def run(number: int) -> int:
        ERRAND.set(errands[number])
        return await batcher.run(number, (10, 10, 30)[number])

    tasks = [asyncio.create_task(run(number)) for number in range(3)]
    await turn()
    rig.clock.now += 8.0
    rig.work.go.set()
    await asyncio.gather(*tasks)
    # All arrived at 0; the first ran from 0 to 8, alone; the others waited for that, and ran in no time.
    assert [errand.waited_s for errand in errands] == [0.0, 8.0, 8.0]


async def test_a_stopped_executor_is_an_error_and_no_hang(rig: Rig) -> None:
    pool = ThreadPoolExecutor(1)
    batcher = Batcher[int, int](rig.work, pool, runners=1, most=4, waiting=9, bucket=lambda size: 0)
    rig.work.go.set()
    assert await ask(batcher, 1) == 2
    pool.shutdown()
    with pytest.raises((EngineError, RuntimeError)):
        await ask(batcher, 2)
