"""One pass over a trace: sums by source, voice and language, latencies, similarities, and the columns that later steps
need of every record.

Latencies are kept as counts by the upper bits of their float32, 0.4 % wide, so that a trace of any length takes the
same room. Of every record `Kept` holds 30 bytes, and 12 more of one that was no hit: 10 million records are 0.4 GB.
"""

from __future__ import annotations

import hashlib
from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from bench.trace_frames import Rows, name_of
from gateway.stats import BYPASS, HIT_EXACT, HIT_FUZZY, MISS, OutcomeCount, Tally

Array = npt.NDArray[Any]

SHIFT: Final = 15
"""Bits of a float32 that a latency's class leaves out: 8 of its mantissa stay."""
SHARES: Final = (50, 95, 99)
SIMILARITY_EDGES: Final = tuple(round(0.02 * step, 2) for step in range(51))
LEAST_ALIKE: Final = 10
NAMED: Final = ("voice", "language", "engine", "tenant")
"""Fields whose values are counted; they are hashes of names."""


@dataclass(slots=True)
class Kept:
    """Columns over all records, in order of the trace."""

    second: Array = field(default_factory=lambda: np.empty(0, "<u4"))
    """Since 1970."""
    digest: Array = field(default_factory=lambda: np.empty(0, "<u8"))
    bytes_out: Array = field(default_factory=lambda: np.empty(0, "<u4"))
    cost_ms: Array = field(default_factory=lambda: np.empty(0, "<f4"))
    status: Array = field(default_factory=lambda: np.empty(0, "u1"))
    cause: Array = field(default_factory=lambda: np.empty(0, "u1"))
    asked: Array = field(default_factory=lambda: np.empty(0, "<u8"))
    """`input` of the records that were no hits, in their order."""
    engine: Array = field(default_factory=lambda: np.empty(0, "<u4"))
    """The same records' engine."""

    def __len__(self) -> int:
        return len(self.digest)


@dataclass(slots=True)
class Source:
    """Sums of one task, status and tier."""

    requests: int = 0
    bytes_in: int = 0
    bytes_out: int = 0
    cost_s: float = 0.0
    lookup_s: float = 0.0
    latency: Array = field(default_factory=lambda: np.zeros(1 << (31 - SHIFT), np.int64))
    longest_ms: float = 0.0


Sources = dict[tuple[int, int, int], Source]
"""By codes of task, status and tier."""


@dataclass(slots=True)
class Counts:
    """What a trace holds, summed."""

    requests: int = 0
    blake2b: str = ""
    """Of all records in their order."""
    first_us: int = 0
    last_us: int = 0
    sources: Sources = field(default_factory=lambda: defaultdict(Source))
    lately: Sources = field(default_factory=lambda: defaultdict(Source))
    """Of records since the time that was asked for."""
    lately_tenants: set[int] = field(default_factory=set)
    named: dict[str, dict[tuple[int, int], int]] = field(default_factory=dict)
    """By field: requests by hash and status."""
    similar_hits: Array = field(default_factory=lambda: np.zeros(len(SIMILARITY_EDGES) - 1, np.int64))
    """Fuzzy hits by similarity, between SIMILARITY_EDGES."""
    least_alike: list[tuple[float, int, int]] = field(default_factory=list)
    """Fuzzy hits that were least alike: similarity, digest, microseconds since 1970."""
    kept: Kept = field(default_factory=Kept)


def outcomes_of(sources: Sources) -> list[OutcomeCount]:
    """As the gateway counts: a hit saves what its answer took once, all else spends it."""
    rows = []
    for (task, status, tier), source in sorted(sources.items()):
        hit = status in (HIT_EXACT, HIT_FUZZY)
        quantiles = quantiles_of(source)
        rows.append(
            OutcomeCount(
                name_of("task", task), status, name_of("tier", tier), source.requests,
                source.bytes_in + source.bytes_out, 0.0 if hit else source.cost_s, source.cost_s if hit else 0.0,
                quantiles["p50_ms"] / 1e3, quantiles["p99_ms"] / 1e3,
            )
        )  # fmt: skip
    return rows


