"""The census: going over all keys in Redis, to rebuild the filter of keys and to clear the tag sets of the departed.

At the start, after a gap in the event stream, and periodically. Evictions and expiries in Redis reach nobody, so only
this tells. While it runs at the start or after a gap the filter says maybe; a periodic one lets the old filter answer.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator

from cache_tiers.bloom import RotatingBloom
from cache_tiers.link import Command, RedisLink, Unavailable

log = logging.getLogger(__name__)

# In one step, or a value written in between would lose its tag. The keys lie in several slots; a Cluster needs the
# comparison per key, HDEL, then the comparison again and HSET for what has come back.
_PRUNE = """
local gone = 0
for i = 1, #ARGV, 2 do
  local member, stamp = ARGV[i], ARGV[i + 1]
  local now = redis.call('GETRANGE', KEYS[i + 1], 0, #stamp - 1)
  if now ~= stamp and redis.call('HGET', KEYS[1], member) == stamp then
    gone = gone + redis.call('HDEL', KEYS[1], member)
    if now == '' then redis.call('UNLINK', KEYS[i + 2]) end
  end
end
return gone
"""
_PAGE = 256


class Census:
    def __init__(
        self, link: RedisLink, keys: RotatingBloom, *, every: float, retry_after: float = 1.0, deadline: float = 1.0
    ) -> None:
        self.pruned = 0
        """Members removed from tags because their entry is gone, or is another by now."""
        self.taken = 0
        self._link = link
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
                self._asked.set()
                await asyncio.sleep(self._retry_after)

    async def take(self) -> None:
        """Counts once. Raises Unavailable when Redis fails on the way; the filter then stays as it was."""
        names = self._link.names
        tags: list[bytes] = []
        self._filter.start_rebuild(max(self._floor, await self._size() * 3 // 2), blind=False)
        value, tag = names.values.encode(), names.tags.encode()
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
            await self._prune(name)

    async def scan(self, pattern: str, page: int) -> AsyncIterator[list[bytes]]:
        """Pages of key names, each about `page` keys looked at. Raises Unavailable."""
        cursor = b"0"
        while True:
            args = ("SCAN", cursor, "MATCH", pattern, "COUNT", page)
            cursor, found = await self._link.call(*args, deadline=self._deadline)
            if found:
                yield found
            if int(cursor) == 0:
                return

    async def _size(self) -> int:
        return int(await self._link.call("DBSIZE", deadline=self._deadline))

    async def members(self, tag_set: str | bytes) -> AsyncIterator[dict[bytes, bytes]]:
        """Pages of a tag's members with their stamps. Raises Unavailable."""
        cursor = b"0"
        while True:
            answer = await self._link.call("HSCAN", tag_set, cursor, "COUNT", _PAGE, deadline=self._deadline)
            cursor, found = answer
            items = list(found.items())
            for start in range(0, len(items), _PAGE):  # a small hash comes whole, whatever was asked
                yield dict(items[start : start + _PAGE])
            if int(cursor) == 0:
                return

    async def _prune(self, tag_set: bytes) -> None:
        names = self._link.names
        async for members in self.members(tag_set):
            keys = [names.key_of_member(member) for member in members]
            pairs = [name for key in keys for name in (names.value(key), names.record(key))]
            stamps = [part for pair in members.items() for part in pair]
            prune: Command = ("EVAL", _PRUNE, 1 + len(pairs), tag_set, *pairs, *stamps)
            self.pruned += await self._link.call(*prune, deadline=self._deadline)
