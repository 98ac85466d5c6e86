"""GETs of one moment travel together: alone while few are under way, else as one MGET for all that wait.

A command through redis-py costs some 60 us of this process, a key more in an MGET 5, so a burst of look-ups that would
overrun its deadline one by one is answered in a few round trips. On a Cluster an MGET would have to be split by slot.
"""

from __future__ import annotations

import asyncio
from collections import deque

from cache_tiers.link import RedisLink, Unavailable

LANES = 4
"""Commands under way at a time; beyond that look-ups wait for the next one to leave."""
MOST = 32
"""Keys in one command: few enough that a value does not wait long for those before it."""


class BatchedGets:
    def __init__(self, link: RedisLink) -> None:
        self._link = link
        self._under_way = 0
        self._waiting: deque[tuple[str, asyncio.Future[bytes | None]]] = deque()
        self._tasks: set[asyncio.Task[None]] = set()

    async def get(self, name: str) -> bytes | None:
        """Raises Unavailable, within the deadline of the link."""
        if self._under_way < LANES:
            self._under_way += 1
            try:
                value: bytes | None = await self._link.call("GET", name)
                return value
            finally:
                self._landed()
        future: asyncio.Future[bytes | None] = asyncio.get_running_loop().create_future()
        self._waiting.append((name, future))
        try:
            async with asyncio.timeout(self._link.deadline):
                return await future
        except TimeoutError:
            raise Unavailable("too many look-ups wait for Redis") from None

    def _landed(self) -> None:
        self._under_way -= 1
        batch: list[tuple[str, asyncio.Future[bytes | None]]] = []
        while self._waiting and len(batch) < MOST:
            name, future = self._waiting.popleft()
            if not future.done():  # its caller has given up
                batch.append((name, future))
        if batch:
            self._under_way += 1
            task = asyncio.create_task(self._fly(batch))
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)

    async def _fly(self, batch: list[tuple[str, asyncio.Future[bytes | None]]]) -> None:
        try:
            values = await self._link.call("MGET", *(name for name, _ in batch))
            for (_, future), value in zip(batch, values, strict=True):
                if not future.done():
                    future.set_result(value)
        except Exception as error:
            for _, future in batch:
                if not future.done():
                    future.set_exception(error)
        finally:
            self._landed()
