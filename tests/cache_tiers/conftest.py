"""A real Redis for the tests of this folder: one server per session on a Unix socket, emptied for each test; and
gateways, as many as a test wants, each with its own link, keyring, stream, epochs and tier on that server."""

from __future__ import annotations

import asyncio
import contextlib
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import pytest
import redis
from redis.backoff import NoBackoff
from redis.retry import Retry

from cache_tiers.embedded import _LAUNCH, _find_binary
from cache_tiers.erasure import Gateways
from cache_tiers.events import EventStream, RedisEpochs
from cache_tiers.link import RedisLink
from cache_tiers.redis import RedisTier
from cache_tiers.sealed import Keyring
from cache_tiers.tier import Tier
from tests.cache_tiers.fleets import ClusterServers, Stoppable
from tests.cache_tiers.tiers import tier_factories

MASTER = bytes(range(32))


class Server(Stoppable):
    """A redis-server process of the tests, with nothing persisted. It ends with the tests even if they are killed."""

    def __init__(self, *options: str) -> None:
        self.folder = Path(tempfile.mkdtemp(prefix="refrain-test-"))
        self.socket = self.folder / "s"
        binary, _ = _find_binary(self.folder)
        settings = ["--port", "0", "--unixsocket", str(self.socket), "--save", "", "--appendonly", "no"]
        settings += ["--dir", str(self.folder), "--maxmemory-policy", "volatile-lfu", "--lfu-decay-time", "0"]
        settings += options
        launch = [sys.executable, "-ISc", _LAUNCH, str(os.getpid())] if sys.platform == "linux" else []
        self._command = [*launch, binary, *settings]
        self.client = redis.Redis(unix_socket_path=str(self.socket), retry=Retry(NoBackoff(), 0))
        self.run()

    @property
    def url(self) -> str:
        return f"unix://{self.socket}"

    def run(self) -> None:
        self.process = subprocess.Popen(self._command, stdout=subprocess.DEVNULL)
        deadline = time.monotonic() + 10
        while True:
            try:
                self.client.ping()
                return
            except redis.RedisError:
                assert time.monotonic() < deadline, "the test server does not answer"
                assert self.process.poll() is None, "the test server ended"
                time.sleep(0.005)


_shared: list[Server] = []
_shared_cluster: list[ClusterServers] = []


def shared_server() -> Server:
    if not _shared:
        _shared.append(Server())
    _shared[0].client.flushall()
    return _shared[0]


def shared_cluster() -> ClusterServers:
    """Three primaries, empty. Not to be stopped or paused."""
    if not _shared_cluster:
        _shared_cluster.append(ClusterServers())
    _shared_cluster[0].flush()
    return _shared_cluster[0]


@pytest.fixture(scope="session", autouse=True)
def _stop_shared_servers() -> Iterator[None]:
    yield
    while _shared:
        _shared.pop().close()
    while _shared_cluster:
        _shared_cluster.pop().close()


@pytest.fixture
def server() -> Server:
    """The session's server, empty. Not to be stopped or paused: see `own_server`."""
    return shared_server()


@pytest.fixture
def own_server() -> Iterator[Server]:
    server = Server()
    yield server
    server.close()


class Clock:
    """A clock that stands until it is moved."""

    def __init__(self, now: float = 1_000_000.0) -> None:
        self.now = now

    def __call__(self) -> float:
        return self.now


@dataclass
class Gateway:
    """What one gateway has on a shared Redis."""

    name: str
    link: RedisLink
    keyring: Keyring
    events: EventStream
    epochs: RedisEpochs
    tier: RedisTier
    gateways: Gateways

    async def start(self) -> None:
        await self.gateways.start()
        await self.events.start()
        await self.tier.start()

    async def close(self) -> None:
        await self.tier.close()
        await self.gateways.close()
        await self.events.close()
        await self.link.aclose()


class HasUrl(Protocol):
    @property
    def url(self) -> str: ...


def gateway_on(server: HasUrl, name: str = "a", **settings: Any) -> Gateway:
    link_settings = {
        k: settings.pop(k) for k in ("deadline", "failures", "probe_after", "clock", "pause") if k in settings
    }
    stream_settings = {k: settings.pop(k) for k in ("max_length", "retry_after") if k in settings}
    fleet_settings = {k: settings.pop(k) for k in ("lease", "mourning", "alone") if k in settings}
    # Deadlines are long, so that a busy machine fails no test; tests of deadlines give their own.
    link = RedisLink(server.url, **{"deadline": 5.0, **link_settings})
    events = EventStream(link, gateway=name, block=0.2, deadline=5.0, **{"retry_after": 0.01, **stream_settings})
    epochs = RedisEpochs(link, events, deadline=5.0)
    keyring = Keyring(link, settings.pop("masters", [MASTER]), deadline=5.0)
    tier = RedisTier(link, keyring, epochs=epochs, events=events, **{"write_deadline": 5.0, **settings})
    return Gateway(
        name, link, keyring, events, epochs, tier, Gateways(link, events, epochs, tier, keyring, **fleet_settings)
    )


MakeGateway = Callable[..., Awaitable[Gateway]]


@pytest.fixture
async def make_gateway(server: Server) -> AsyncIterator[MakeGateway]:
    """Starts gateways, on the session's server unless told otherwise, and closes them after the test."""
    async with contextlib.AsyncExitStack() as stack:

        async def make(name: str = "a", on: HasUrl = server, start: bool = True, **settings: Any) -> Gateway:
            gateway = gateway_on(on, name, **settings)
            stack.push_async_callback(gateway.close)
            if start:
                await gateway.start()
            return gateway

        yield make


async def until(condition: Callable[[], Any], seconds: float = 10.0) -> None:
    """Waits for a condition by looking, bounded. A server that cannot be asked does not meet it: one that is made
    master by a Sentinel first closes the connections of its clients."""
    async with asyncio.timeout(seconds):
        while True:
            with contextlib.suppress(redis.ConnectionError):
                if condition():
                    return
            await asyncio.sleep(0.002)


@asynccontextmanager
async def tier_on(server: HasUrl) -> AsyncIterator[Tier]:
    gateway = gateway_on(server)
    await gateway.start()
    try:
        yield gateway.tier
    finally:
        await gateway.close()


def redis_tier() -> AbstractAsyncContextManager[Tier]:
    return tier_on(shared_server())


def redis_cluster_tier() -> AbstractAsyncContextManager[Tier]:
    return tier_on(shared_cluster())


tier_factories["redis"] = redis_tier
tier_factories["redis-cluster"] = redis_cluster_tier
