"""GETs of one moment travel together: alone while few are under way, else as one MGET for all that wait.

A command through redis-py costs some 60 us of this process, a key more in an MGET 5, so a burst of look-ups that would
overrun its deadline one by one is answered in a few round trips. In a Cluster each server has its own lanes, so that
one that hangs holds up nobody else's, and a pipeline takes the place of MGET, whose keys would have to share a slot.
"""

from __future__ import annotations

import asyncio
from collections import deque
from dataclasses import dataclass, field

from cache_tiers.cluster import Place
from cache_tiers.link import RedisLink, Unavailable

LANES = 4
"""Commands under way at a time; beyond that look-ups wait for the next one to leave."""
MOST = 32
"""Keys in one command: few enough that a value does not wait long for those before it."""

Waiting = tuple[str, asyncio.Future[bytes | None]]


@dataclass(slots=True)
class _Lanes:
    under_way: int = 0
    waiting: deque[Waiting] = field(default_factory=deque)


class BatchedGets:
    def __init__(self, link: RedisLink) -> None:
        self._link = link
        self._to: dict[Place | None, _Lanes] = {}
        self._tasks: set[asyncio.Task[None]] = set()

    async def get(self, name: str) -> bytes | None:
        """Raises Unavailable, within the deadline of the link."""
        place = self._link.place_of(name)
        lanes = self._to.get(place) or self._to.setdefault(place, _Lanes())
        if lanes.under_way < LANES:
            lanes.under_way += 1
            try:
                value: bytes | None = await self._link.call("GET", name)
                return value
            finally:
                self._landed(lanes)
        future: asyncio.Future[bytes | None] = asyncio.get_running_loop().create_future()
        lanes.waiting.append((name, future))
        try:
            async with asyncio.timeout(self._link.deadline):
                return await future
        except TimeoutError:
            raise Unavailable("too many look-ups wait for Redis") from None

    def _landed(self, lanes: _Lanes) -> None:
        lanes.under_way -= 1
        batch: list[Waiting] = []
        while lanes.waiting and len(batch) < MOST:
            name, future = lanes.waiting.popleft()
            if not future.done():  # its caller has given up
                batch.append((name, future))
        if batch:
            lanes.under_way += 1
            task = asyncio.create_task(self._fly(lanes, batch))
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)

    async def _fly(self, lanes: _Lanes, batch: list[Waiting]) -> None:
        try:
            for (_, future), value in zip(batch, await self._ask([name for name, _ in batch]), strict=True):
                if future.done():
                    continue
                if isinstance(value, Exception):
                    future.set_exception(value if isinstance(value, Unavailable) else Unavailable(str(value)))
                else:
                    future.set_result(value)
        except Exception as error:
            for _, future in batch:
                if not future.done():
                    future.set_exception(error)
        finally:
            self._landed(lanes)

    async def _ask(self, names: list[str]) -> list[bytes | Exception | None]:
        if self._link.slotted:
            return await self._link.pipeline([("GET", name) for name in names])
        values: list[bytes | Exception | None] = await self._link.call("MGET", *names)
        return values
