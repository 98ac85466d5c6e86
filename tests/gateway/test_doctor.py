"""`refrain doctor` finds what is wrong with a real server, and what repairs it; `refrain keys` changes master keys."""

from __future__ import annotations

import json
import os
import stat
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from cache_tiers.entry import CacheKey
from cache_tiers.fitness import LFU, Finding, fitness
from cache_tiers.link import RedisLink
from cache_tiers.master_key import load_master_key
from cache_tiers.sealed import Keyring
from gateway.cli import main
from tests.cache_tiers.conftest import Server
from tests.cache_tiers.fleets import ClusterServers, Node, NoTls, SentinelServers, TlsServer

GOOD = ("--appendonly", "yes", "--maxmemory", "64mb")


@pytest.fixture(scope="module")
def good() -> Iterator[Server]:
    """Set up as it should be; each test puts back what it changes."""
    server = Server(*GOOD, *(word for name, value in LFU.items() for word in (f"--{name}", value)))
    yield server
    server.close()


def examine(url: str, capsys: pytest.CaptureFixture[str]) -> tuple[int, dict[str, dict[str, Any]]]:
    """The exit status, and the findings by check; of a Cluster by check and server."""
    status = main(["doctor", "--redis", url, "--json"])
    found = json.loads(capsys.readouterr().out)
    return status, {found["check"] + ("@" if found["where"] else "") + found["where"]: found for found in found}


def test_a_server_set_up_as_it_should_be_is_well(good: Server, capsys: pytest.CaptureFixture[str]) -> None:
    before = good.client.keys("*")
    status, found = examine(good.url, capsys)
    judged = {check: each["verdict"] for check, each in found.items() if check not in ("version", "latency")}
    assert set(judged.values()) == {"ok"}, judged
    assert found["version"]["verdict"] in ("ok", "warn")
    assert status == (1 if found["latency"]["verdict"] == "wrong" else 0), "on a very busy machine"
    assert good.client.keys("*") == before, "and nothing is left there"


@pytest.mark.parametrize(
    ("setting", "value", "check", "verdict", "repair"),
    [
        ("maxmemory-policy", "allkeys-lfu", "maxmemory-policy", "wrong", "CONFIG SET maxmemory-policy volatile-lfu"),
        ("maxmemory-policy", "noeviction", "maxmemory-policy", "wrong", "CONFIG SET maxmemory-policy volatile-lfu"),
        ("maxmemory-policy", "volatile-lru", "maxmemory-policy", "warn", "CONFIG SET maxmemory-policy volatile-lfu"),
        ("maxmemory", "0", "maxmemory", "wrong", "CONFIG SET maxmemory "),
        ("lfu-log-factor", "10", "lfu-log-factor", "warn", "CONFIG SET lfu-log-factor"),
        ("lfu-decay-time", "1", "lfu-decay-time", "warn", "CONFIG SET lfu-decay-time"),
        ("maxmemory-samples", "3", "maxmemory-samples", "warn", "CONFIG SET maxmemory-samples"),
        ("appendonly", "no", "persistence", "warn", "CONFIG SET appendonly yes"),
        ("appendfsync", "no", "persistence", "warn", "CONFIG SET appendfsync everysec"),
        ("client-output-buffer-limit", "normal 1mb 1mb 10", "output buffers", "warn", "client-output-buffer-limit"),
        ("maxclients", "50", "clients", "warn", "CONFIG SET maxclients 1000"),
    ],
)
def test_what_is_wrong_is_found_with_what_repairs_it(
    good: Server, capsys: pytest.CaptureFixture[str], setting: str, value: str, check: str, verdict: str, repair: str
) -> None:
    before = good.client.config_get(setting)[setting]
    good.client.config_set(setting, value)
    try:
        status, found = examine(good.url, capsys)
        assert found[check]["verdict"] == verdict, found[check]
        assert repair in found[check]["repair"]
        assert verdict != "wrong" or status == 1
    finally:
        good.client.config_set(setting, before)


def test_snapshots_alone_are_wrong_for_they_undo_erasures(good: Server, capsys: pytest.CaptureFixture[str]) -> None:
    good.client.config_set("appendonly", "no")
    good.client.config_set("save", "900 1")
    try:
        assert examine(good.url, capsys)[1]["persistence"]["verdict"] == "wrong"
    finally:
        good.client.config_set("save", "")
        good.client.config_set("appendonly", "yes")


