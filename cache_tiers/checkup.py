"""Is this Redis fit to be the second tier? Each check says what was found, what is wanted, and what repairs it.

"wrong" is what loses control records, makes erasures come undone, or keeps the tier from working; "warn" is what costs
hits or may become wrong. Beside reading settings it writes a few scratch keys of its own, for a second, to see that it
may and how long it takes.
"""

from __future__ import annotations

import asyncio
import contextlib
import datetime
import secrets
import statistics
import time
from collections.abc import AsyncIterator, Iterator, Mapping
from dataclasses import replace
from typing import Any, Final

from cryptography import x509
from redis.asyncio import Redis
from redis.exceptions import ResponseError

from cache_tiers.address import Address
from cache_tiers.cluster import Place
from cache_tiers.fitness import Finding, Verdict, fitness
from cache_tiers.link import RedisLink, Unavailable, Word
from cache_tiers.server import close, connect, execute

DEADLINE: Final = 5.0
"""Seconds for each question."""
LOOKS: Final = 200
"""Gets that are timed, one after the other."""
SIZE: Final = 16_384
"""Bytes of what they get: half a second of speech, packed."""


async def examine(url: str, *, get_deadline: float, prefix: str = "refrain") -> list[Finding]:
    """All findings, of all servers. Raises ValueError for a URL that means nothing."""
    link = RedisLink(url, prefix=prefix, deadline=DEADLINE, failures=1_000_000)
    try:
        findings = await _sentinels(link.address) if link.address.kind == "sentinel" else []
        try:
            places = await link.places(DEADLINE)
        except Unavailable as error:
            return [*findings, Finding("reachable", str(error), f"an answer from {link.address}", "wrong")]
        if link.address.kind == "cluster":
            findings += await _cluster(link)
        for place in places:
            where = "" if place is None else f"{place[0]}:{place[1]}"
            at: dict[str, str | int] = {} if place is None else {"host": place[0], "port": place[1]}
            client = connect(link.address, 1, **at)
            try:
                scratch = _scratch(link, place)
                findings += [
                    replace(found, where=where) async for found in _server(client, link, scratch, get_deadline)
                ]
            except Exception as error:  # a refusal, a timeout, an untrusted certificate, garbage
                findings.append(
                    Finding("reachable", _said(error), f"an answer from {link.address}", "wrong", "", where)
                )
            finally:
                await close(client)
        return findings
    finally:
        await link.aclose()


async def _server(client: Redis, link: RedisLink, scratch: str, get_deadline: float) -> AsyncIterator[Finding]:
    async with asyncio.timeout(DEADLINE):
        begun = time.time()
        info: Mapping[str, Any] = await execute(client, "INFO")
        seconds, microseconds = await execute(client, "TIME")
        took = time.time() - begun
    yield Finding("reachable", str(link.address), "an answer", "ok")
    yield _clock(seconds + microseconds / 1e6 - begun - took / 2, took)
    async for found in _certificate(client):
        yield found
    config: Mapping[str, str] | None = None
    with contextlib.suppress(Exception):  # many who host Redis do not let themselves be asked
        config = await execute(client, "CONFIG GET", "*")
    for found in fitness(info, config):
        yield found
    if info.get("role") == "master":
        yield await _rights(client, link.names.prefix, scratch)
        yield await _latency(client, scratch + "v", get_deadline)
    yield await _control_records(client, link)


def _clock(skew: float, took: float) -> Finding:
    told = f"{skew:+.3f} s, told in {took * 1000:.0f} ms"
    off = max(0.0, abs(skew) - took)
    verdict: Verdict = "ok" if off < 1 else "warn" if off < 60 else "wrong"
    return Finding(
        "clock", told, "within 1 s of this machine's", verdict, "" if off < 1 else "run NTP on both machines"
    )


