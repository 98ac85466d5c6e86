"""The event stream: what gateways on one Redis tell each other, in one order, without missing anything unnoticed.

A Redis stream, a control record, trimmed to a length. Every gateway follows it from the event by which it joined. There
is a gap when the last event seen is no longer in it: the stream was trimmed beyond it, was lost, or went back in time
(a failover, a crash), which newer events do not hide. Then, as at the start, the gateway joins anew and its `on_gap`
handlers rebuild what they keep, while later events wait in order.
The epochs, which the stream keeps current in every process, are kept here too.
"""

from __future__ import annotations

import asyncio
import contextlib
import inspect
import logging
from collections.abc import Awaitable, Callable, Iterable
from dataclasses import dataclass
from typing import Any

from redis.asyncio import Redis
from redis.exceptions import ConnectionError

from cache_tiers.entry import Epochs
from cache_tiers.link import Command, RedisLink, Unavailable
from cache_tiers.server import close

log = logging.getLogger(__name__)

JOINED = "joined"
INSERTED = "inserted"
"""Payload: codec.pack_names of the keys written."""
REMOVED = "removed"
"""Payload: codec.pack_names of the keys deleted or evicted by tag."""
ERASE = "erase"
"""An epoch moved. Payload: the epoch, a space, the tag."""
ERASED = "erased"
"""What the erasure removes from Redis is removed: acknowledge. Payload: the tag."""
ACKNOWLEDGED = "acknowledged"
"""Payload: the id of an event that the sender, and all before it, has applied; or by which it joined and rebuilt."""
QUARANTINED = "quarantined"
"""An entry was reported wrong. Payload: codec.pack_names."""
AUDITED = "audited"
"""A gateway's count of audited fuzzy answers has changed. The payload is its owner's business."""

TENANT = "tenant:"


def tenant_tag(tenant: str) -> str:
    """The tag that every entry of a tenant has without carrying it: only its epoch is used."""
    return TENANT + tenant


def id_order(event_id: str) -> tuple[int, int]:
    """Stream ids as numbers, since as text 9-0 comes after 10-0."""
    milliseconds, _, sequence = event_id.partition("-")
    return int(milliseconds), int(sequence or 0)


_BUMP = """
local epoch = redis.call('HINCRBY', KEYS[1], ARGV[1], 1)
redis.call('SADD', KEYS[2], ARGV[1])
redis.call('XADD', KEYS[3], 'MAXLEN', '~', ARGV[3], '*', 'k', ARGV[4], 'p', epoch .. ' ' .. ARGV[1], 'g', ARGV[2])
return epoch
"""
# As a bump, which Redis has lost: who joined since has not heard of it, and what was removed may be there again.
_RAISE = """
for i = 4, #ARGV, 3 do
  if tonumber(redis.call('HGET', KEYS[1], ARGV[i]) or '0') < tonumber(ARGV[i + 1]) then
    redis.call('HSET', KEYS[1], ARGV[i], ARGV[i + 1])
    if ARGV[i + 2] == '1' then redis.call('SADD', KEYS[2], ARGV[i]) end
    local told = ARGV[i + 1] .. ' ' .. ARGV[i]
    redis.call('XADD', KEYS[3], 'MAXLEN', '~', ARGV[2], '*', 'k', ARGV[3], 'p', told, 'g', ARGV[1])
  end
end
"""


@dataclass(frozen=True, slots=True)
class Event:
    id: str
    kind: str
    payload: bytes
    source: str
    """The gateway that told it."""


@dataclass(slots=True)
class EventStats:
    received: int = 0
    published: int = 0
    gaps: int = 0
    """Times the stream had to be joined anew, the start not counted."""
    interruptions: int = 0
    """Failed reads."""
    handler_failures: int = 0


EventHandler = Callable[[Event], Awaitable[None] | None]
GapHandler = Callable[[], Awaitable[None] | None]


