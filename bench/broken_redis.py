"""A Redis that can be broken: a server of our own, to be killed, paused and changed, and a relay before it that can be
slow, silent, cut off, or answer garbage. Real processes and sockets; both end with the block that began them.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Coroutine, Iterator
from pathlib import Path
from typing import Any, TypeVar

import redis
from redis.backoff import NoBackoff
from redis.retry import Retry

from cache_tiers.embedded import _LAUNCH, _find_binary

T = TypeVar("T")


class RedisServer:
    """A redis-server process on a Unix socket, with nothing persisted, as a gateway's Redis should be set up."""

    def __init__(self, *options: str) -> None:
        self.folder = Path(tempfile.mkdtemp(prefix="refrain-redis-"))
        self.socket = self.folder / "s"
        binary, _ = _find_binary(self.folder)
        settings = ["--port", "0", "--unixsocket", str(self.socket), "--save", "", "--appendonly", "no"]
        settings += ["--dir", str(self.folder), "--maxmemory-policy", "volatile-lfu"]
        # Ends with us, however we end.
        launch = [sys.executable, "-ISc", _LAUNCH, str(os.getpid())] if sys.platform == "linux" else []
        self._command = [*launch, binary, *settings, *options]
        self.client = redis.Redis(unix_socket_path=str(self.socket), retry=Retry(NoBackoff(), 0))
        self.start()

    def start(self) -> None:
        """Empty, for nothing was persisted."""
        self.process = subprocess.Popen(self._command, stdout=subprocess.DEVNULL)
        deadline = time.monotonic() + 10
        while True:
            try:
                self.client.ping()
                return
            except redis.RedisError:
                if time.monotonic() > deadline or self.process.poll() is not None:
                    raise
                time.sleep(0.005)

    def kill(self) -> None:
        self.process.kill()
        self.process.wait()

    @contextlib.contextmanager
    def killed(self) -> Iterator[None]:
        self.kill()
        try:
            yield
        finally:
            self.start()

    @contextlib.contextmanager
    def paused(self) -> Iterator[None]:
        """Its connections stay, and nothing is answered."""
        self.process.send_signal(signal.SIGSTOP)
        try:
            yield
        finally:
            self.process.send_signal(signal.SIGCONT)

    @contextlib.contextmanager
    def full(self) -> Iterator[None]:
        """Every command that needs memory is refused, and nothing is evicted to make room."""
        self.client.config_set("maxmemory-policy", "noeviction")
        self.client.config_set("maxmemory", 1)
        try:
            yield
        finally:
            self.client.config_set("maxmemory", 0)
            self.client.config_set("maxmemory-policy", "volatile-lfu")

    @contextlib.contextmanager
    def read_only(self) -> Iterator[None]:
        """A replica whose master has gone, as after a failover: it answers from what it has, and takes no write."""
        self.client.execute_command("REPLICAOF", "127.0.0.1", "1")
        try:
            yield
        finally:
            self.client.execute_command("REPLICAOF", "NO", "ONE")

    def close(self) -> None:
        self.client.close()
        self.kill()
        shutil.rmtree(self.folder, ignore_errors=True)


class Relay:
    """TCP before the Unix socket of a server, on an event loop in a thread of its own."""

    def __init__(self, socket: Path) -> None:
        self._socket = socket
        self._delay_s = 0.0
        self._garble = False
        self._cut = False
        self._random = random.Random(5)
        self._writers: set[asyncio.StreamWriter] = set()
        self._loop = asyncio.new_event_loop()
        self._heard = asyncio.Event()
        self._heard.set()
        self._thread = threading.Thread(target=self._loop.run_forever, name="redis-relay", daemon=True)
        self._thread.start()
        self._server = self._do(asyncio.start_server(self._relay, "127.0.0.1", 0))
        self.port: int = self._server.sockets[0].getsockname()[1]

    @property
    def url(self) -> str:
        return f"redis://127.0.0.1:{self.port}"

    @contextlib.contextmanager
    def slow(self, delay_s: float) -> Iterator[None]:
        """Every reply comes so much later."""
        self._delay_s = delay_s
        try:
            yield
        finally:
            self._delay_s = 0.0

    @contextlib.contextmanager
    def silent(self) -> Iterator[None]:
        """Nothing passes either way, and no connection is closed: as behind a firewall that drops packets. What was
        held is passed on afterwards."""
        self._loop.call_soon_threadsafe(self._heard.clear)
        try:
            yield
        finally:
            self._loop.call_soon_threadsafe(self._heard.set)

    @contextlib.contextmanager
    def cut(self) -> Iterator[None]:
        """Connections are reset, and so is every new one."""
        self._do(self._reset(True))
        try:
            yield
        finally:
            self._do(self._reset(False))

    @contextlib.contextmanager
    def garbling(self) -> Iterator[None]:
        """One byte of every piece of a reply is another. Connections end with it, since their state is anything."""
        self._garble = True
        try:
            yield
        finally:
            self._garble = False
            self._do(self._reset(False))

    def close(self) -> None:
        self._do(self._end())
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()

    def _do(self, work: Coroutine[Any, Any, T]) -> T:
        return asyncio.run_coroutine_threadsafe(work, self._loop).result(10)

    async def _reset(self, cut: bool) -> None:
        self._cut = cut
        for writer in self._writers:
            writer.transport.abort()

    async def _end(self) -> None:
        await self._reset(True)
        self._heard.set()
        self._server.close()
        await self._server.wait_closed()
        while others := asyncio.all_tasks() - {asyncio.current_task()}:
            await asyncio.wait(others)

    async def _relay(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._writers.add(writer)
        # A side may end at any line below; then so does the other.
        with contextlib.suppress(OSError):
            try:
                if not self._cut:
                    behind, to_behind = await asyncio.open_unix_connection(self._socket)
                    self._writers.add(to_behind)
                    try:
                        sides = [self._pass(reader, to_behind, False), self._pass(behind, writer, True)]
                        await asyncio.gather(*sides)
                    finally:
                        self._writers.discard(to_behind)
                        to_behind.close()
            finally:
                self._writers.discard(writer)
                writer.transport.abort()

    async def _pass(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, replies: bool) -> None:
        try:
            while data := await reader.read(1 << 16):
                if replies and self._delay_s:
                    await asyncio.sleep(self._delay_s)
                await self._heard.wait()
                if replies and self._garble:
                    at = self._random.randrange(len(data))
                    data = data[:at] + bytes((data[at] ^ self._random.randrange(1, 256),)) + data[at + 1 :]
                writer.write(data)
                await writer.drain()
        finally:
            writer.close()
