"""Pins that outlive the process: keys whose entry no gateway on this Redis evicts for another's sake.

One hash, a control record, without a time to live and so never evicted: a field for each key, whose value are the
epochs of the entry's tags when it was pinned. As with entries, epochs that have moved say that it was erased since, so
a pin that outlived its erasure is none. Gateways tell each other by events; each device tier keeps what room it has.

A pin ends with `unpin`, with the erasure of a tag of its entry or of its tenant, and with the removal of its entry from
Redis by name. An entry that expires or is replaced is pinned again when the next answer under its key is stored.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable

from cache_tiers.codec import Malformed, pack_names, pack_record, unpack_names, unpack_record
from cache_tiers.device import DeviceTier
from cache_tiers.entry import CacheKey, Epochs
from cache_tiers.epochs import EpochBook
from cache_tiers.events import REMOVED, Event, EventStream, tenant_tag
from cache_tiers.link import Command, RedisLink
from cache_tiers.policy.base import PinRefused

log = logging.getLogger(__name__)

PINNED = "pinned"
"""Payload: codec.pack_record of the epochs and the key's name."""
UNPINNED = "unpinned"
"""Payload: codec.pack_names of the keys."""

MOST = 10_000
"""Pins of one tenant, which take some 150 bytes each that Redis never evicts."""
_PAGE = 256

# The record and what others hear of it in one step, so that no pin is unknown to who has joined before.
_PIN = """
redis.call('HSET', KEYS[1], ARGV[1], ARGV[2])
return redis.call('XADD', KEYS[2], 'MAXLEN', '~', ARGV[5], '*', 'k', ARGV[3], 'p', ARGV[2], 'g', ARGV[4])
"""


class Pins:
    """What is pinned, as far as this gateway has heard. To be made after the `Gateways` whose stream it follows, which
    bring the epochs up to date first; `erased` is for its `on_erase`."""

    def __init__(
        self,
        link: RedisLink,
        events: EventStream,
        epochs: EpochBook,
        device: DeviceTier,
        *,
        most: int = MOST,
        deadline: float = 1.0,
    ) -> None:
        self._link = link
        self._events = events
        self._epochs = epochs
        self._device = device
        self._most = most
        self._deadline = deadline
        self._pinned: dict[CacheKey, Epochs] = {}
        self._loaded = asyncio.Event()
        device.keeps = self._pinned
        events.on_gap(self.load)
        events.on(PINNED, self._hear_pinned)
        events.on(UNPINNED, self._hear_unpinned)
        events.on(REMOVED, self._hear_removed)

    def __contains__(self, key: object) -> bool:
        return key in self._pinned

    def __len__(self) -> int:
        return len(self._pinned)

    async def pin(self, key: CacheKey) -> bool:
        """Pins an entry of the device tier, there and everywhere. False when there is none. Raises `PinRefused` when
        pins have no room for it here, and Unavailable when Redis doesn't say that it has noted it: then it is not
        pinned here, and elsewhere only if Redis had."""
        if key not in self._pinned and sum(other.tenant == key.tenant for other in self._pinned) >= self._most:
            raise PinRefused(f"{self._most} entries are pinned, and no more may be; unpin one")
        tags = self._device.tags_of(key)
        if tags is None or not self._device.pin(key):
            return False
        if key in self._pinned:
            return True
        epochs = self._epochs.of((*tags, tenant_tag(key.tenant)))
        self._pinned[key] = epochs
        try:
            await self._note(key, epochs)
        except BaseException:  # who asked may have left
            self._let_go(key)
            raise
        if self._pinned.get(key) is not epochs:  # erased or unpinned meanwhile, perhaps before it was noted
            await self._forget([key])
            return False
        return True

    async def unpin(self, key: CacheKey) -> bool:
        """Ends a pin everywhere; the entry stays where it is. False when there is no such pin. Raises Unavailable when
        Redis can't note it: then others may not know."""
        epochs = self._pinned.get(key)
        if epochs is None:
            return False
        await self._forget([key])  # first, so that whoever fails here can be called again
        await self._events.publish(UNPINNED, pack_names([(key, False)]))
        if self._pinned.get(key) is epochs:  # not pinned anew meanwhile
            self._let_go(key)
        return True

    async def erased(self, tag: str) -> None:
        """What carries the tag, or is the tenant's whose tag it is, is pinned no more. Raises Unavailable when Redis
        can't forget it."""
        await self._drop([key for key, epochs in self._pinned.items() if any(tag == each for each, _ in epochs.of)])

    async def load(self) -> None:
        """Reads all pins from Redis, and clears those that were erased since. Raises Unavailable."""
        stored = await self._link.call("HGETALL", self._link.names.pins, deadline=self._deadline)
        before = set(self._pinned)
        for name, record in stored.items():
            key, epochs = _read(record) or (None, None)
            if key is None or epochs is None or not self._epochs.unchanged(epochs):
                await self._link.call("HDEL", self._link.names.pins, name, deadline=self._deadline)
            else:
                before.discard(key)
                self._keep(key, epochs)
        for key in before:
            self._let_go(key)
        self._loaded.set()

    async def bring(self, fetch: Callable[[CacheKey], Awaitable[object]]) -> None:
        """Has what is pinned come up into the device tier, so that nobody waits for Redis first. `fetch` looks in the
        tiers, and stores here what it finds. Waits until all pins have been read for the first time."""
        await self._loaded.wait()
        for key in tuple(self._pinned):
            if key in self._pinned and key not in self._device:
                await fetch(key)

    # The device tier follows.

    def _keep(self, key: CacheKey, epochs: Epochs) -> None:
        self._pinned[key] = epochs
        self._device.pin_if_room(key)

    def _let_go(self, key: CacheKey) -> None:
        self._pinned.pop(key, None)
        self._device.unpin(key)

    # What the stream brings.

    def _hear_pinned(self, event: Event) -> None:
        found = _read(event.payload)
        if found is not None and event.source != self._events.gateway and self._epochs.unchanged(found[1]):
            self._keep(*found)

    def _hear_unpinned(self, event: Event) -> None:
        if event.source != self._events.gateway:
            for key, _ in unpack_names(event.payload):
                self._let_go(key)

    async def _hear_removed(self, event: Event) -> None:
        """From whomever, for he does not look at pins."""
        await self._drop([key for key, _ in unpack_names(event.payload) if key in self._pinned])

    # The record.

    async def _drop(self, keys: list[CacheKey]) -> None:
        of = {key: self._pinned[key] for key in keys}
        await self._forget(keys)
        for key, epochs in of.items():
            if self._pinned.get(key) is epochs:  # not pinned anew meanwhile
                self._let_go(key)

    async def _note(self, key: CacheKey, epochs: Epochs) -> None:
        names, name = self._link.names, pack_names([(key, False)])
        told = (PINNED, self._events.gateway, self._events.max_length)
        args: Command = ("EVAL", _PIN, 2, names.pins, names.events, name, pack_record(name, epochs), *told)
        await self._link.call(*args, deadline=self._deadline)

    async def _forget(self, keys: list[CacheKey]) -> None:
        for start in range(0, len(keys), _PAGE):
            fields = [pack_names([(key, False)]) for key in keys[start : start + _PAGE]]
            await self._link.call("HDEL", self._link.names.pins, *fields, deadline=self._deadline)


def _read(record: bytes) -> tuple[CacheKey, Epochs] | None:
    """Key and epochs; None for what no version of this wrote."""
    try:
        name, epochs = unpack_record(record)
        ((key, _),) = unpack_names(name)
    except (Malformed, ValueError):
        return None
    return key, epochs
