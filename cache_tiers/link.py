"""One Redis as seen from here: the client for a URL, the names of its keys, a deadline and a breaker on every call.

Every call either answers within its deadline or raises `Unavailable`; what that means (a miss, a dropped write, a
failed erasure) is for the caller. While the breaker is open no call waits at all: a probe runs beside the requests,
never in one. Commands go out one by one or in a pipeline, never in a transaction, so that a Sentinel or Cluster client
can stand where the single-server client stands; the scripts that name keys of several slots say what a Cluster needs.
"""

from __future__ import annotations

import asyncio
import contextlib
import re
import time
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar
from urllib.parse import urlsplit

from redis.asyncio import BlockingConnectionPool, Redis
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff
from redis.exceptions import BusyLoadingError, ConnectionError, ResponseError
from redis.exceptions import TimeoutError as RedisTimeoutError

from cache_tiers.entry import CacheKey

T = TypeVar("T")

Word = str | bytes | int
Command = tuple[Word, ...]

STALL = 0.02
"""A timer that fires this late (seconds) says that this process stood still, and nothing about the server."""


class Unavailable(Exception):
    """The server did not answer in time, is not there, or is left alone because its breaker is open."""


class Refused(Unavailable):
    """The server answered with an error: out of memory, read-only, wrong type."""


class Names:
    """What the keys in Redis are called.

    A value and its record share a hash tag, as do the control records of the whole fleet, so that each group lies in
    one slot of a Cluster.
    """

    def __init__(self, prefix: str = "refrain") -> None:
        if not re.fullmatch(r"[A-Za-z0-9_.:-]{1,64}", prefix):
            raise ValueError(f"Redis key prefix {prefix!r}: allowed are 1 to 64 letters, digits and _ . : -")
        self.prefix = prefix
        self.values = f"{prefix}:v:"
        self.records = f"{prefix}:r:"
        self.tags = f"{prefix}:tag:"
        self.epochs = f"{prefix}:{{control}}:epochs"
        self.erasing = f"{prefix}:{{control}}:erasing"
        self.events = f"{prefix}:{{control}}:events"
        self.gateways = f"{prefix}:{{control}}:gateways"
        self.tenants = f"{prefix}:{{control}}:tenants"

    def value(self, key: CacheKey) -> str:
        return f"{self.values}{{{key.digest.hex()}}}:{key.tenant}"

    def record(self, key: CacheKey) -> str:
        return f"{self.records}{{{key.digest.hex()}}}:{key.tenant}"

    def of_tenant(self, tenant: str) -> str:
        """A pattern for the values and records of a tenant; a few others may match it too."""
        literal = re.sub(r"([][*?\\])", r"\\\1", tenant)
        return f"{self.prefix}:[vr]:{{*}}:{literal}"

    def tag(self, tag: str) -> str:
        return f"{self.tags}{{{tag}}}"

    def data_keys(self, tenant: str) -> str:
        return f"{self.prefix}:keys:{{{tenant}}}"

    def member(self, key: CacheKey) -> bytes:
        """The key as a member of a tag, in few bytes, since no eviction makes room for members."""
        return bytes((len(key.digest),)) + key.digest + key.tenant.encode()

    def key_of_member(self, member: bytes) -> CacheKey:
        """The key that `member` wrote; for anything else one that names nothing."""
        end = 1 + (member[0] if member else 0)
        return CacheKey(member[end:].decode("utf-8", "replace"), member[1:end])

    def key_of(self, name: bytes) -> CacheKey | None:
        """The key whose value or record has this name; None for a name that is not of this form."""
        text = name.decode("utf-8", "replace")
        for start in (self.values, self.records):
            if text.startswith(start + "{"):
                digest, found, tenant = text[len(start) + 1 :].partition("}:")
                if found:
                    try:
                        return CacheKey(tenant, bytes.fromhex(digest))
                    except ValueError:
                        return None
        return None


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
    skipped: int = 0
    """Calls not made because the breaker was open."""