class EventStream:
    """Handlers are called one after the other, in the order of the stream and then of their registration.

    `on` and `on_gap` before `start`. An event whose handler raises is counted and not handled again by it; a gap whose
    handler raises is joined again.
    """

    def __init__(
        self,
        link: RedisLink,
        *,
        gateway: str,
        max_length: int = 65_536,
        block: float = 1.0,
        deadline: float = 1.0,
        retry_after: float = 0.25,
    ) -> None:
        self.gateway = gateway
        self.stats = EventStats()
        self.following = False
        """Whether the stream is being followed without a gap as far as is known."""
        self.joined_at = ""
        """Id of the event by which this gateway last joined."""
        self.max_length = max_length
        self._link = link
        self._block = block
        self._deadline = deadline
        self._retry_after = retry_after
        self._handlers: dict[str, list[EventHandler]] = {}
        self._gap_handlers: list[GapHandler] = []
        self._last = ""
        self._reader: Redis | None = None
        self._servers_left = 0
        """How often the link had left a server when the reader was made, which would follow the old one for ever."""
        self._task: asyncio.Task[None] | None = None

    def on(self, kind: str, handler: EventHandler) -> None:
        self._handlers.setdefault(kind, []).append(handler)

    def join_again(self) -> None:
        """As after a gap: something else says that what the handlers keep is not to be trusted."""
        self.following = False

    def on_gap(self, handler: GapHandler) -> None:
        """Called after joining, at the start as well: what this handler keeps may have missed anything."""
        self._gap_handlers.append(handler)

    async def start(self) -> bool:
        """Joins and follows. False when Redis is not there: then it goes on trying by itself."""
        try:
            await self._join()
        except Unavailable as error:
            log.warning("the event stream cannot be joined yet: %s", error)
        except Exception:
            log.exception("the event stream cannot be joined yet")
        self._task = asyncio.create_task(self._follow(), name="event-stream")
        return self.following

    async def close(self) -> None:
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)
            self._task = None
        await self._drop_reader()
        self.following = False

    async def publish(self, kind: str, payload: bytes = b"") -> str:
        """Returns the id of the event. Raises Unavailable."""
        event_id: bytes = await self._link.call(*self.command(kind, payload), deadline=self._deadline)
        self.stats.published += 1
        return event_id.decode()

    def command(self, kind: str, payload: bytes) -> Command:
        """The same as a command, for the end of somebody's pipeline."""
        fields = ("k", kind, "p", payload, "g", self.gateway)
        return ("XADD", self._link.names.events, "MAXLEN", "~", self.max_length, "*", *fields)

    async def _join(self) -> None:
        self.joined_at = self._last = await self.publish(JOINED)
        for handler in self._gap_handlers:
            outcome = handler()
            if inspect.isawaitable(outcome):
                await outcome
        self.following = True

    async def _follow(self) -> None:
        while True:
            try:
                if not self.following:
                    await self._join()
                for event in await self._read():
                    await self._handle(event)
                    self._last = event.id
            except Exception as error:  # whatever the wire or a handler of a gap does, go on following
                self.stats.interruptions += 1
                if not isinstance(error, (Unavailable, ConnectionError, OSError, TimeoutError)):
                    self.following = False  # garbage, or a refusal: what was read before it may be garbage too
                log.debug("the event stream was interrupted: %r", error)
                await self._drop_reader()
                await asyncio.sleep(self._retry_after)

    async def _read(self) -> list[Event]:
        """Waits for events; finds a gap by looking for the last one seen in the same round trip."""
        name = self._link.names.events
        if self._servers_left != self._link.stats.left:
            await self._drop_reader()
        if self._reader is None:
            self._servers_left = self._link.stats.left
            self._reader = self._link.another(name)
        async with asyncio.timeout(self._block + self._deadline):
            pipe = self._reader.pipeline(transaction=False)
            block = max(1, int(self._block * 1000))
            pipe.execute_command("XREAD", "COUNT", 256, "BLOCK", block, "STREAMS", name, self._last)
            pipe.execute_command("XRANGE", name, self._last, self._last)
            streams, seen = await pipe.execute()
        if not seen:
            self.stats.gaps += 1
            self.following = False
            log.warning("a gap in the event stream after %s: rebuilding", self._last)
            await self._drop_reader()  # the server may no longer be the one that is written to
            return []
        return [_event(event_id, fields) for _, entries in streams or () for event_id, fields in entries]

    async def _drop_reader(self) -> None:
        """In a Cluster the stream may lie elsewhere by now. If this is cancelled, `close` drops it after all."""
        if self._reader is not None:
            with contextlib.suppress(Exception):
                await close(self._reader)
            self._reader = None

    async def _handle(self, event: Event) -> None:
        self.stats.received += 1
        for handler in self._handlers.get(event.kind, ()):
            try:
                outcome = handler(event)
                if inspect.isawaitable(outcome):
                    await outcome
            except Exception:
                self.stats.handler_failures += 1
                log.exception("handling an event of kind %s failed", event.kind)


