"""Erasing across gateways (consistency contract, point 5): the registry of gateways, and `erase`.

An erasure first moves the tag's epoch and tells so, in one atomic step that survives everything after it; then removes
what Redis holds; then tells that it is removed, which every gateway acknowledges once it has applied all before it.
Whoever is away meanwhile finds the moved epoch when it comes back. What was begun and not finished stays noted in
Redis, and the next gateway that joins finishes it.
"""

from __future__ import annotations

import asyncio
import inspect
import logging
import time
from collections.abc import Awaitable, Callable, Iterable
from dataclasses import dataclass
from typing import Protocol

from cache_tiers.events import (
    ACKNOWLEDGED,
    ERASE,
    ERASED,
    TENANT,
    Event,
    EventStream,
    RedisEpochs,
    id_order,
    parse_erase,
    tenant_tag,
)
from cache_tiers.link import RedisLink, Unavailable
from cache_tiers.sealed import Keyring

log = logging.getLogger(__name__)

_BEAT = """
local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
redis.call('ZADD', KEYS[1], now + ARGV[2], ARGV[1])
redis.call('ZREMRANGEBYSCORE', KEYS[1], '-inf', now - 86400000)
"""
_LIVE = """
local time = redis.call('TIME')
return redis.call('ZRANGEBYSCORE', KEYS[1], time[1] * 1000 + math.floor(time[2] / 1000) - ARGV[1], '+inf')
"""


class Erasable(Protocol):
    """The shared tier, as an erasure needs it: loud when it fails."""

    async def erase(self, tag: str) -> int: ...


@dataclass(frozen=True, slots=True)
class Erased:
    """What an erasure did. Complete when nobody is missing; else it is to be called again."""

    count: int
    """Entries removed from Redis."""
    acknowledged: frozenset[str]
    missing: frozenset[str]

    @property
    def complete(self) -> bool:
        return not self.missing


EraseHandler = Callable[[str], Awaitable[None] | None]


