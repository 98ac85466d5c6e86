"""One Redis server as seen from here: a client, a deadline on every call, and a breaker.

Every call either answers within its deadline or raises `Unavailable`; what that means (a miss, a dropped write, a
failed erasure) is for the caller. While the breaker is open no call waits at all: a probe runs beside the requests,
never in one. The master that Sentinels name is one server too, wherever it is at the moment; and so is a name whose
meaning changes: a server that takes no writes any more is left, and the name asked anew.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from typing import Any, TypeVar

from redis.asyncio import BlockingConnectionPool, Redis
from redis.asyncio.retry import Retry
from redis.asyncio.sentinel import (
    Sentinel,
    SentinelConnectionPool,
    SentinelManagedConnection,
    SentinelManagedSSLConnection,
)
from redis.backoff import NoBackoff
from redis.exceptions import BusyLoadingError, ConnectionError, ReadOnlyError, ResponseError
from redis.exceptions import TimeoutError as RedisTimeoutError

from cache_tiers.address import Address

T = TypeVar("T")

Word = str | bytes | int
Command = tuple[Word, ...]

STALL = 0.02
"""A timer that fires this late (seconds) says that this process stood still, and nothing about the server."""
LEAVE_EVERY = 1.0
"""Seconds between two times that connections to a server which takes no writes are given up: it may be all there is."""
SENTINEL_PATIENCE = 0.2
"""Seconds for a Sentinel to say who is master, before the next one is asked."""

# Deadlines are ours, so a client neither retries nor times out by itself: with a socket_timeout it would send through
# asyncio.wait_for, which in Python 3.11 swallows a cancellation that comes as the send completes.
_PLAIN: Mapping[str, Any] = {"protocol": 2, "socket_timeout": None, "socket_read_size": 1 << 17}


class Unavailable(Exception):
    """The server did not answer in time, is not there, or is left alone because its breaker is open."""


class Refused(Unavailable):
    """The server answered with an error: out of memory, read-only, wrong type."""


class Breaker:
    """Opens after so many failures in a row; then, after a while, one probe at a time may close it again."""

    def __init__(self, failures: int, probe_after: float, clock: Callable[[], float]) -> None:
        self._limit = failures
        self._probe_after = probe_after
        self._clock = clock
        self._failures = 0
        self._probe_at = 0.0
        self.open = False
        self.opened = 0
        """How often it has opened."""

    def succeeded(self) -> None:
        self._failures = 0
        self.open = False

    def failed(self) -> None:
        self._failures += 1
        if self._failures >= self._limit and not self.open:
            self.open = True
            self.opened += 1
            self._probe_at = self._clock() + self._probe_after

    def take_probe(self) -> bool:
        """True for the one caller that shall probe now."""
        if not self.open or self._clock() < self._probe_at:
            return False
        self._probe_at = self._clock() + self._probe_after
        return True


@dataclass(slots=True)
class LinkStats:
    calls: int = 0
    failures: int = 0
    timeouts: int = 0
    stalls: int = 0
    """Deadlines missed because this process stood still; they do not count against the server."""
    refused: int = 0
    """The server answered with an error."""
    left: int = 0
    """Times that a server which takes no writes was left, for whichever its name means now."""
    skipped: int = 0
    """Calls not made because the breaker was open."""
    redirected: int = 0
    """Commands that a server of a Cluster sent on to another."""
    tried_again: int = 0
    """Commands sent once more because a slot on its way had their keys on both its servers."""


class Server:
    def __init__(
        self,
        client: Redis,
        breaker: Breaker,
        stats: LinkStats,
        *,
        probe_deadline: float,
        on_trouble: Callable[[], None] = lambda: None,
    ) -> None:
        """`on_trouble` is called when the server fails, and with every probe while it is left alone."""
        self.client = client
        self.breaker = breaker
        self._stats = stats
        self._probe_deadline = probe_deadline
        self._on_trouble = on_trouble
        self._probe: asyncio.Task[None] | None = None
        self._leaving: asyncio.Task[None] | None = None
        self._left_at = float("-inf")

    async def attempt(self, run: Callable[[Redis], Awaitable[T]], deadline: float) -> T:
        """What `run` makes of the client. Raises Unavailable, within the deadline (seconds)."""
        if self.breaker.open:
            self._stats.skipped += 1
            self._maybe_probe()
            raise Unavailable("Redis is left alone after repeated failures")
        return await self._attempt(run, deadline)

    async def _attempt(self, run: Callable[[Redis], Awaitable[T]], deadline: float) -> T:
        stats = self._stats
        stats.calls += 1
        loop = asyncio.get_running_loop()
        due = loop.time() + deadline
        try:
            async with asyncio.timeout_at(due):
                result = await run(self.client)
        except (BusyLoadingError, ConnectionError, RedisTimeoutError) as error:
            raise self._failed(f"Redis: {error}") from error
        except ResponseError as error:
            stats.refused += 1
            self.breaker.succeeded()
            if _takes_no_writes(error):
                self._leave()
            raise Refused(f"Redis refused: {error}") from error
        except TimeoutError as error:
            stats.timeouts += 1
            if loop.time() - due > STALL:
                stats.stalls += 1
                raise Unavailable("this process stood still for longer than the Redis deadline") from error
            raise self._failed(f"Redis did not answer within {deadline * 1000:.0f} ms") from error
        except Exception as error:  # garbage on the wire makes the parser raise nearly anything
            raise self._failed(f"Redis answered garbage: {type(error).__name__}") from error
        self.breaker.succeeded()
        if isinstance(result, list) and any(map(_takes_no_writes, result)):
            self._leave()
        return result

    def _leave(self) -> None:
        """Gives up the connections that nobody uses, soon, so that what comes next asks again where the server is."""
        now = asyncio.get_running_loop().time()
        if now - self._left_at >= LEAVE_EVERY:
            self._left_at = now
            self._stats.left += 1
            self._leaving = asyncio.create_task(self._disconnect(), name="redis-leave")

    async def _disconnect(self) -> None:
        with contextlib.suppress(Exception):  # of ends that are no clean ones
            await self.client.connection_pool.disconnect(inuse_connections=False)

    def _failed(self, message: str) -> Unavailable:
        self._stats.failures += 1
        self.breaker.failed()
        self._on_trouble()
        return Unavailable(message)

    def _maybe_probe(self) -> None:
        if (self._probe is None or self._probe.done()) and self.breaker.take_probe():
            self._on_trouble()
            self._probe = asyncio.create_task(self._ping(), name="redis-probe")

    async def _ping(self) -> None:
        """Has longer than a request has, since it may have to connect, and ask Sentinels where."""
        with contextlib.suppress(Unavailable):
            await self._attempt(lambda client: execute(client, "PING"), self._probe_deadline)

    async def aclose(self) -> None:
        for task in (self._probe, self._leaving):
            if task is not None:
                task.cancel()
                await asyncio.gather(task, return_exceptions=True)
        await close(self.client)


def _takes_no_writes(answer: object) -> bool:
    """A replica's refusal. Redis 6 wraps that of a command in a script in an error of another kind."""
    return isinstance(answer, ResponseError) and (isinstance(answer, ReadOnlyError) or "-READONLY " in str(answer))