class RedisEpochs:
    """An EpochBook: this process's view of the epochs in Redis, kept current by the stream."""

    def __init__(self, link: RedisLink, events: EventStream, *, deadline: float = 1.0) -> None:
        self._link = link
        self._events = events
        self._deadline = deadline
        self._moved: dict[str, int] = {}
        events.on(ERASE, self._note)

    def of(self, tags: Iterable[str]) -> Epochs:
        return Epochs(tuple((tag, self._moved.get(tag, 0)) for tag in tags))

    def unchanged(self, epochs: Epochs) -> bool:
        return all(self._moved.get(tag, 0) == epoch for tag, epoch in epochs.of)

    async def bump(self, tag: str) -> int:
        """Moves the epoch and tells all, in one step. Raises Unavailable."""
        names = self._link.names
        keys = (names.epochs, names.erasing, names.events)
        args: Command = (tag, self._events.gateway, self._events.max_length, ERASE)
        epoch: int = await self._link.call("EVAL", _BUMP, 3, *keys, *args, deadline=self._deadline)
        self._moved[tag] = max(epoch, self._moved.get(tag, 0))
        return epoch

    async def load(self) -> list[str]:
        """Brings view and Redis to the higher epoch of each tag; returns the tags that moved without our hearing of it.

        Higher both ways: a Redis that lost an erasure in a failover gets it back from whoever knows of it, as one that
        is told to all and, where the tag has values again, is yet to be finished.
        """
        names = self._link.names
        stored: dict[bytes, bytes] = await self._link.call("HGETALL", names.epochs, deadline=self._deadline)
        theirs = {tag.decode(): int(epoch) for tag, epoch in stored.items()}
        lost = [(tag, epoch) for tag, epoch in self._moved.items() if theirs.get(tag, 0) < epoch]
        told = (self._events.gateway, self._events.max_length, ERASE)
        for start in range(0, len(lost), 1000):
            page = lost[start : start + 1000]
            looks: list[Command] = [("EXISTS", names.tag(tag)) for tag, _ in page]
            again = await self._link.pipeline(looks, deadline=self._deadline)
            words: list[str | int] = []
            for (tag, epoch), some in zip(page, again, strict=True):
                words += (tag, epoch, int(some != 0 or tag.startswith(TENANT)))
            args: Command = ("EVAL", _RAISE, 3, names.epochs, names.erasing, names.events, *told, *words)
            await self._link.call(*args, deadline=self._deadline)
        moved = [tag for tag, epoch in theirs.items() if epoch > self._moved.get(tag, 0)]
        self._moved.update((tag, theirs[tag]) for tag in moved)
        return moved

    async def holds(self, tag: str, epoch: int) -> bool:
        """Whether Redis has this epoch of the tag, or a higher one. Raises Unavailable."""
        stored = await self._link.call("HGET", self._link.names.epochs, tag, deadline=self._deadline)
        return int(stored or 0) >= epoch

    def _note(self, event: Event) -> None:
        epoch, tag = parse_erase(event)
        self._moved[tag] = max(epoch, self._moved.get(tag, 0))


def parse_erase(event: Event) -> tuple[int, str]:
    epoch, _, tag = event.payload.partition(b" ")
    return int(epoch), tag.decode()


def _event(event_id: bytes, fields: dict[bytes, Any]) -> Event:
    return Event(
        event_id.decode(),
        fields.get(b"k", b"").decode("utf-8", "replace"),
        fields.get(b"p", b""),
        fields.get(b"g", b"").decode("utf-8", "replace"),
    )
