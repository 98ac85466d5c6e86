"""What INFO and CONFIG of a Redis server say about its fitness, as plain functions of the two."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Final, Literal

Verdict = Literal["ok", "warn", "wrong"]

LFU: Final = {"lfu-log-factor": "1", "lfu-decay-time": "600", "maxmemory-samples": "5"}
"""How the private server is set, and another should be. Redis sees what L1 misses, and heat in batches, so counts are
low and must last: by default they fade by one a minute, and with them what speech repeats tomorrow (docs/benchmarks.md,
"Redis evictions")."""
OLDEST: Final = (6, 2)
MIB: Final = 1 << 20


@dataclass(frozen=True, slots=True)
class Finding:
    check: str
    found: str
    wanted: str
    verdict: Verdict
    repair: str = ""
    """A command for the server, or what to do."""
    where: str = ""
    """The server of a Cluster."""


def fitness(info: Mapping[str, Any], config: Mapping[str, str] | None) -> Iterator[Finding]:
    """Both as redis-py gives them; `config` is None where CONFIG GET is not allowed."""
    yield _version(info)
    yield _role(info)
    if config is None:
        yield Finding("settings", "CONFIG GET is refused", "to be read", "warn", "see to the settings below by hand")
    yield _memory(info)
    yield _policy(info)
    yield _headroom(info)
    if config is not None:
        yield from _tuning(config)
        yield _persistence(config)
        yield _buffers(config)
        yield _clients(info, config)
        if info.get("cluster_enabled") == 1:
            yield _node_timeout(config)
            yield _coverage(config)
    yield _last_writes(info)


def _version(info: Mapping[str, Any]) -> Finding:
    told = str(info.get("redis_version", "0"))
    numbers = tuple(map(int, re.findall(r"\d+", told)[:2]))
    verdict: Verdict = "wrong" if numbers < OLDEST else "warn" if numbers < (7, 0) else "ok"
    return Finding("version", told, "7.0 or newer, at least 6.2", verdict, "" if verdict == "ok" else "upgrade Redis")


def _role(info: Mapping[str, Any]) -> Finding:
    role, readable = str(info.get("role", "unknown")), "master"
    if role == "master":
        return Finding("role", role, readable, "ok")
    repair = f"name its master, {info.get('master_host')}:{info.get('master_port')}, or the Sentinels, in redis.url"
    return Finding("role", f"{role}, which takes no writes", readable, "wrong", repair)


def _memory(info: Mapping[str, Any]) -> Finding:
    limit, system = int(info.get("maxmemory", 0)), int(info.get("total_system_memory", 0))
    wanted = "a limit, of at most 75 % of the machine's"
    repair = f"CONFIG SET maxmemory {system * 3 // 4 // MIB or 1024}mb"
    if not limit:
        return Finding("maxmemory", "no limit, so nothing is evicted before memory runs out", wanted, "wrong", repair)
    told = f"{limit // MIB:,} MiB of the machine's {system // MIB:,}"
    tight = 0 < system * 3 // 4 < limit  # rewriting the append-only file forks, and copies what is written meanwhile
    return Finding("maxmemory", told, wanted, "warn" if tight else "ok", repair if tight else "")


def _policy(info: Mapping[str, Any]) -> Finding:
    told = str(info.get("maxmemory_policy", "unknown"))
    why = {
        "allkeys": ": evicts control records, with them wrapped keys and erasures",
        "noeviction": ": a full server refuses all writes",
    }
    verdict: Verdict = "ok" if told == "volatile-lfu" else "warn" if told.startswith("volatile-") else "wrong"
    found = told + why.get(told.partition("-")[0], "")
    repair = "" if verdict == "ok" else "CONFIG SET maxmemory-policy volatile-lfu"
    return Finding("maxmemory-policy", found, "volatile-lfu", verdict, repair)


def _headroom(info: Mapping[str, Any]) -> Finding:
    """Keys without a time to live are what no eviction can touch."""
    limit, used = int(info.get("maxmemory", 0)), int(info.get("used_memory", 0))
    spaces = [space for name, space in info.items() if re.fullmatch(r"db\d+", name) and isinstance(space, dict)]
    keys, volatile = (sum(int(space[name]) for space in spaces) for name in ("keys", "expires"))
    resident, ratio = int(info.get("used_memory_rss", 0)), float(info.get("mem_fragmentation_ratio", 1.0))
    told = f"{used // MIB:,} MiB used, {resident // MIB:,} resident; {volatile:,} of {keys:,} keys can be evicted"
    told += f"; {info.get('evicted_keys', 0):,} were"
    stuck = keys >= 1000 and volatile < keys / 4
    swollen = ratio > 1.5 and resident - used > 256 * MIB
    over = 0 < limit < used
    verdict: Verdict = "wrong" if over and not volatile else "warn" if stuck or swollen or over else "ok"
    repair = "a Redis, or a number of database, of its own" if stuck else ""
    repair = "CONFIG SET activedefrag yes" if swollen and not stuck else repair
    repair = repair or ("CONFIG SET maxmemory to more" if over else "")
    return Finding("memory", told, "most keys evictable, little fragmentation", verdict, repair)


def _tuning(config: Mapping[str, str]) -> Iterator[Finding]:
    for name, wanted in LFU.items():
        told = config.get(name, "not known")
        enough = name == "maxmemory-samples" and told.isdigit() and int(told) >= int(wanted)
        good = told == wanted or enough
        repair = "" if good else f"CONFIG SET {name} {wanted}"
        yield Finding(name, told, wanted, "ok" if good else "warn", repair)


def _persistence(config: Mapping[str, str]) -> Finding:
    on, sync, save = config.get("appendonly") == "yes", config.get("appendfsync", ""), config.get("save", "")
    wanted = "append-only file, synced every second"
    if on and sync in ("everysec", "always"):
        return Finding("persistence", f"append-only file, {sync}", wanted, "ok")
    if on:
        return Finding("persistence", f"append-only file, {sync}", wanted, "warn", "CONFIG SET appendfsync everysec")
    told = "none: a restart forgets all answers, keys and audits"
    if save:
        told = f"snapshots alone ({save}): a restart undoes the erasures since the last one"
    return Finding("persistence", told, wanted, "wrong" if save else "warn", "CONFIG SET appendonly yes")


def _buffers(config: Mapping[str, str]) -> Finding:
    """Answers of a pipeline may be many megabytes; a client past the limit is cut off."""
    words = config.get("client-output-buffer-limit", "").split()
    limits = dict(zip(words[0::4], words[1::4], strict=False))
    hard = int(limits.get("normal", "0"))
    told = f"{hard // MIB:,} MiB for normal clients" if hard else "none for normal clients"
    low = 0 < hard < 128 * MIB
    repair = 'CONFIG SET client-output-buffer-limit "normal 0 0 0"' if low else ""
    return Finding("output buffers", told, "no limit, or 128 MiB and more", "warn" if low else "ok", repair)


def _clients(info: Mapping[str, Any], config: Mapping[str, str]) -> Finding:
    most, now = int(config.get("maxclients", "10000")), int(info.get("connected_clients", 0))
    crowded = now > most * 0.8 or most < 100
    repair = f"CONFIG SET maxclients {max(2 * most, 1000)}" if crowded else ""
    return Finding("clients", f"{now:,} of {most:,}", "a fifth free", "warn" if crowded else "ok", repair)


def _node_timeout(config: Mapping[str, str]) -> Finding:
    told = int(config.get("cluster-node-timeout", "15000"))
    slow = told > 5000
    repair = "CONFIG SET cluster-node-timeout 5000" if slow else ""
    return Finding("cluster-node-timeout", f"{told} ms", "5000 ms or less", "warn" if slow else "ok", repair)


def _coverage(config: Mapping[str, str]) -> Finding:
    """With it, one primary that fails without a replica takes all others' keys along."""
    name = "cluster-require-full-coverage"
    told = config.get(name, "yes")
    repair = "" if told == "no" else f"CONFIG SET {name} no"
    return Finding(name, told, "no", "ok" if told == "no" else "warn", repair)


def _last_writes(info: Mapping[str, Any]) -> Finding:
    names = ("rdb_last_bgsave_status", "aof_last_write_status", "aof_last_bgrewrite_status")
    failed = [name for name in names if info.get(name, "ok") != "ok"]
    told = "failed: " + ", ".join(failed) if failed else "well"
    repair = "see the server's log and its disk; until then it may refuse writes" if failed else ""
    return Finding("writing to disk", told, "well", "wrong" if failed else "ok", repair)
