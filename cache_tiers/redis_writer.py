"""How entries get into Redis: sealed, in one pipeline, each only if none of its tags was erased meanwhile.

An erasure that lies between the caller's check and the write is caught in Redis itself: the write carries the epochs it
was made under, and they are compared as it writes (steps.py; consistency contract, point 5).
"""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from cache_tiers.bloom import RotatingBloom
from cache_tiers.codec import Malformed, pack_entry, pack_names, pack_record, unpack_entry
from cache_tiers.entry import CacheKey, Entry, Epochs
from cache_tiers.events import INSERTED, EventStream
from cache_tiers.link import Command, RedisLink, Unavailable
from cache_tiers.sealed import Foreign, Keyring, Kind, Tampered, stamp_of
from cache_tiers.steps import SealedRecord, SealedValue, Steps, steps_on
from cache_tiers.write_behind import Write


@dataclass(slots=True)
class RedisStats:
    hits: int = 0
    misses: int = 0
    """Gets that found nothing, or nothing valid; the failures below are among them."""
    unavailable: int = 0
    expired: int = 0
    erased: int = 0
    """Values older than the erasure of one of their tags."""
    foreign: int = 0
    """Values of an unknown schema or key id, left alone."""
    tampered: int = 0
    """Values of ours that failed their check, deleted."""
    stored: int = 0
    replaced: int = 0
    """Of the stored: those that were there before."""
    refused_erased: int = 0
    """Writes refused because a tag was erased meanwhile."""
    too_large: int = 0
    dropped: int = 0
    """Writes not taken: queue full."""
    write_failures: int = 0
    touched: int = 0


class RedisWriter:
    """Writes batches. `keys` is the filter of keys, which learns what is written."""

    def __init__(
        self,
        link: RedisLink,
        keyring: Keyring,
        keys: RotatingBloom,
        events: EventStream | None,
        stats: RedisStats,
        *,
        ttl: float,
        ttl_jitter: float,
        deadline: float,
        now: Callable[[], float],
    ) -> None:
        self.stats = stats
        self._link = link
        self._steps: Steps = steps_on(link)
        self._keyring = keyring
        self._filter = keys
        self._events = events
        self._ttl = ttl
        self._jitter = ttl_jitter
        self._deadline = deadline
        self._now = now
        self._random = random.Random()

    async def write(self, batch: Sequence[Write]) -> list[bool]:
        """Seals and writes, first the values, then the records. Never raises; True for each that was stored."""
        stored = [False] * len(batch)
        values = [i for i, write in enumerate(batch) if write.record is None]
        records = [i for i, write in enumerate(batch) if write.record is not None]
        for at, write_all in ((values, self._write_values), (records, self._write_records)):
            if at:
                try:
                    outcomes = await write_all([batch[i] for i in at])
                except Unavailable:
                    self.stats.write_failures += len(at)
                    continue
                for i, outcome in zip(at, outcomes, strict=True):
                    stored[i] = outcome
        return stored

    async def _write_values(self, batch: Sequence[Write]) -> list[bool]:
        """In one go, with one event for all."""
        stored = [False] * len(batch)
        keyless: set[str] = set()
        values: dict[int, SealedValue] = {}
        for i, write in enumerate(batch):
            ttl, tags, epochs = self._ttl_ms(write.entry), write.entry.tags, write.epochs
            sealed = await self._sealed(write, b"v", pack_entry(write.entry, epochs), keyless) if ttl > 0 else b""
            if sealed is not None:
                values[i] = SealedValue(write.key, sealed, ttl, tags, epochs)
        if not values:
            return stored
        new = [value.key for value in values.values() if value.sealed]
        believed_absent = {key for key in new if not self._filter.peek(key.digest)}
        for key in new:
            self._filter.add(key.digest)  # before it is known: a call that timed out may have written
        told = self._told([(key, False) for key in new])
        outcomes = await self._steps.write([*values.values()], told, self._deadline)
        for (i, value), outcome in zip(values.items(), outcomes, strict=True):
            if value.sealed:
                stored[i] = self._settle(outcome, value.key in believed_absent)
        return stored

    async def _sealed(self, write: Write, kind: Kind, plain: bytes, keyless: set[str]) -> bytes | None:
        """None, and counted, where no data key of the tenant can be had: nor will another one of this batch."""
        if write.key.tenant not in keyless:
            try:
                return await self._keyring.seal(write.key, kind, plain)
            except Unavailable:
                keyless.add(write.key.tenant)
        self.stats.write_failures += 1
        return None

    async def _write_records(self, batch: Sequence[Write]) -> list[bool]:
        """As the values, but each only while its entry is what Redis holds under its key."""
        gets: list[Command] = [("GET", self._link.names.value(write.key)) for write in batch]
        held = await self._link.pipeline(gets, deadline=self._deadline)
        records: list[SealedRecord] = []
        at: list[int] = []
        keyless: set[str] = set()
        for i, (write, value) in enumerate(zip(batch, held, strict=True)):
            self.stats.write_failures += isinstance(value, Exception)
            epochs = await self._epochs_if_same(write, value)
            if epochs is not None and write.record is not None:
                sealed = await self._sealed(write, b"r", pack_record(write.record, epochs), keyless)
                if sealed is not None:
                    records.append(SealedRecord(write.key, sealed, stamp_of(value), epochs))
                    at.append(i)
        stored = [False] * len(batch)
        if records:
            told = self._told([(batch[i].key, True) for i in at])
            outcomes = await self._steps.write_records(records, told, self._deadline)
            for i, outcome in zip(at, outcomes, strict=True):
                stored[i] = outcome == 1
                self.stats.write_failures += isinstance(outcome, Exception)
        return stored

    def _told(self, keys: Sequence[tuple[CacheKey, bool]]) -> list[Command]:
        if self._events is None or not keys:
            return []
        return [self._events.command(INSERTED, pack_names(keys))]

    async def _epochs_if_same(self, write: Write, value: object) -> Epochs | None:
        """Of the value, when it holds the entry that is being written."""
        if not isinstance(value, bytes):
            return None
        try:
            entry, epochs = unpack_entry(await self._keyring.open(write.key, b"v", value))
        except (Foreign, Tampered, Malformed):
            return None
        except Unavailable:  # its data key alone may be out of reach
            self.stats.write_failures += 1
            return None
        return epochs if entry == write.entry else None

    def _settle(self, outcome: object, believed_absent: bool) -> bool:
        stats = self.stats
        if isinstance(outcome, Exception) or not isinstance(outcome, int):
            stats.write_failures += 1
            return False
        if outcome < 0:
            stats.refused_erased += 1
            return False
        stats.stored += 1
        if outcome:
            stats.replaced += 1
            if believed_absent:
                self._filter.was_wrong(absent=False)
        return True

    def _ttl_ms(self, entry: Entry) -> int:
        """Spread, so that what was stored together does not expire together; never beyond the entry's own expiry."""
        ttl = self._ttl * self._random.uniform(1 - self._jitter, 1 + self._jitter)
        if entry.expires > 0:
            ttl = min(ttl, entry.expires - self._now())
        return int(ttl * 1000)
