"""The second tier: sealed entries in Redis, shared by all gateways and kept over restarts.

A get is one round trip within a deadline; a put goes behind the response, in pipelines (write_behind.py,
redis_writer.py). Whatever fails is a miss or a dropped write and a count, but for `erase`, which raises. Nothing is
deleted on failure but what is ours (contract 6). The filter of keys and the tag sets are kept true by census.py.

In Redis (names in link.py): a value and, beside it, a record (opaque bytes, the recall fingerprint) per entry, both
with a TTL, so that `volatile-lfu` may evict them; a hash of members per tag, a control record, so without one.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import AsyncIterator, Callable, Sequence

from cache_tiers.batched_gets import BatchedGets
from cache_tiers.bloom import RotatingBloom
from cache_tiers.census import Census
from cache_tiers.codec import Malformed, pack_names, unpack_entry, unpack_names, unpack_record
from cache_tiers.entry import CacheKey, Entry
from cache_tiers.epochs import EpochBook, LocalEpochs
from cache_tiers.events import INSERTED, REMOVED, TENANT, Event, EventStream, tenant_tag
from cache_tiers.link import Command, RedisLink, Unavailable
from cache_tiers.redis_writer import RedisStats, RedisWriter
from cache_tiers.sealed import Foreign, Keyring, Kind, Tampered
from cache_tiers.steps import Steps, steps_on
from cache_tiers.write_behind import Write, WriteBehind

_DELETE_SAME = "if redis.call('GET', KEYS[1]) == ARGV[1] then return redis.call('UNLINK', KEYS[1]) end return 0"

_PAGE = 256
"""Keys per round trip when going over many: a few milliseconds of work, so that requests get their turn in between."""
_SCAN = 1000
"""As _PAGE, where few of those looked at are wanted."""
THIRTY_DAYS = 30 * 86_400.0


class RedisTier:
    """L2. `now` is Unix seconds. The link, keyring and stream are the caller's, who closes them after this tier."""

    name = "redis"

    def __init__(
        self,
        link: RedisLink,
        keyring: Keyring,
        *,
        epochs: EpochBook | None = None,
        events: EventStream | None = None,
        ttl: float = THIRTY_DAYS,
        ttl_jitter: float = 0.1,
        max_value_bytes: int = 16 << 20,
        write_deadline: float = 1.0,
        queue_entries: int = 4096,
        queue_bytes: int = 64 << 20,
        filter_capacity: int = 100_000,
        filter_error_rate: float = 1e-3,
        census_every: float = 3600.0,
        now: Callable[[], float] = time.time,
    ) -> None:
        self.stats = RedisStats()
        self.used_bytes = 0
        """Memory of the server when it was last asked; of a Cluster's servers together."""
        self.filter = RotatingBloom(filter_capacity, filter_error_rate, forgets=False)
        """Of the digests of keys in Redis."""
        self._link = link
        self._gets = BatchedGets(link)
        self._steps: Steps = steps_on(link)
        self._keyring = keyring
        self._epochs: EpochBook = epochs if epochs is not None else LocalEpochs()
        self._events = events
        self._max_value_bytes = max_value_bytes
        self._write_deadline = write_deadline
        self._now = now
        self._writer = RedisWriter(
            link,
            keyring,
            self.filter,
            events,
            self.stats,
            ttl=ttl,
            ttl_jitter=ttl_jitter,
            deadline=write_deadline,
            now=now,
        )
        self._queue = WriteBehind(self._writer.write, queue_entries, queue_bytes)
        self.census = Census(link, self.filter, every=census_every)
        if events is not None:
            events.on(INSERTED, self._hear_inserted)
            events.on(REMOVED, self._hear_removed)
            events.on_gap(self.census.ask)

    async def start(self) -> None:
        """Begins to count what is there. Until that is done, and while Redis is down, `may_hold` says maybe."""
        self._queue.start()
        self.census.start()

    async def close(self) -> None:
        await self.census.close()
        await self._queue.close()

    # Reading.

    @property
    def away(self) -> bool:
        return self._link.left_alone

    def may_hold(self, key: CacheKey) -> bool:
        """False: certainly not there, as far as the events have told. A hint."""
        return key.digest in self.filter

    async def get(self, key: CacheKey) -> Entry | None:
        stats = self.stats
        try:
            entry = await self._get(key)
        except Unavailable:
            stats.unavailable += 1
            entry = None
        if entry is None:
            stats.misses += 1
        else:
            stats.hits += 1
        return entry

    async def _get(self, key: CacheKey) -> Entry | None:
        name = self._link.names.value(key)
        sealed = await self._gets.get(name)
        if sealed is None:
            if not self.filter.rebuilding and self.filter.peek(key.digest):
                self.filter.was_wrong(absent=True)
            return None
        plain = await self._open(key, b"v", name, sealed, self._link.deadline)
        if plain is None:
            return None
        try:
            entry, epochs = unpack_entry(plain)
        except Malformed:  # sealed by us and yet not ours to read: a codec changed without its schema number
            self.stats.foreign += 1
            return None
        if 0 < entry.expires <= self._now():
            self.stats.expired += 1
            return None
        if not self._epochs.unchanged(epochs):
            self.stats.erased += 1
            return None
        return entry

    async def get_record(self, key: CacheKey) -> bytes | None:
        """The side record stored with an entry. None when there is none, or Redis does not answer."""
        name = self._link.names.record(key)
        try:
            sealed = await self._link.call("GET", name, deadline=self._write_deadline)
            return None if sealed is None else await self._open_record(key, name, sealed)
        except Unavailable:
            self.stats.unavailable += 1
            return None

    async def records(self) -> AsyncIterator[tuple[CacheKey, bytes]]:
        """All side records, in no order, some perhaps twice. Raises Unavailable when Redis fails on the way."""
        names = self._link.names
        async for page in self.census.scan(names.records + "*", _PAGE):
            sealed = await self._link.pipeline([("GET", name) for name in page], deadline=self._write_deadline)
            for name, value in zip(page, sealed, strict=True):
                key = names.key_of(name)
                if isinstance(value, Unavailable):
                    raise value
                if key is not None and isinstance(value, bytes):
                    record = await self._open_record(key, name.decode(), value)
                    if record is not None:
                        yield key, record

    async def _open_record(self, key: CacheKey, name: str, sealed: bytes) -> bytes | None:
        plain = await self._open(key, b"r", name, sealed)
        if plain is None:
            return None
        try:
            record, epochs = unpack_record(plain)
        except Malformed:
            self.stats.foreign += 1
            return None
        return record if self._epochs.unchanged(epochs) else None

    async def _open(
        self, key: CacheKey, kind: Kind, name: str, sealed: bytes, deadline: float | None = None
    ) -> bytes | None:
        try:
            return await self._keyring.open(key, kind, sealed, deadline)
        except Foreign:
            self.stats.foreign += 1
        except Tampered:
            self.stats.tampered += 1
            # Only these very bytes: another gateway may have written good ones meanwhile.
            await self._link.call("EVAL", _DELETE_SAME, 1, name, sealed)
        return None

    # Writing.

    async def put(self, key: CacheKey, entry: Entry) -> bool:
        """Writes now and waits for it. False when it was not stored."""
        return self._fits(entry) and (await self._writer.write([self._new_write(key, entry, None)]))[0]

    def put_behind(self, key: CacheKey, entry: Entry) -> bool:
        """Writes soon, behind the response. False, and counted, when the entry is too large or the queue is full.

        To be called in the same step of the event loop as the caller's own check of the epochs.
        """
        return self._fits(entry) and self._offer(self._new_write(key, entry, None))

    def put_record_behind(self, key: CacheKey, entry: Entry, record: bytes) -> bool:
        """Puts a record beside an entry that was put before, soon, if that entry is still what Redis holds then."""
        return self._fits(entry) and self._offer(self._new_write(key, entry, record))

    def _offer(self, write: Write) -> bool:
        taken = self._queue.offer(write)
        self.stats.dropped += not taken
        return taken

    async def drain(self) -> None:
        """Returns when all that was put behind is written or given up."""
        await self._queue.drain()

    def _fits(self, entry: Entry) -> bool:
        if entry.weight > self._max_value_bytes:
            self.stats.too_large += 1
            return False
        return True

    def _new_write(self, key: CacheKey, entry: Entry, record: bytes | None) -> Write:
        # The epochs of now: the write compares them with those in Redis then.
        return Write(key, entry, record, self._epochs.of((*entry.tags, tenant_tag(key.tenant))))

    # Removing, and keeping warm.

    async def delete(self, key: CacheKey) -> bool:
        try:
            return await self.erase_key(key)
        except Unavailable:
            self.stats.unavailable += 1
            return False

    async def erase_key(self, key: CacheKey) -> bool:
        """As delete, but raises Unavailable when Redis fails: then it may be there still, or others not know."""
        await self._queue.withdraw(key)
        names = self._link.names
        commands: list[Command] = [("UNLINK", names.value(key)), ("UNLINK", names.record(key))]
        outcomes = await self._link.pipeline(commands, last=self._removed([key]), deadline=self._write_deadline)
        for outcome in outcomes:
            if isinstance(outcome, Exception):
                raise Unavailable(f"Redis refused to delete: {outcome}")
        return bool(outcomes[0])

    async def evict(self, tag: str) -> int:
        """Drops what carries the tag. When Redis fails it returns 0 and counts; see `erase` and Gateways.erase."""
        try:
            return await self.erase(tag)
        except Unavailable:
            self.stats.unavailable += 1
            return 0

    async def erase(self, tag: str) -> int:
        """As evict, but raises Unavailable when Redis fails: then something may be left."""
        if tag.startswith(TENANT):
            return await self._erase_tenant(tag.removeprefix(TENANT))
        names, count = self._link.names, 0
        async for members in self.census.members(names.tag(tag)):
            removed = self._removed([member.key for member in members])
            count += await self._steps.evict(names.tag(tag), members, removed, self._write_deadline)
        return count

    async def _erase_tenant(self, tenant: str) -> int:
        """Goes over all keys, since no tag set holds a tenant's. Its members in other tags are left to the census."""
        names, count = self._link.names, 0
        async for page in self.census.scan(names.of_tenant(tenant), _SCAN):
            own = [name for name in page if (key := names.key_of(name)) is not None and key.tenant == tenant]
            outcomes = await self._link.pipeline([("UNLINK", name) for name in own], deadline=self._write_deadline)
            for name, outcome in zip(own, outcomes, strict=True):
                if not isinstance(outcome, int):
                    raise Unavailable(f"Redis refused to delete: {outcome}")
                count += outcome if name.startswith(names.values.encode()) else 0
        return count

    def _removed(self, keys: Sequence[CacheKey]) -> list[Command]:
        if self._events is None:
            return []
        return [self._events.command(REMOVED, pack_names((key, False) for key in keys))]

    async def measure(self) -> None:
        """Asks the server how much memory it uses, for `used_bytes`."""
        with contextlib.suppress(Unavailable, KeyError, ValueError):
            answers = await self._link.each("INFO", "memory", deadline=self._write_deadline)
            self.used_bytes = sum(int(answer["used_memory"]) for answer in answers)

    async def touch(self, keys: Sequence[CacheKey]) -> int:
        """Heat flows down (contract 2): tells Redis that these were used above. Returns how many it still had."""
        names, found = self._link.names, 0
        try:
            for start in range(0, len(keys), _PAGE):
                page = keys[start : start + _PAGE]
                outcomes = await self._link.pipeline([("TOUCH", names.value(key)) for key in page])
                found += sum(outcome for outcome in outcomes if isinstance(outcome, int))
        except Unavailable:
            self.stats.unavailable += 1
        self.stats.touched += found
        return found

    def _hear_inserted(self, event: Event) -> None:
        """From this gateway too: a census that was taken while it wrote may have gone by before the value was there."""
        for key, _ in unpack_names(event.payload):
            self.filter.add(key.digest)

    def _hear_removed(self, event: Event) -> None:
        if self._events is not None and event.source != self._events.gateway:
            for key, _ in unpack_names(event.payload):
                self._queue.drop(key)
