"""Erasing across gateways (consistency contract, point 5): the registry of gateways, and `erase`.

An erasure first moves the tag's epoch and tells so, in one atomic step that survives everything after it; then removes
what Redis holds; then tells that it is removed, which every gateway acknowledges once it has applied all before it.
Whoever is away meanwhile finds the moved epoch when it comes back. What was begun and not finished stays noted in
Redis, and the next gateway that joins finishes it.
"""

from __future__ import annotations

import asyncio
import contextlib
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
if ARGV[3] == '1' then redis.call('DEL', KEYS[1]) end
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
LostHandler = Callable[[], None]


class Gateways:
    """The gateways on one Redis. Each has a lease in the registry, by the clock of Redis, and renews it.

    A lease that ran out counts as missing for `mourning` seconds more: that gateway may be cut off and still serve from
    L1. Half-way through these it is `lost` to itself: it drops what it keeps, and keeps nothing until it has rejoined.
    """

    def __init__(
        self,
        link: RedisLink,
        events: EventStream,
        epochs: RedisEpochs,
        tier: Erasable,
        keyring: Keyring | None = None,
        *,
        alone: bool = False,
        lease: float = 10.0,
        mourning: float = 60.0,
        deadline: float = 1.0,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """`alone`: nobody else can be on this Redis, so whoever is registered is dead, and nobody erases unheard."""
        self._clock = clock
        self._alone = alone
        self._entered = False
        self._lost = False
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
        self._lost_handlers: list[LostHandler] = []
        self._failed: set[str] = set()
        self._acknowledged: dict[str, str] = {}
        self._owed = ""
        """Id of the event that is to be acknowledged, where that has failed."""
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

    def on_lost(self, handler: LostHandler) -> None:
        """Called once when we have been cut off for so long that erasures will soon not wait for us: to drop all, and
        keep nothing. When we are back it is as after a gap in the stream."""
        self._lost_handlers.append(handler)

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
        return await self._finish(tag, await self._bump(tag), timeout)

    async def erase_tenant(self, tenant: str, timeout: float = 5.0) -> Erased:
        """As `erase`, for all that is the tenant's; its data keys first, so that nothing of it opens again."""
        if self._keyring is None:
            raise ValueError("erasing a tenant takes the keyring")
        await self._keyring.destroy(tenant)
        epoch = await self._bump(tenant_tag(tenant))
        await self._keyring.destroy(tenant)  # a key that a late writer made before the epoch moved
        return await self._finish(tenant_tag(tenant), epoch, timeout)

    async def invalidate(self, tag: str) -> int:
        """As `erase`, without waiting for the other gateways; returns how many entries Redis held."""
        await self._bump(tag)
        return await self._complete(tag)

    async def _bump(self, tag: str) -> int:
        """Moves the epoch, and drops here what the caller must not find again before our own event comes back."""
        epoch = await self._epochs.bump(tag)
        with contextlib.suppress(Exception):  # logged; tried again before we acknowledge
            await self._drop(tag)
        return epoch

    async def _finish(self, tag: str, epoch: int, timeout: float) -> Erased:
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
        if not await self._epochs.holds(tag, epoch):  # then others may not have been told, whatever they acknowledged
            raise Unavailable("Redis has lost the erasure while it was done, as in a failover")
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
        failure: Exception | None = None
        for handler in self._handlers:
            try:
                outcome = handler(tag)
                if inspect.isawaitable(outcome):
                    await outcome
            except Exception as error:  # the others have to drop it all the same
                log.exception("a handler could not drop an erased tag")
                failure = error
        if failure is not None:
            self._failed.add(tag)  # who dropped it beside us may have taken it out
            raise failure
        self._failed.discard(tag)

    async def _drop_failed(self) -> None:
        """All of them, even if one fails again; raises when one has."""
        failure: Exception | None = None
        for tag in tuple(self._failed):
            try:
                await self._drop(tag)
            except Exception as error:
                failure = error
        if failure is not None:
            raise failure

    async def _acknowledge(self, event: Event) -> None:
        self._owed = event.id
        await self._acknowledge_owed()

    async def _acknowledge_owed(self) -> None:
        """Only with no failed drop left: an acknowledgement covers everything before it."""
        await self._drop_failed()
        owed = self._owed
        await self._events.publish(ACKNOWLEDGED, owed.encode())
        if self._owed == owed:
            self._owed = ""

    def _hear(self, event: Event) -> None:
        seen = event.payload.decode()
        self._acknowledged[event.source] = max(seen, self._acknowledged.get(event.source, "0-0"), key=id_order)
        self._news.set()

    async def _rejoin(self) -> None:
        await self._beat()
        if not self.in_touch:
            raise Unavailable("the registry of gateways can't be entered")
        joined = id_order(self._events.joined_at)  # later ones are of a stream that was lost
        self._acknowledged = {who: seen for who, seen in self._acknowledged.items() if id_order(seen) < joined}
        if self._keyring is not None:
            self._keyring.forget_all()
        self._failed.update(await self._epochs.load())  # in one step: a tag that is loaded is not told again
        await self._drop_failed()
        name = self._link.names.erasing
        unfinished: Iterable[bytes] = await self._link.call("SMEMBERS", name, deadline=self._deadline)
        for member in unfinished:
            await self._complete(member.decode())
        await self._events.publish(ACKNOWLEDGED, self._events.joined_at.encode())
        self._owed = ""
        self._lost = False

    # The lease.

    async def _keep_beating(self) -> None:
        while True:
            await asyncio.sleep(self._lease / 3)
            self._look()
            await self._beat()
            if self._owed and self.in_touch:
                with contextlib.suppress(Exception):  # logged where it failed first; tried again with the next one
                    await self._acknowledge_owed()

    def _look(self) -> None:
        """Before each heartbeat, which may hide how long we were away."""
        away = not self._alone and self._clock() >= self._leased_until + self._mourning / 2
        if away and not self._lost:
            self._lost = True
            log.error("out of touch with the other gateways: dropping what is kept, until this one has rejoined")
            for handler in self._lost_handlers:
                try:
                    handler()
                except Exception:  # the others have to drop theirs, and the lease is to be kept
                    log.exception("a handler could not drop what it keeps")
        if self._lost:
            self._events.join_again()

    async def _beat(self) -> None:
        names = self._link.names
        first = int(self._alone and not self._entered)
        args = ("EVAL", _BEAT, 1, names.gateways, self._events.gateway, int(self._lease * 1000), first)
        sent = self._clock()
        try:
            await self._link.call(*args, deadline=self._deadline)
            self._leased_until = sent + self._lease
            self._entered = True
        except Unavailable as error:
            log.warning("the heartbeat failed: %s", error)