async def _certificate(client: Redis) -> AsyncIterator[Finding]:
    connection = await client.connection_pool.get_connection()  # type: ignore[no-untyped-call]
    try:
        secured = connection._writer.get_extra_info("ssl_object")  # redis-py does not tell
        if secured is None:
            return
        certificate = x509.load_der_x509_certificate(secured.getpeercert(binary_form=True))
        left = (certificate.not_valid_after_utc - datetime.datetime.now(datetime.UTC)).days
        verdict: Verdict = "ok" if left >= 30 else "warn" if left >= 0 else "wrong"
        repair = "" if left >= 30 else "renew the server's certificate"
        yield Finding("TLS certificate", f"valid for {left} days more", "30 days or more", verdict, repair)
    finally:
        await client.connection_pool.release(connection)


async def _rights(client: Redis, prefix: str, at: str) -> Finding:
    """Whether every command that the tier uses is allowed and known, by using it on scratch keys of one slot."""
    refused: list[str] = []
    try:
        for command in _commands(at, prefix):
            try:
                async with asyncio.timeout(DEADLINE):
                    await execute(client, *command)
            except Exception as error:
                refused.append(f"{command[0]} ({_said(error)})")
    finally:
        with contextlib.suppress(Exception):
            await execute(client, "UNLINK", *(at + kind for kind in "vhsxz"))
    names = " ".join(sorted({f"+{name.partition(' ')[0].lower()}" for name in refused}))
    wanted = "all commands of the tier, on its keys"
    if not refused:
        return Finding("rights", "all commands work", wanted, "ok")
    repair = f"ACL SETUSER <user> ~{prefix}:* {names}"
    return Finding("rights", "refused: " + ", ".join(refused), wanted, "wrong", repair)


def _scratch(link: RedisLink, place: Place | None) -> str:
    """The beginning of names that no key of the tier has, in a slot that this server has."""
    while True:
        name = f"{link.names.prefix}:doctor:{{{secrets.token_hex(4)}}}:"
        if link.place_of(name) == place:
            return name


def _commands(at: str, prefix: str) -> Iterator[tuple[str, *tuple[Word, ...]]]:
    value, table, members, stream, scores = (at + kind for kind in "vhsxz")
    yield ("SET", value, b"scratch", "PX", 10_000)
    yield from (("GET", value), ("MGET", value), ("EXISTS", value), ("PTTL", value), ("TOUCH", value))
    yield from (("GETRANGE", value, 0, 1), ("EVAL", "return redis.call('GET', KEYS[1])", 1, value))
    yield from (
        ("HSET", table, "f", "1"),
        ("HSETNX", table, "g", "1"),
        ("HINCRBY", table, "f", 1),
        ("HGET", table, "f"),
    )
    yield from (("HMGET", table, "f"), ("HGETALL", table), ("HSCAN", table, 0), ("HDEL", table, "g"))
    yield from (("SADD", members, "m"), ("SMEMBERS", members), ("SREM", members, "m"))
    yield from (("ZADD", scores, 1, "m"), ("ZRANGEBYSCORE", scores, 0, 1), ("ZREM", scores, "m"))
    yield ("ZREMRANGEBYSCORE", scores, 0, 1)
    yield ("XADD", stream, "MAXLEN", "~", 10, "*", "k", "v")
    yield from (("XRANGE", stream, "-", "+", "COUNT", 1), ("XREVRANGE", stream, "+", "-", "COUNT", 1))
    yield ("XREAD", "COUNT", 1, "STREAMS", stream, "0")
    yield from (("SCAN", 0, "MATCH", f"{prefix}:doctor:*", "COUNT", 10), ("DBSIZE",), ("PING",), ("UNLINK", value))


async def _latency(client: Redis, name: str, get_deadline: float) -> Finding:
    times: list[float] = []
    try:
        async with asyncio.timeout(4 * DEADLINE):
            await execute(client, "SET", name, secrets.token_bytes(SIZE), "PX", 30_000)
            for _ in range(LOOKS):
                begun = time.perf_counter()
                await execute(client, "GET", name)
                times.append(time.perf_counter() - begun)
            await execute(client, "UNLINK", name)
    except Exception as error:
        return Finding("latency", _said(error), f"{LOOKS} gets", "wrong")
    cuts = statistics.quantiles(times, n=100)
    half, late = cuts[49], cuts[98]
    verdict: Verdict = "wrong" if late > get_deadline else "warn" if late > get_deadline / 2 else "ok"
    found = f"p50 {half * 1000:.2f} ms, p99 {late * 1000:.2f} ms for {SIZE // 1024} KiB"
    repair = "" if verdict == "ok" else "bring Redis nearer, or raise redis.get_deadline"
    return Finding(
        "latency", found, f"p99 under half of redis.get_deadline, {get_deadline * 1000:.0f} ms", verdict, repair
    )