def connect(address: Address, connections: int, **place: str | int) -> Redis:
    """A client for the one server or the Sentinels' master; of a Cluster for the node at `place` (host, port)."""
    if address.kind == "sentinel":
        return _master(address, connections)
    options = {**_PLAIN, **address.options, **place}
    return Redis(
        connection_pool=BlockingConnectionPool(
            max_connections=connections, timeout=None, retry=Retry(NoBackoff(), 0), **options
        )
    )


def _master(address: Address, connections: int) -> Redis:
    own = {**address.sentinel_options, "protocol": 2, "retry": Retry(NoBackoff(), 0)}
    own |= {"socket_timeout": None, "socket_connect_timeout": SENTINEL_PATIENCE}
    sentinels = Sentinel([])  # type: ignore[no-untyped-call]
    sentinels.sentinels = [_Impatient(host=host, port=port, **own) for host, port in address.hosts]
    options = {name: value for name, value in address.options.items() if name != "connection_class"}
    secure = bool(address.sentinel_options["ssl"])
    # This pool does not wait for a connection but raises, so the limit is far from what is ever under way.
    pool = SentinelConnectionPool(  # type: ignore[no-untyped-call]
        address.service,
        sentinels,
        max_connections=32 * connections,
        retry=Retry(NoBackoff(), 0),
        connection_class=SentinelManagedSSLConnection if secure else SentinelManagedConnection,
        **{**_PLAIN, **options},
    )
    return Redis(connection_pool=pool)


class _Impatient(Redis):
    """A client of one Sentinel, which must not use up the time of the others when it hangs; nor swallow cancellations,
    as it would with redis-py's own timeout: see _PLAIN."""

    async def execute_command(self, *args: Any, **options: Any) -> Any:
        try:
            async with asyncio.timeout(SENTINEL_PATIENCE):
                return await super().execute_command(*args, **options)  # type: ignore[no-untyped-call]
        except TimeoutError:
            raise RedisTimeoutError("the Sentinel did not answer") from None


async def execute(client: Redis, *command: Word) -> Any:
    return await client.execute_command(*command)  # type: ignore[no-untyped-call]


async def close(client: Redis) -> None:
    """The client, its connections, and those to its Sentinels."""
    pool = client.connection_pool
    try:
        await client.aclose()
        await pool.disconnect()
    finally:  # also when a connection to the master ends badly
        if isinstance(pool, SentinelConnectionPool):
            await pool.sentinel_manager.aclose()