class RedisLink:
    def __init__(
        self,
        url: str,
        *,
        prefix: str = "refrain",
        deadline: float = 0.05,
        connections: int = 32,
        failures: int = 5,
        probe_after: float = 0.5,
        probe_deadline: float = 1.0,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.names = Names(prefix)
        self.stats = LinkStats()
        self.breaker = Breaker(failures, probe_after, clock)
        self.deadline = deadline
        self._probe_deadline = probe_deadline
        self._url = url
        self.client = self._connect(connections)
        self._probe: asyncio.Task[None] | None = None

    def _connect(self, connections: int) -> Redis:
        scheme = urlsplit(self._url).scheme
        if scheme not in ("redis", "rediss", "unix"):
            raise ValueError(f"Redis URL scheme {scheme!r}: allowed are redis, rediss and unix")
        # Deadlines are ours, so the client neither retries nor times out by itself: with a socket_timeout it would send
        # through asyncio.wait_for, which in Python 3.11 swallows a cancellation that comes as the send completes.
        pool = BlockingConnectionPool.from_url(
            self._url,
            max_connections=connections,
            timeout=None,
            retry=Retry(NoBackoff(), 0),
            protocol=2,
            socket_timeout=None,
            socket_read_size=1 << 17,
        )
        return Redis(connection_pool=pool)

    def another(self, connections: int = 1) -> Redis:
        """A client of its own for a reader that blocks. The caller closes it."""
        return self._connect(connections)

    async def call(self, *command: Word, deadline: float | None = None) -> Any:
        """The answer to one command. Raises Unavailable, within the deadline."""
        return await self._guarded(lambda: self._send(*command), deadline)

    async def pipeline(self, commands: Sequence[Command], *, deadline: float | None = None) -> list[Any]:
        """Many commands in one round trip, not a transaction. An answer that is an error stands in its place."""

        async def run() -> list[Any]:
            pipe = self.client.pipeline(transaction=False)
            for command in commands:
                pipe.execute_command(*command)
            return await pipe.execute(raise_on_error=False)

        return await self._guarded(run, deadline)

    async def _guarded(self, run: Callable[[], Awaitable[T]], deadline: float | None) -> T:
        if self.breaker.open:
            self.stats.skipped += 1
            self._maybe_probe()
            raise Unavailable("Redis is left alone after repeated failures")
        return await self._attempt(run, self.deadline if deadline is None else deadline)

    async def _send(self, *command: Word) -> Any:
        return await self.client.execute_command(*command)  # type: ignore[no-untyped-call]

    async def _attempt(self, run: Callable[[], Awaitable[T]], deadline: float) -> T:
        self.stats.calls += 1
        loop = asyncio.get_running_loop()
        due = loop.time() + deadline
        try:
            async with asyncio.timeout_at(due):
                result = await run()
        except (BusyLoadingError, ConnectionError, RedisTimeoutError) as error:
            raise self._failed(f"Redis: {error}") from error
        except ResponseError as error:
            self.stats.refused += 1
            self.breaker.succeeded()
            raise Refused(f"Redis refused: {error}") from error
        except TimeoutError as error:
            self.stats.timeouts += 1
            if loop.time() - due > STALL:
                self.stats.stalls += 1
                raise Unavailable("this process stood still for longer than the Redis deadline") from error
            raise self._failed(f"Redis did not answer within {deadline * 1000:.0f} ms") from error
        except Exception as error:  # garbage on the wire makes the parser raise nearly anything
            raise self._failed(f"Redis answered garbage: {type(error).__name__}") from error
        self.breaker.succeeded()
        return result

    def _failed(self, message: str) -> Unavailable:
        self.stats.failures += 1
        self.breaker.failed()
        return Unavailable(message)

    def _maybe_probe(self) -> None:
        if (self._probe is None or self._probe.done()) and self.breaker.take_probe():
            self._probe = asyncio.create_task(self._ping(), name="redis-probe")

    async def _ping(self) -> None:
        """Has longer than a request has, since it may have to connect."""
        with contextlib.suppress(Unavailable):
            await self._attempt(lambda: self._send("PING"), self._probe_deadline)

    async def aclose(self) -> None:
        if self._probe is not None:
            self._probe.cancel()
            await asyncio.gather(self._probe, return_exceptions=True)
        await self.client.aclose()
        await self.client.connection_pool.disconnect()
