"""A Redis Cluster: which server has which slots, learned from the servers and corrected by what they answer.

Each primary is a Server of its own, with connections and a breaker of its own, so one that hangs costs the others
nothing. The map of slots is read beside the requests, never in one: at first, when a server sends a command on (MOVED,
which also corrects the map at once), when one fails, and with every probe of one that is left alone. So a failover is
followed soon after the Cluster has made it.

redis-py's own Cluster client is not used: it reads the map within a request (0.1 s on an idle machine, more than a get
may take), closes the connections to every node when that is cut short, and does not read it again when pipelines fail.
"""

from __future__ import annotations

import asyncio
import logging
import random
from collections.abc import Callable, Coroutine, Sequence
from typing import Any

from redis.asyncio import Redis
from redis.crc import REDIS_CLUSTER_HASH_SLOTS, key_slot
from redis.exceptions import AskError

from cache_tiers.server import Server, Unavailable, Word, close, execute

log = logging.getLogger(__name__)

LOOK_DEADLINE = 0.5
"""Seconds that a server has to tell the slots, connecting included."""
LOOK_EVERY = 0.25
"""Seconds between two readings, however many ask for one."""

Place = tuple[str, int]


def slot_of(name: Word) -> int:
    return key_slot(name.encode() if isinstance(name, str) else str(name).encode() if isinstance(name, int) else name)


class Cluster:
    def __init__(
        self, seeds: Sequence[Place], make_server: Callable[[Place], Server], make_client: Callable[[Place], Redis]
    ) -> None:
        """`make_client`: for one question, closed after it."""
        self._seeds = tuple(seeds)
        self._make_server = make_server
        self._make_client = make_client
        self._servers: dict[Place, Server] = {}
        self._slots: list[Place | None] = [None] * REDIS_CLUSTER_HASH_SLOTS
        self._nodes: tuple[Place, ...] = ()
        self._wanted = asyncio.Event()
        self._known = asyncio.Event()
        self._task: asyncio.Task[None] | None = None
        self._closing: set[asyncio.Task[None]] = set()
        self._closed = False
        self.looks = 0
        """How often the map has been read."""

    @property
    def places(self) -> list[Place]:
        """The primaries that have slots."""
        return sorted({place for place in self._slots if place is not None})

    @property
    def servers(self) -> list[Server]:
        return list(self._servers.values())

    @property
    def ready(self) -> bool:
        """Whether the map has been read."""
        return self._known.is_set()

    async def known(self) -> None:
        """Returns when the map has been read for the first time."""
        self.look_again()
        await self._known.wait()

    def place_of(self, name: Word) -> Place:
        """Where a key belongs. Raises Unavailable for one whose slot nobody has, or before the map is known."""
        place = self._slots[slot_of(name)]
        if place is None:
            self.look_again()
            raise Unavailable("no server of the Cluster has the slot of this key")
        return place

    def server_at(self, place: Place) -> Server:
        server = self._servers.get(place)
        if server is None:
            server = self._servers[place] = self._make_server(place)
        return server

    def redirect(self, error: AskError, told_by: Place) -> tuple[Place, bool]:
        """Where a server sent a command on to, and whether it has to ASK there, the slot being on its way."""
        place = (error.host or told_by[0], int(error.port))  # without a host it is the same one
        moved = type(error) is not AskError
        if moved:
            self._slots[error.slot_id] = place
            self.look_again()
        return place, not moved

    def look_again(self) -> None:
        """Has the map read again, soon. Nothing happens once this is closed: a call that ends late asks for it too."""
        self._wanted.set()
        if self._task is None and not self._closed:
            self._task = asyncio.create_task(self._look(), name="redis-cluster")

    async def _look(self) -> None:
        while True:
            await self._wanted.wait()
            self._wanted.clear()
            for place in self._candidates():
                told = await self._ask(place)
                if told is not None:
                    self._learn(*told)
                    break
            else:
                log.warning("no node of the Redis Cluster tells its slots")
                if not self._known.is_set():
                    self._wanted.set()
            await asyncio.sleep(LOOK_EVERY)

    def _candidates(self) -> list[Place]:
        """Primaries that are in order first, in any order, so that none with an outdated map is asked for ever."""
        well = [place for place, server in self._servers.items() if not server.breaker.open]
        random.shuffle(well)
        return list(dict.fromkeys([*well, *self._nodes, *self._seeds]))

    async def _ask(self, place: Place) -> tuple[list[Place | None], tuple[Place, ...]] | None:
        """Whose each slot is, and all nodes; None from one that does not tell."""
        client = self._make_client(place)
        try:
            async with asyncio.timeout(LOOK_DEADLINE):
                ranges = await execute(client, "CLUSTER SLOTS")
            return _understood(ranges, place) if ranges else None
        except Exception as error:  # whatever is wrong with this one, the next one is asked
            log.debug("%s:%d does not tell the slots: %r", *place, error)
            return None
        finally:
            self._close_aside(close(client))

    def _learn(self, slots: list[Place | None], nodes: tuple[Place, ...]) -> None:
        self._slots, self._nodes = slots, nodes
        self.looks += 1
        self._known.set()
        primaries = set(self.places)
        for place in [place for place in self._servers if place not in primaries]:
            self._close_aside(self._servers.pop(place).aclose())

    def _close_aside(self, closing: Coroutine[Any, Any, None]) -> None:
        """A goodbye over TLS takes seconds where the other side hangs."""
        task = asyncio.create_task(closing)
        self._closing.add(task)
        task.add_done_callback(self._closing.discard)

    async def aclose(self) -> None:
        self._closed = True
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)
        closing = (*(server.aclose() for server in self._servers.values()), *self._closing)
        await asyncio.gather(*closing, return_exceptions=True)


def _understood(ranges: list[Any], told_by: Place) -> tuple[list[Place | None], tuple[Place, ...]]:
    """`ranges`: first slot, last slot, primary, replicas; each of these host, port and more. Raises for what is not."""
    slots: list[Place | None] = [None] * REDIS_CLUSTER_HASH_SLOTS
    nodes: set[Place] = set()
    for first, last, *who in ranges:
        primary, *_ = found = [((host or b"").decode() or told_by[0], int(port)) for host, port, *_ in who]
        nodes.update(found)
        slots[first : last + 1] = [primary] * (last + 1 - first)
    if len(slots) != REDIS_CLUSTER_HASH_SLOTS:
        raise ValueError("slots beyond the last one")
    return slots, tuple(nodes)
