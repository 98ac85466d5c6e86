"""The gRPC server: it listens where it was told or says why not, and leaves without cutting anybody off."""

from __future__ import annotations

import asyncio
import resource
import socket
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

import grpc
import pytest
import pytest_asyncio
from grpc_health.v1 import health_pb2, health_pb2_grpc

from gateway.server import SERVICES, GrpcServer, PortTaken
from protos.refrain.v1 import speech_pb2_grpc
from tests.gateway.rig import Status, gateway, say

Health = health_pb2.HealthCheckResponse
LONG_S = 60.0
"""Longer than any test may take: a grace that is never used up."""


class Gate:
    """A service of one call, which ends when it is let, and notes when it began or was cancelled."""

    def __init__(self) -> None:
        self.begun, self.open, self.cancelled = asyncio.Event(), asyncio.Event(), asyncio.Event()

    def handler(self) -> Any:
        async def wait(data: bytes, context: object) -> bytes:
            self.begun.set()
            try:
                await self.open.wait()
            except asyncio.CancelledError:
                self.cancelled.set()
                raise
            return data

        return grpc.method_handlers_generic_handler("test.Gate", {"Wait": grpc.unary_unary_rpc_method_handler(wait)})


@pytest.fixture
def gate() -> Gate:
    return Gate()


@pytest_asyncio.fixture
async def server(gate: Gate) -> AsyncIterator[GrpcServer]:
    server = GrpcServer([gate.handler()], 1 << 20)
    yield server
    await server.stop(0)


def _wait(channel: grpc.aio.Channel) -> Any:
    return channel.unary_unary("/test.Gate/Wait", bytes, bytes)


async def test_as_many_connections_are_served_as_the_system_allows(server: GrpcServer) -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (min(soft, 512), hard))
    try:
        await server.start("127.0.0.1", 0)
        assert resource.getrlimit(resource.RLIMIT_NOFILE) == (hard, hard)
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


async def test_a_port_that_is_taken_is_said_to_be(server: GrpcServer) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(PortTaken, match=f"127.0.0.1:{port}.*another gateway"):
            await server.start("127.0.0.1", port)
    assert not server.serving


async def test_a_second_server_does_not_share_the_port_of_the_first(server: GrpcServer) -> None:
    port = await server.start("127.0.0.1", 0)
    second = GrpcServer([], 1 << 20)
    with pytest.raises(PortTaken):
        await second.start("127.0.0.1", port)
    await second.stop(0)


async def test_a_port_is_free_again_after_the_server_on_it_has_stopped() -> None:
    first, second = GrpcServer([], 1 << 20), GrpcServer([], 1 << 20)
    port = await first.start("127.0.0.1", 0)
    await first.stop(0)
    assert await second.start("127.0.0.1", port) == port
    await second.stop(0)


async def test_a_call_in_progress_ends_well_while_health_says_not_serving_and_newcomers_are_refused(
    server: GrpcServer, gate: Gate
) -> None:
    port = await server.start("127.0.0.1", 0)
    assert server.serving
    async with grpc.aio.insecure_channel(f"127.0.0.1:{port}") as channel:
        stub: Any = health_pb2_grpc.HealthStub(channel)
        watches = [stub.Watch(health_pb2.HealthCheckRequest(service=service)) for service in ("", *SERVICES)]
        assert [(await watch.read()).status for watch in watches] == [Health.SERVING] * len(watches)
        wait = _wait(channel)
        call = asyncio.ensure_future(wait(b"hello"))
        await gate.begun.wait()
        stopping = asyncio.create_task(server.stop(LONG_S))
        assert [(await watch.read()).status for watch in watches] == [Health.NOT_SERVING] * len(watches)
        assert not server.serving
        for watch in watches:
            watch.cancel()
        async with grpc.aio.insecure_channel(f"127.0.0.1:{port}") as newcomer:
            with pytest.raises(grpc.aio.AioRpcError) as refused:
                await _wait(newcomer)(b"too late")
            assert refused.value.code() is grpc.StatusCode.UNAVAILABLE
        assert not stopping.done()
        gate.open.set()
        assert await call == b"hello"
        await stopping
    assert not gate.cancelled.is_set()


async def test_a_call_that_outlasts_the_grace_is_cancelled(server: GrpcServer, gate: Gate) -> None:
    port = await server.start("127.0.0.1", 0)
    async with grpc.aio.insecure_channel(f"127.0.0.1:{port}") as channel:
        call = asyncio.ensure_future(_wait(channel)(b"hello"))
        await gate.begun.wait()
        await server.stop(0)
        with pytest.raises(grpc.aio.AioRpcError):
            await call
        await gate.cancelled.wait()


async def test_a_message_larger_than_allowed_is_refused_and_one_as_large_is_not(server: GrpcServer, gate: Gate) -> None:
    gate.open.set()
    port = await server.start("127.0.0.1", 0)
    async with grpc.aio.insecure_channel(f"127.0.0.1:{port}") as channel:
        wait = _wait(channel)
        assert len(await wait(bytes(1 << 20))) == 1 << 20
        with pytest.raises(grpc.aio.AioRpcError) as refused:
            await wait(bytes((1 << 20) + 1))
        assert refused.value.code() is grpc.StatusCode.RESOURCE_EXHAUSTED


async def test_more_calls_at_once_than_allowed_are_refused_and_the_others_end_well(gate: Gate) -> None:
    server = GrpcServer([gate.handler()], 1 << 20, max_calls=2)
    port = await server.start("127.0.0.1", 0)
    async with grpc.aio.insecure_channel(f"127.0.0.1:{port}") as channel:
        wait = _wait(channel)
        calls = [asyncio.ensure_future(wait(b"hello")) for _ in range(3)]
        done, others = await asyncio.wait(calls, return_when=asyncio.FIRST_COMPLETED)
        error: Any = done.pop().exception()
        assert error.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
        gate.open.set()
        assert await asyncio.gather(*others) == [b"hello", b"hello"]
    await server.stop(0)


async def test_a_gateway_that_is_told_to_stop_finishes_what_it_has_begun(tmp_path: Path) -> None:
    """Answer, store, and only then leave: what was computed for the last caller is there after the restart."""
    async with AsyncExitStack() as callers:
        async with gateway(tmp_path, listen={"grace": LONG_S}) as rig:
            address = f"127.0.0.1:{rig.running.port}"
            channel = await callers.enter_async_context(grpc.aio.insecure_channel(address))
            speech: Any = speech_pb2_grpc.SpeechStub(channel)  # type: ignore[no-untyped-call]
            health: Any = health_pb2_grpc.HealthStub(channel)
            rig.speaker.open.clear()
            call = asyncio.ensure_future(speech.Synthesize(say()))
            await rig.speaker.started.wait()
            watch = health.Watch(health_pb2.HealthCheckRequest())
            assert (await watch.read()).status == Health.SERVING

            async def let_it_end() -> Any:
                assert (await watch.read()).status == Health.NOT_SERVING
                watch.cancel()
                rig.speaker.open.set()
                return await call

            ending = asyncio.create_task(let_it_end())
        assert (await ending).cache_info.status == Status.MISS
    async with gateway(tmp_path) as rig:
        again = await rig.speech.Synthesize(say())
        assert (again.cache_info.status, again.cache_info.tier) == (Status.HIT_EXACT, "redis")