async def _control_records(client: Redis, link: RedisLink) -> Finding:
    """None may have a time to live, or volatile-lfu would evict it."""
    names = link.names
    known = (names.epochs, names.erasing, names.events, names.gateways, names.tenants)
    found = expiring = 0
    for name in known:
        with contextlib.suppress(Exception):  # in another server of the Cluster
            left = await execute(client, "PTTL", name)
            found += left != -2
            expiring += left >= 0
    repair = "" if not expiring else "PERSIST each of: " + " ".join(known)
    verdict: Verdict = "wrong" if expiring else "ok"
    return Finding("control records", f"{found} here, {expiring} with a time to live", "none with one", verdict, repair)


async def _cluster(link: RedisLink) -> list[Finding]:
    nodes, info = (await link.each("CLUSTER NODES"))[0], (await link.each("CLUSTER INFO"))[0]
    state, covered = info["cluster_state"], int(info["cluster_slots_ok"])
    verdict: Verdict = "ok" if state == "ok" and covered == 16_384 else "wrong"
    repair = "" if verdict == "ok" else "redis-cli --cluster fix HOST:PORT"
    found = [Finding("slots", f"state {state}, {covered:,} of 16,384 in order", "all", verdict, repair)]
    followed = {node["master_id"] for node in nodes.values() if node["master_id"] != "-" and node["connected"]}
    primaries = {node["node_id"]: place for place, node in nodes.items() if node["slots"]}
    bare = sorted(place for who, place in primaries.items() if who not in followed)
    told = f"none for {', '.join(bare)}" if bare else "one or more each"
    repair = "redis-cli --cluster add-node NEW HOST:PORT --cluster-slave" if bare else ""
    found.append(Finding("replicas", told, "one for each primary", "warn" if bare else "ok", repair))
    return found


async def _sentinels(address: Address) -> list[Finding]:
    masters: list[str] = []
    silent: list[str] = []
    quorum = "nobody to ask"
    for host, port in address.hosts:
        client = Redis(host=host, port=port, protocol=2, **address.sentinel_options)
        try:
            async with asyncio.timeout(DEADLINE):
                state = (await execute(client, "SENTINEL MASTERS"))[address.service]
                masters.append(f"{state['ip']}:{state['port']}")
                told_quorum: bytes = await execute(client, "SENTINEL", "CKQUORUM", address.service)
                quorum = told_quorum.decode("utf-8", "replace")
        except ResponseError as error:
            quorum = str(error)
        except KeyError:
            silent.append(f"{host}:{port} (does not know {address.service!r})")
        except Exception as error:
            silent.append(f"{host}:{port} ({_said(error)})")
        finally:
            with contextlib.suppress(Exception):
                await close(client)
    known, few = len(masters), len(masters) < 3
    verdict: Verdict = "wrong" if not masters or len(set(masters)) > 1 else "warn" if silent or few else "ok"
    told = f"{known} of {len(address.hosts)} answer, master {' or '.join(sorted(set(masters))) or 'unknown'}"
    told += f"; silent: {', '.join(silent)}" if silent else ""
    repair = "name every Sentinel in the URL; have three or more" if verdict != "ok" else ""
    found = [Finding("sentinels", told, "three or more that agree", verdict, repair)]
    enough = quorum.startswith("OK")
    fix = "" if enough else f"SENTINEL SET {address.service} quorum N"
    return [*found, Finding("quorum", quorum, "enough Sentinels for a failover", "ok" if enough else "wrong", fix)]


def _said(error: Exception) -> str:
    if isinstance(error, TimeoutError):
        return f"no answer within {DEADLINE:.0f} s"
    return str(error) or type(error).__name__