def test_a_repair_repairs(good: Server, capsys: pytest.CaptureFixture[str]) -> None:
    good.client.config_set("lfu-log-factor", "10")
    _, found = examine(good.url, capsys)
    good.client.execute_command(*found["lfu-log-factor"]["repair"].split(" "))
    assert examine(good.url, capsys)[1]["lfu-log-factor"]["verdict"] == "ok"


def test_a_control_record_with_a_time_to_live_is_wrong(good: Server, capsys: pytest.CaptureFixture[str]) -> None:
    good.client.hset("refrain:{control}:epochs", "tag", 1)
    good.client.expire("refrain:{control}:epochs", 1000)
    try:
        found = examine(good.url, capsys)[1]["control records"]
        assert found["verdict"] == "wrong"
        assert "PERSIST" in found["repair"]
    finally:
        good.client.delete("refrain:{control}:epochs")


def test_rights_that_are_missing_are_named(good: Server, capsys: pytest.CaptureFixture[str]) -> None:
    good.client.execute_command(
        "ACL", "SETUSER", "few", "on", ">pw", "~refrain:*", "+@all", "-xadd", "-touch", "-config"
    )
    try:
        status, found = examine(good.url.replace("unix://", "unix://few:pw@"), capsys)
        assert status == 1
        assert found["rights"]["repair"] == "ACL SETUSER <user> ~refrain:* +touch +xadd"
        assert found["settings"]["verdict"] == "warn"
        assert "lfu-log-factor" not in found
    finally:
        good.client.execute_command("ACL", "DELUSER", "few")


def test_a_replica_is_wrong_and_its_master_named(capsys: pytest.CaptureFixture[str]) -> None:
    node = Node("--port", "{port}", "--save", "", "--replicaof", "127.0.0.1", "1")
    try:
        status, found = examine(f"redis://127.0.0.1:{node.port}", capsys)
        assert status == 1
        assert found["role"]["verdict"] == "wrong"
        assert "127.0.0.1:1" in found["role"]["repair"]
        assert "latency" not in found, "nothing is written there"
    finally:
        node.close()