class Gateways:
    """The gateways on one Redis. Each has a lease in the registry, by the clock of Redis, and renews it.

    A lease that ran out counts as missing for `mourning` seconds more: that gateway may be cut off and still serve from
    L1. `in_touch` says to a gateway whether it is that one.
    """

    def __init__(
        self,
        link: RedisLink,
        events: EventStream,
        epochs: RedisEpochs,
        tier: Erasable,
        keyring: Keyring | None = None,
        *,
        lease: float = 10.0,
        mourning: float = 60.0,
        deadline: float = 1.0,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._clock = clock
        self._leased_until = clock()
        self._link = link
        self._events = events
        self._epochs = epochs
        self._tier = tier
        self._keyring = keyring
        self._lease = lease
        self._mourning = mourning
        self._deadline = deadline
        self._handlers: list[EraseHandler] = []
        self._failed: set[str] = set()
        self._acknowledged: dict[str, str] = {}
        self._news = asyncio.Event()
        self._beats: asyncio.Task[None] | None = None
        events.on(ERASE, self._apply)
        events.on(ERASED, self._acknowledge)
        events.on(ACKNOWLEDGED, self._hear)
        events.on_gap(self._rejoin)

    def on_erase(self, handler: EraseHandler) -> None:
        """Called with each erased tag, to drop what this process keeps of it: L1, recall index. It may be called again.

        For a tenant it is `tenant_tag(tenant)`. If it raises, this gateway does not acknowledge.
        """
        self._handlers.append(handler)

    async def start(self) -> None:
        """Enters the registry and stays in it; before `EventStream.start`, so that no erasure overlooks us."""
        await self._beat()
        self._beats = asyncio.create_task(self._keep_beating(), name="gateway-heartbeat")

    async def close(self) -> None:
        """Leaves the registry, so that no erasure waits for us."""
        if self._beats is not None:
            self._beats.cancel()
            await asyncio.gather(self._beats, return_exceptions=True)
            self._beats = None
        names = self._link.names
        try:
            await self._link.call("ZREM", names.gateways, self._events.gateway)
        except Unavailable as error:
            log.warning("could not leave the registry of gateways: %s", error)
        self._leased_until = self._clock()

    @property
    def in_touch(self) -> bool:
        """False once the lease has run out: erasures no longer reach us, though we may hold what they erase."""
        return self._clock() < self._leased_until

    async def live(self) -> frozenset[str]:
        """The gateways with a lease, or one that ran out so lately that they count. Raises Unavailable."""
        args = ("EVAL", _LIVE, 1, self._link.names.gateways, int(self._mourning * 1000))
        members: list[bytes] = await self._link.call(*args, deadline=self._deadline)
        return frozenset(member.decode() for member in members)

    async def erase(self, tag: str, timeout: float = 5.0) -> Erased:
        """Removes the tag's entries everywhere and keeps them from coming back.

        Raises Unavailable when Redis fails. Calling it again is always right, and after a failure needed.
        """
        await self._epochs.bump(tag)
        return await self._finish(tag, timeout)

    async def erase_tenant(self, tenant: str, timeout: float = 5.0) -> Erased:
        """Destroys the tenant's data keys. Its values stay as bytes that nobody can open, until they expire."""
        if self._keyring is None:
            raise ValueError("erasing a tenant takes the keyring")
        await self._keyring.destroy(tenant)
        await self._epochs.bump(tenant_tag(tenant))
        await self._keyring.destroy(tenant)  # a key that a late writer made before the epoch moved
        return await self._finish(tenant_tag(tenant), timeout)

    async def invalidate(self, tag: str) -> int:
        """As `erase`, without waiting for the other gateways; returns how many entries Redis held."""
        await self._epochs.bump(tag)
        return await self._complete(tag)

    async def _finish(self, tag: str, timeout: float) -> Erased:
        count = await self._complete(tag)
        event_id = await self._events.publish(ERASED, tag.encode())
        expected = await self.live()
        try:
            async with asyncio.timeout(timeout):
                while not expected <= self._who_has(event_id):
                    self._news.clear()
                    await self._news.wait()
        except TimeoutError:
            expected &= await self.live()  # who left meanwhile is not missed
        acknowledged = self._who_has(event_id)
        return Erased(count, acknowledged, expected - acknowledged)

    async def _complete(self, tag: str) -> int:
        count = await self._tier.erase(tag)
        name = self._link.names.erasing
        await self._link.call("SREM", name, tag, deadline=self._deadline)
        return count

    def _who_has(self, event_id: str) -> frozenset[str]:
        order = id_order(event_id)
        return frozenset(who for who, seen in self._acknowledged.items() if id_order(seen) >= order)

    # What the stream brings.

    async def _apply(self, event: Event) -> None:
        await self._drop(parse_erase(event)[1])

    async def _drop(self, tag: str) -> None:
        self._failed.add(tag)
        if self._keyring is not None and tag.startswith(TENANT):
            self._keyring.forget(tag.removeprefix(TENANT))
        for handler in self._handlers:
            outcome = handler(tag)
            if inspect.isawaitable(outcome):
                await outcome
        self._failed.discard(tag)

    async def _acknowledge(self, event: Event) -> None:
        """Only with no failed drop left: an acknowledgement covers everything before it."""
        for tag in tuple(self._failed):
            await self._drop(tag)
        await self._events.publish(ACKNOWLEDGED, event.id.encode())

    def _hear(self, event: Event) -> None:
        self._acknowledged[event.source] = event.payload.decode()
        self._news.set()

    async def _rejoin(self) -> None:
        if self._keyring is not None:
            self._keyring.forget_all()
        for tag in {*await self._epochs.load(), *self._failed}:
            await self._drop(tag)
        name = self._link.names.erasing
        unfinished: Iterable[bytes] = await self._link.call("SMEMBERS", name, deadline=self._deadline)
        for member in unfinished:
            await self._complete(member.decode())
        await self._events.publish(ACKNOWLEDGED, self._events.joined_at.encode())

    # The lease.

    async def _keep_beating(self) -> None:
        while True:
            await asyncio.sleep(self._lease / 3)
            await self._beat()

    async def _beat(self) -> None:
        names = self._link.names
        args = ("EVAL", _BEAT, 1, names.gateways, self._events.gateway, int(self._lease * 1000))
        sent = self._clock()
        try:
            await self._link.call(*args, deadline=self._deadline)
            self._leased_until = sent + self._lease
        except Unavailable as error:
            log.warning("the heartbeat failed: %s", error)
