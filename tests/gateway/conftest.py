"""A Redis server of the test's own, and one gateway for many tests that only look at it from outside."""

from __future__ import annotations

import asyncio
import contextlib
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import grpc
import pytest

from tests.cache_tiers.conftest import Server
from tests.gateway.rig import Rig, gateway


@pytest.fixture
def redis_server() -> Iterator[Server]:
    server = Server()
    yield server
    server.close()


@contextlib.contextmanager
def threaded(folder: Path, **tables: Any) -> Iterator[Rig]:
    """A gateway on an event loop in a thread of its own, for tests that block; its own stubs are not for them."""
    ready: list[Rig] = []
    started, stop = threading.Event(), asyncio.Event()
    loop = asyncio.new_event_loop()

    async def serve() -> None:
        try:
            async with gateway(folder, **tables) as rig:
                ready.append(rig)
                started.set()
                await stop.wait()
        finally:
            started.set()

    thread = threading.Thread(target=loop.run_until_complete, args=(serve(),))
    thread.start()
    started.wait()
    assert ready, "the gateway did not start"
    yield ready[0]
    loop.call_soon_threadsafe(stop.set)
    thread.join()
    loop.close()


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Rig]:
    """One for all tests of a module."""
    with threaded(tmp_path_factory.mktemp("gateway"), listen={"max_message_bytes": 6 << 20}) as rig:
        yield rig


@pytest.fixture
def channel(served: Rig) -> Iterator[grpc.Channel]:
    options = [("grpc.max_send_message_length", -1), ("grpc.max_receive_message_length", -1)]
    with grpc.insecure_channel(f"127.0.0.1:{served.running.port}", options) as channel:
        yield channel
