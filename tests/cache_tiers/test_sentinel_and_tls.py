"""L2 behind Sentinels or a name, where a failover is followed, and over TLS, where nobody else is listened to."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import time
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass

import pytest

from cache_tiers.entry import CacheKey, Entry
from cache_tiers.link import RedisLink, Unavailable
from cache_tiers.server import close, connect, execute
from tests.cache_tiers.conftest import MakeGateway, until
from tests.cache_tiers.fleets import Node, NoTls, SentinelServers, TlsServer

ENTRY = Entry((b"frame",), cost_ms=1.0, created=time.time(), tags=("subject",))


@dataclass
class Name:
    means: int
    """A port."""
    port: int = 0

    @property
    def url(self) -> str:
        return f"redis://127.0.0.1:{self.port}"


def key(n: int) -> CacheKey:
    return CacheKey("t", n.to_bytes(32, "big"))


@pytest.fixture
def watched() -> Iterator[SentinelServers]:
    servers = SentinelServers()
    yield servers
    servers.close()


@pytest.fixture(scope="module")
def secure() -> Iterator[TlsServer]:
    try:
        server = TlsServer()
    except NoTls:
        pytest.skip("no redis-server on this machine was built with TLS")
    yield server
    server.close()


async def test_the_sentinels_master_is_used_and_its_successor_after_it(
    watched: SentinelServers, make_gateway: MakeGateway
) -> None:
    gateway = await make_gateway(on=watched, deadline=1.0, probe_after=0.05)
    assert await gateway.tier.put(key(1), ENTRY)
    assert await gateway.tier.get(key(1)) == ENTRY
    assert watched.master.client.dbsize() > 0
    await until(lambda: watched.replica.client.dbsize() == watched.master.client.dbsize())  # WAIT knows one connection
    watched.master.kill()
    await until(lambda: watched.replica.client.info("replication")["role"] == "master", 30)
    async with asyncio.timeout(30):  # from then on
        while await gateway.tier.get(key(1)) is None:
            await asyncio.sleep(0.01)
        await until(lambda: gateway.events.following)
    assert await gateway.tier.put(key(2), ENTRY)
    assert (await gateway.gateways.erase("subject")).complete
    assert await gateway.tier.get(key(1)) is None


@contextlib.asynccontextmanager
async def name_of(first: Node) -> AsyncIterator[Name]:
    """A relay, as a name that is looked up for each connection and stays where it is for as long as that lasts."""
    name, relays = Name(first.port), set[asyncio.Task[None]]()

    async def pump(source: asyncio.StreamReader, sink: asyncio.StreamWriter) -> None:
        with contextlib.suppress(ConnectionError):
            while data := await source.read(1 << 16):
                sink.write(data)
                await sink.drain()
        sink.close()

    async def relay(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        to_reader, to_writer = await asyncio.open_connection("127.0.0.1", name.means)
        for pumping in (pump(reader, to_writer), pump(to_reader, writer)):
            task = asyncio.create_task(pumping)
            relays.add(task)
            task.add_done_callback(relays.discard)

    server = await asyncio.start_server(relay, "127.0.0.1", 0)
    name.port = int(server.sockets[0].getsockname()[1])
    try:
        yield name
    finally:
        server.close()
        await asyncio.gather(*relays)


async def test_a_name_that_comes_to_mean_another_server_is_followed(make_gateway: MakeGateway) -> None:
    """The server behind it before goes on answering, as a replica of nobody that can be reached: it reads, and refuses
    to write."""
    async with contextlib.AsyncExitStack() as stack:
        before = Node()
        stack.callback(before.close)
        after = Node("--port", "{port}", "--save", "", "--replicaof", "127.0.0.1", str(before.port))
        stack.callback(after.close)
        await until(lambda: after.client.info("replication")["master_link_status"] == "up")
        name = await stack.enter_async_context(name_of(before))
        gateway = await make_gateway(on=name)
        stack.push_async_callback(gateway.close)
        assert await gateway.tier.put(key(1), ENTRY)
        await until(lambda: after.client.exists(gateway.link.names.value(key(1))))  # WAIT is of one's own connection
        after.client.replicaof("no", "one")
        before.client.replicaof("127.0.0.1", 1)
        name.means = after.port
        async with asyncio.timeout(30):
            while not await gateway.tier.put(key(2), ENTRY):
                await asyncio.sleep(0.01)
        assert after.client.exists(gateway.link.names.value(key(2)))
        assert await gateway.tier.get(key(1)) == ENTRY
        assert (await gateway.gateways.erase("subject")).complete, "so it hears of events there"


async def test_a_service_no_sentinel_knows_is_unavailable(watched: SentinelServers) -> None:
    link = RedisLink(watched.url.replace("/main", "/other"), deadline=5.0)
    try:
        with pytest.raises(Unavailable, match="No master found for 'other'"):
            await link.call("GET", "k")
    finally:
        await link.aclose()


async def test_a_sentinel_that_hangs_is_passed_over(watched: SentinelServers) -> None:
    with socket.create_server(("127.0.0.1", 0)) as hanging:
        first = f"://127.0.0.1:{hanging.getsockname()[1]},"
        link = RedisLink(watched.url.replace("://", first), deadline=5.0)
        try:
            assert await link.call("SET", "k", "v")
        finally:
            await link.aclose()


async def test_a_question_to_a_sentinel_can_be_cancelled_at_any_step(watched: SentinelServers) -> None:
    """A cancellation that is lost is a deadline that is missed, and a task that nobody can end."""
    link = RedisLink(watched.url)
    client = connect(link.address, 1)
    sentinels = client.connection_pool.sentinel_manager
    try:
        for steps in range(20):
            for _ in range(5):
                asking = asyncio.create_task(sentinels.discover_master("main"))
                for _ in range(steps):
                    await asyncio.sleep(0)
                cancelled = asking.cancel()
                (outcome,) = await asyncio.gather(asking, return_exceptions=True)
                assert isinstance(outcome, asyncio.CancelledError) is cancelled
    finally:
        await close(client)
        await link.aclose()


async def test_a_reader_whose_closing_is_cut_short_leaves_no_connection(
    watched: SentinelServers, make_gateway: MakeGateway
) -> None:
    gateway = await make_gateway(on=watched)
    events = gateway.events
    await events.close()
    for steps in range(8):
        reader = events._reader = gateway.link.another("any")
        await execute(reader, "PING")
        pools = [reader.connection_pool]
        pools += [sentinel.connection_pool for sentinel in reader.connection_pool.sentinel_manager.sentinels]
        dropping = asyncio.create_task(events._drop_reader())
        for _ in range(steps):
            await asyncio.sleep(0)
        dropping.cancel()
        await asyncio.gather(dropping, return_exceptions=True)
        await events.close()
        assert not any(each.is_connected for pool in pools for each in pool._available_connections), steps


async def test_over_tls_with_certificates_of_both(secure: TlsServer, make_gateway: MakeGateway) -> None:
    a, b = await make_gateway("a", on=secure), await make_gateway("b", on=secure)
    assert await a.tier.put(key(1), ENTRY)
    assert await b.tier.get(key(1)) == ENTRY
    assert (await b.gateways.erase("subject")).complete


@pytest.mark.parametrize(
    "change",
    [
        lambda url: url.replace("rediss://", "redis://").partition("?")[0],
        lambda url: url.partition("?")[0],
        lambda url: url.replace("127.0.0.1", "localhost"),
    ],
    ids=["no TLS", "unknown CA", "another name"],
)
async def test_without_trust_there_is_no_talk(secure: TlsServer, change: object) -> None:
    link = RedisLink(change(secure.url), deadline=5.0)  # type: ignore[operator]
    try:
        with pytest.raises(Unavailable):
            await link.call("GET", "k")
    finally:
        await link.aclose()
