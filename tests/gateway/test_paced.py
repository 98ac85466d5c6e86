"""Work asked for often is done now and then."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine

import pytest

from gateway.paced import Paced


@pytest.fixture
def tasks() -> set[asyncio.Task[None]]:
    return set()


def paced_in(tasks: set[asyncio.Task[None]], every_s: float) -> Paced:
    def spawn(work: Coroutine[None, None, None]) -> None:
        tasks.add(asyncio.get_running_loop().create_task(work))

    return Paced(spawn, every_s)


async def test_what_is_asked_for_while_it_waits_is_done_once(tasks: set[asyncio.Task[None]]) -> None:
    paced, done = paced_in(tasks, 3600.0), list[str]()

    async def one() -> None:
        done.append("one")

    async def other() -> None:
        done.append("other")

    for _ in range(3):
        paced.ask("one", one)
        paced.ask("other", other)
    await asyncio.sleep(0)
    assert not done
    paced.end()
    await asyncio.gather(*tasks)
    assert sorted(done) == ["one", "other"]
    paced.ask("one", one)  # now it waits no more
    await asyncio.gather(*tasks)
    assert sorted(done) == ["one", "one", "other"]


async def test_what_is_asked_for_while_it_is_done_is_done_again(tasks: set[asyncio.Task[None]]) -> None:
    paced, begun, go_on = paced_in(tasks, 0.0), asyncio.Semaphore(0), asyncio.Event()

    async def work() -> None:
        begun.release()
        await go_on.wait()

    paced.ask("one", work)
    await begun.acquire()
    paced.ask("one", work)
    await begun.acquire()
    go_on.set()
    await asyncio.gather(*tasks)
    assert len(tasks) == 2
