"""The census: going over all keys in Redis, to rebuild the filter of keys and to clear the tag sets of the departed.

At the start, after a gap in the event stream, and periodically. Evictions and expiries in Redis reach nobody, so only
this tells. While it runs at the start or after a gap the filter says maybe; a periodic one lets the old filter answer.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator

from cache_tiers.bloom import RotatingBloom
from cache_tiers.link import RedisLink, Refused, Unavailable
from cache_tiers.names import Member
from cache_tiers.steps import Steps, steps_on

log = logging.getLogger(__name__)

_PAGE = 256


class Census:
    def __init__(
        self, link: RedisLink, keys: RotatingBloom, *, every: float, retry_after: float = 1.0, deadline: float = 1.0
    ) -> None:
        self.pruned = 0
        """Members removed from tags because their entry is gone, or is another by now."""
        self.taken = 0
        self._link = link
        self._steps: Steps = steps_on(link)
        self._filter = keys
        self._every = every
        self._retry_after = retry_after
        self._deadline = deadline
        self._asked = asyncio.Event()
        self._done = asyncio.Event()
        self._task: asyncio.Task[None] | None = None
        self._floor = keys.capacity
        keys.start_rebuild()

    def start(self) -> None:
        if self._task is None:
            self._asked.set()
            self._task = asyncio.create_task(self._run(), name="redis-census")

    def ask(self) -> None:
        """Something may have been missed: the filter is not to be trusted until it has been rebuilt."""
        self._filter.start_rebuild()
        self._done.clear()
        self._asked.set()

    async def done(self) -> None:
        """Returns when no census is asked for that has not been taken."""
        await self._done.wait()

    async def close(self) -> None:
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)
            self._task = None

    async def _run(self) -> None:
        while True:
            try:
                async with asyncio.timeout(self._every):
                    await self._asked.wait()
            except TimeoutError:
                self._filter.start_rebuild(blind=False)
            self._asked.clear()
            try:
                await self.take()
            except Unavailable as error:
                log.debug("the census of Redis was cut short: %s", error)
            except Exception:  # an answer of another shape than any server gives: the filter needs the next census
                log.exception("the census of Redis failed")
            else:
                continue
            self._asked.set()
            await asyncio.sleep(self._retry_after)

    async def take(self) -> None:
        """Counts once. Raises Unavailable when Redis fails on the way; the filter then stays as it was.

        A tag that Redis refuses to clear is left to the next census: for that alone nothing is counted again."""
        names = self._link.names
        tags: list[bytes] = []
        self._filter.start_rebuild(max(self._floor, await self._size() * 3 // 2), blind=False)
        value, tag = names.values.encode(), f"{names.tags}{{".encode()
        async for page in self.scan(names.prefix + ":*", _PAGE):
            for name in page:
                if name.startswith(value):
                    key = names.key_of(name)
                    if key is not None:
                        self._filter.add_to_rebuild(key.digest)
                elif name.startswith(tag):
                    tags.append(name)
        if self._asked.is_set():
            return  # asked again meanwhile: what was counted before may be incomplete
        self._filter.end_rebuild()
        self._done.set()
        self.taken += 1
        for name in tags:
            try:
                await self._prune(name)
            except Refused as error:
                log.warning("a tag in Redis can't be cleared of what is gone: %s", error)

    async def scan(self, pattern: str, page: int) -> AsyncIterator[list[bytes]]:
        """Pages of key names, each about `page` keys looked at. Raises Unavailable, also when keys may have moved from
        one server of a Cluster to another meanwhile and been overlooked."""
        places = await self._link.places(self._deadline)
        for place in places:
            cursor = b"0"
            while True:
                args = ("SCAN", cursor, "MATCH", pattern, "COUNT", page)
                cursor, found = await self._link.call(*args, deadline=self._deadline, at=place)
                if found:
                    yield found
                if int(cursor) == 0:
                    break
        if await self._link.places(self._deadline) != places:
            raise Unavailable("the servers of the Cluster changed while their keys were gone over")

    async def _size(self) -> int:
        return sum(map(int, await self._link.each("DBSIZE", deadline=self._deadline)))

    async def members(self, tag_set: str | bytes) -> AsyncIterator[list[Member]]:
        """Pages of what a tag knows of its values. Raises Unavailable."""
        cursor = b"0"
        while True:
            answer = await self._link.call("HSCAN", tag_set, cursor, "COUNT", _PAGE, deadline=self._deadline)
            cursor, found = answer
            items = [self._link.names.of_membership(*item) for item in found.items()]
            for start in range(0, len(items), _PAGE):  # a small hash comes whole, whatever was asked
                yield items[start : start + _PAGE]
            if int(cursor) == 0:
                return

    async def _prune(self, tag_set: bytes) -> None:
        async for members in self.members(tag_set):
            gone = await self._steps.prune(tag_set, members, self._deadline)
            self.pruned += gone  # read after the wait: another census may have counted meanwhile