def count(pieces: Iterable[Rows], since_us: float | None = None) -> Counts:
    """Goes through a trace once. `since_us`: microseconds since 1970 from which to count the sources apart too."""
    counts = Counts()
    digest = hashlib.blake2b(digest_size=16)
    columns: dict[str, list[Array]] = {name: [] for name in Kept.__slots__}
    named: dict[str, dict[tuple[int, int], int]] = {name: defaultdict(int) for name in NAMED}
    for rows in pieces:
        if not len(rows):
            continue
        digest.update(np.ascontiguousarray(rows).view(np.uint8).data)
        times = rows["time_us"]
        counts.first_us = min(counts.first_us or int(times.min()), int(times.min()))
        counts.last_us = max(counts.last_us, int(times.max()))
        counts.requests += len(rows)
        _count_sources(counts.sources, rows)
        if since_us is not None and len(late := rows[times >= since_us]):
            _count_sources(counts.lately, late)
            counts.lately_tenants.update(np.unique(late["tenant"]).tolist())
        _count_similarity(counts, rows)
        for name, sums in named.items():
            _count_named(sums, rows[name], rows["status"])
        misses = (rows["status"] != HIT_EXACT) & (rows["status"] != HIT_FUZZY)
        columns["second"].append((times // 1_000_000).astype("<u4"))
        for name in ("digest", "bytes_out", "cost_ms", "status", "cause"):
            columns[name].append(rows[name].copy())
        columns["asked"].append(rows["input"][misses])
        columns["engine"].append(rows["engine"][misses])
    for name, parts in columns.items():
        if parts:
            setattr(counts.kept, name, np.concatenate(parts))
            parts.clear()
    counts.named = {name: dict(sums) for name, sums in named.items()}
    counts.blake2b = digest.hexdigest()
    return counts


def _count_sources(sources: Sources, rows: Rows) -> None:
    codes = rows["task"].astype(np.int64) << 16 | rows["status"].astype(np.int64) << 8 | rows["tier"]
    kinds, at = np.unique(codes, return_inverse=True)
    classes = np.maximum(rows["latency_ms"], 0).view(np.uint32) >> SHIFT
    for number, kind in enumerate(kinds.tolist()):
        mine = at == number
        source = sources[kind >> 16, kind >> 8 & 255, kind & 255]
        source.requests += int(mine.sum())
        for name in ("bytes_in", "bytes_out"):
            setattr(source, name, getattr(source, name) + int(rows[name][mine].sum(dtype=np.uint64)))
        source.cost_s += float(rows["cost_ms"][mine].sum(dtype=np.float64)) / 1e3
        source.lookup_s += float(rows["lookup_ms"][mine].sum(dtype=np.float64)) / 1e3
        source.latency += np.bincount(classes[mine], minlength=len(source.latency))
        source.longest_ms = max(source.longest_ms, float(rows["latency_ms"][mine].max()))


def _count_similarity(counts: Counts, rows: Rows) -> None:
    found = rows[rows["status"] == HIT_FUZZY]
    if not len(found):
        return
    counts.similar_hits += np.histogram(np.clip(found["similarity"], 0, 1), SIMILARITY_EDGES)[0]
    least = np.sort(found, order=["similarity", "time_us"])[:LEAST_ALIKE]
    told = [(float(row["similarity"]), int(row["digest"]), int(row["time_us"])) for row in least]
    counts.least_alike = sorted([*counts.least_alike, *told])[:LEAST_ALIKE]


def _count_named(sums: dict[tuple[int, int], int], names: Array, status: Array) -> None:
    kinds, number = np.unique(names.astype(np.uint64) << np.uint64(8) | status, return_counts=True)
    for kind, requests in zip(kinds.tolist(), number.tolist(), strict=True):
        sums[kind >> 8, kind & 255] += requests


def quantiles_of(source: Source) -> dict[str, float]:
    """Milliseconds, each to within 0.4 % of a latency that was measured; the longest exactly."""
    below = np.cumsum(source.latency)
    found = {"p50_ms": 0.0, "p95_ms": 0.0, "p99_ms": 0.0}
    for share in SHARES:
        wanted = max(1, int(np.ceil(source.requests * share / 100)))
        bits = np.uint32(int(np.searchsorted(below, wanted)) << SHIFT)
        lower, upper = np.array([bits, bits + np.uint32(1 << SHIFT)], np.uint32).view(np.float32).tolist()
        found[f"p{share}_ms"] = min((lower + upper) / 2, source.longest_ms) if lower else 0.0
    return found | {"max_ms": source.longest_ms}


def tally_json(tally: Tally) -> dict[str, Any]:
    """A tally with its rates, and what of its requests no outcome is known of."""
    known = tally.hits + tally.misses + tally.coalesced + tally.bypassed
    names = (
        "requests", "hits", "hits_exact", "hits_fuzzy", "misses", "coalesced", "bypassed", "bytes", "hit_bytes",
        "compute_s", "saved_s", "hit_rate", "byte_hit_rate", "compute_hit_rate",
    )  # fmt: skip
    return {name: getattr(tally, name) for name in names} | {"unrecorded": tally.requests - known}


def by_name(counts: Counts, name: str, most: int = 20) -> list[dict[str, Any]]:
    """Requests and hits by the hash of a name, the commonest first; what is past `most` is summed as "others"."""
    rows: dict[int, list[int]] = defaultdict(lambda: [0] * 256)
    for (hashed, status), requests in counts.named.get(name, {}).items():
        rows[hashed][status] += requests
    ranked = sorted((hashed for hashed in rows if hashed), key=lambda hashed: (-sum(rows[hashed]), hashed))
    told = [_named_row(f"{hashed:08x}", rows[hashed]) for hashed in ranked[:most]]
    if len(ranked) > most:
        others = [sum(column) for column in zip(*(rows[hashed] for hashed in ranked[most:]), strict=True)]
        told.append(_named_row(f"{len(ranked) - most} others", others))
    if ranked and 0 in rows:
        told.append(_named_row("none", rows[0]))
    return told


def _named_row(name: str, statuses: list[int]) -> dict[str, Any]:
    requests, exact, fuzzy = sum(statuses), statuses[HIT_EXACT], statuses[HIT_FUZZY]
    return {
        "name": name, "requests": requests, "hits_exact": exact, "hits_fuzzy": fuzzy, "misses": statuses[MISS],
        "bypassed": statuses[BYPASS], "hit_rate": (exact + fuzzy) / requests if requests else 0.0,
    }  # fmt: skip