def test_a_server_that_is_not_there_is_wrong(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    status, found = examine(f"unix://{tmp_path}/none", capsys)
    assert (status, found["reachable"]["verdict"]) == (1, "wrong")


def test_each_server_of_a_cluster_is_looked_at(capsys: pytest.CaptureFixture[str]) -> None:
    cluster = ClusterServers()
    try:
        _, found = examine(cluster.url, capsys)
        for node in cluster.nodes:
            at = f"@127.0.0.1:{node.port}"
            assert found["rights" + at]["verdict"] == found["cluster-node-timeout" + at]["verdict"] == "ok"
            assert node.client.dbsize() == 0
        assert (found["slots"]["verdict"], found["replicas"]["verdict"]) == ("ok", "warn")
        cluster.nodes[2].client.execute_command("CLUSTER DELSLOTS", 16_383)
        for node in cluster.nodes[:2]:
            node.client.execute_command("CLUSTER DELSLOTS", 16_383)
        status, found = examine(cluster.url, capsys)
        assert (status, found["slots"]["verdict"]) == (1, "wrong")
        assert found["slots"]["repair"].startswith("redis-cli --cluster fix")
    finally:
        cluster.close()


def test_sentinels_are_asked_too(capsys: pytest.CaptureFixture[str]) -> None:
    servers = SentinelServers()
    try:
        _, found = examine(servers.url, capsys)
        assert (found["sentinels"]["verdict"], found["quorum"]["verdict"]) == ("warn", "ok"), "one alone"
        silent = servers.url.replace("/main", ",127.0.0.1:1/main")
        assert "127.0.0.1:1" in examine(silent, capsys)[1]["sentinels"]["found"]
        servers.sentinel.client.execute_command("SENTINEL", "SET", "main", "quorum", 2)
        status, found = examine(servers.url, capsys)
        assert (status, found["quorum"]["verdict"]) == (1, "wrong")
        status, found = examine(servers.url.replace("/main", "/other"), capsys)
        assert (status, found["reachable"]["verdict"]) == (1, "wrong")
    finally:
        servers.close()


def test_a_certificate_that_ends_soon_is_told(capsys: pytest.CaptureFixture[str]) -> None:
    import datetime

    try:
        server = TlsServer(datetime.timedelta(days=10))
    except NoTls:
        pytest.skip("no redis-server on this machine was built with TLS")
    try:
        assert examine(server.url, capsys)[1]["TLS certificate"]["verdict"] == "warn"
    finally:
        server.close()


def test_the_table_says_it_for_people(good: Server, capsys: pytest.CaptureFixture[str]) -> None:
    good.client.config_set("maxmemory-policy", "noeviction")
    try:
        assert main(["doctor", "--redis", good.url]) == 1
    finally:
        good.client.config_set("maxmemory-policy", "volatile-lfu")
    printed = capsys.readouterr().out
    assert "  maxmemory-policy: CONFIG SET maxmemory-policy volatile-lfu\n" in printed


def test_a_command_line_that_cannot_be_followed_says_why(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["doctor", "--data-dir", str(tmp_path)]) == 1
    assert "no gateway runs on" in capsys.readouterr().err
    assert main(["doctor", "--redis", "http://u:secret@cache"]) == 1
    told = capsys.readouterr().err
    assert "redis.url: Redis URL scheme 'http'" in told
    assert "secret" not in told
    assert main(["keys", "list", "--data-dir", str(tmp_path), "--redis", "unix:///none"]) == 1
    assert "no such file" in capsys.readouterr().err


# What INFO says where this machine can't be brought to it.


@pytest.mark.parametrize(
    ("info", "check", "verdict"),
    [
        ({"redis_version": "6.0.9"}, "version", "wrong"),
        ({"redis_version": "7.2.4"}, "version", "ok"),
        ({"redis_version": "255.255.255"}, "version", "ok"),
        ({"maxmemory": 900, "total_system_memory": 1000}, "maxmemory", "warn"),
        ({"maxmemory": 700, "total_system_memory": 1000}, "maxmemory", "ok"),
        ({"db0": {"keys": 10_000, "expires": 9}}, "memory", "warn"),
        ({"db0": {"keys": 10_000, "expires": 9_000}}, "memory", "ok"),
        ({"mem_fragmentation_ratio": 2.0, "used_memory": 1 << 30, "used_memory_rss": 1 << 31}, "memory", "warn"),
        ({"maxmemory": 100, "used_memory": 200, "db0": {"keys": 5, "expires": 0}}, "memory", "wrong"),
        ({"aof_last_write_status": "err"}, "writing to disk", "wrong"),
        ({}, "role", "wrong"),
    ],
)
def test_what_a_server_tells_of_itself_is_judged(info: dict[str, Any], check: str, verdict: str) -> None:
    (found,) = [found for found in fitness(info, None) if found.check == check]
    assert found.verdict == verdict
    assert bool(found.repair) == (verdict != "ok")


def test_nothing_is_wrong_without_a_repair_and_right_with_one() -> None:
    for config in (None, {}, {"appendonly": "yes", "appendfsync": "no", "save": "1 1"}):
        for found in fitness({"cluster_enabled": 1}, config):
            assert isinstance(found, Finding)
            assert bool(found.repair) == (found.verdict != "ok"), found


# Keys.


async def _seal(url: str, *masters: bytes) -> None:
    link = RedisLink(url, deadline=5.0)
    try:
        for tenant in ("one", "two"):
            await Keyring(link, masters).seal(CacheKey(tenant, bytes(32)), b"v", b"plain")
    finally:
        await link.aclose()


def test_a_master_key_is_changed_from_the_command_line(
    redis_server: Server, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    import asyncio

    old, new, config = tmp_path / "old.key", tmp_path / "new.key", tmp_path / "refrain.toml"
    for path in (old, new):
        assert main(["keys", "new", str(path)]) == 0
        assert stat.S_IMODE(os.stat(path).st_mode) == 0o600
    assert main(["keys", "new", str(new)]) == 1, "never over one that is there"
    asyncio.run(_seal(redis_server.url, load_master_key(old)))
    command = ["--config", str(config), "--redis", redis_server.url]
    config.write_text(f'[keys]\nmaster = "{new}"\n')
    capsys.readouterr()
    assert main(["keys", "list", *command]) == 1
    assert "2 data keys, 0 under the present master key, 2 unknown" in capsys.readouterr().out
    assert main(["keys", "rotate", *command]) == 1
    assert "not known here" in capsys.readouterr().err
    config.write_text(f'[keys]\nmaster = "{new}"\nother_masters = ["{old}"]\n')
    assert main(["keys", "rotate", *command]) == 0
    assert "2 data keys wrapped anew, 2 in all" in capsys.readouterr().out
    config.write_text(f'[keys]\nmaster = "{new}"\n')
    assert main(["keys", "list", *command]) == 0
    printed = capsys.readouterr().out
    assert "2 data keys, 2 under the present master key, 0 unknown" in printed
    assert new.read_text().strip() not in printed
