"""The report as one JSON document: what a trace, a gateway's counters and a replay say, and whether they agree.

Each of the three is enough. A trace gives most: counts, reasons, curves, drift. The gateway adds what no record holds:
audits, how full the tiers are, which engines serve. A replay adds the offered and the achieved rate, and times as a
client saw them, from when a request was due.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np

from bench import report_advice as advising
from bench import trace_frames
from bench.miss_ratio import HALVINGS, SAMPLE, curve, sampled
from bench.replay_report import shown
from bench.report_counts import SIMILARITY_EDGES, Counts, by_name, count, outcomes_of, quantiles_of, tally_json
from bench.report_keys import ByKey, by_key
from bench.report_misses import coalesced_saved_s, cold_and_warm, reasons_json
from bench.report_time import by_hour, drift
from bench.trace_facts import zipf_exponent
from gateway.client import Model
from gateway.stats import HIT_EXACT, HIT_FUZZY, STATUSES, AuditedPair, OutcomeCount, Stats, Tally
from gateway.trace import read_header, trace_files

KIND: Final = "refrain report"
VERSION: Final = 1
BLOCKS: Final = 20
"""Into which a trace is cut to see how much savings vary."""


@dataclass(frozen=True, slots=True)
class Wanted:
    """What the report is asked to assume."""

    policy: str
    """Of the first tier."""
    first_tier: float
    """Bytes, or up to 1 a share of all distinct answers' bytes."""
    ttl_s: float
    price_per_gpu_hour: float
    sample: int = SAMPLE
    seed: int = 0
    """Of the sample of keys."""


def document(
    wanted: Wanted,
    *,
    trace: Path | None = None,
    stats: Stats | None = None,
    started_s: float | None = None,
    engines: Sequence[Model] = (),
    pairs: Sequence[AuditedPair] = (),
    replay: Mapping[str, Any] | None = None,
) -> dict[str, Any]:
    """`started_s`: when the gateway of `stats` began, in seconds since 1970. `pairs`: what its audits judged, the worst
    first.

    Raises `TraceError` and OSError for the trace.
    """
    told: dict[str, Any] = {"kind": KIND, "version": VERSION, "assumed": asdict(wanted)}
    outcomes: Sequence[OutcomeCount] = ()
    if trace is not None:
        counts = count(trace_frames.read(trace), None if started_s is None else started_s * 1e6)
        outcomes = outcomes_of(counts.sources)
        told["trace"] = _provenance(trace, counts)
        told |= _of_trace(counts, wanted, stats)
    elif stats is not None:
        outcomes = stats.outcomes
        told["sources"] = [_source(row) for row in outcomes if row.requests]
    elif replay is not None:
        outcomes = _outcomes_of_replay(replay)
        told["sources"] = [_without_histogram(row) for row in replay["sources"] if row["status"] in STATUSES]
    told["total"] = tally_json(Tally.of(outcomes))
    tasks = sorted({row.task for row in outcomes if row.requests})
    told["tasks"] = {task: tally_json(Tally.of(row for row in outcomes if row.task == task)) for task in tasks}
    if stats is not None:
        told |= _of_gateway(stats, engines, pairs)
    if replay is not None:
        told["replay"] = shown(replay)
    told["savings"] = _savings(told, wanted.price_per_gpu_hour)
    told["checks"] = _sums(told["total"], told.get("misses"))
    if trace is not None and stats is not None and started_s is not None and len(counts.lately_tenants) <= 1:
        told["checks"] += _same(outcomes_of(counts.lately), stats.outcomes)
    requests = told["total"]["requests"]
    told["advice"] = advising.advice(told.get("curve"), told.get("misses", ()), requests, told.get("restart"))
    return told


def _provenance(path: Path, counts: Counts) -> dict[str, Any]:
    files = trace_files(path) if path.is_dir() else [path]
    headers = [read_header(file) for file in files if file.name.endswith(".rft.gz")]
    told: dict[str, Any] = {
        "name": path.name, "files": len(files), "blake2b": counts.blake2b, "requests": counts.requests,
        "first_us": counts.first_us, "last_us": counts.last_us,
    }  # fmt: skip
    keys = sorted({header["key_id"] for header in headers if header.get("key_id")})
    made = next((header["synthesized"] for header in headers if "synthesized" in header), None)
    return told | {"hashed_under": keys} | ({"synthesized": made} if made else {})


def _of_trace(counts: Counts, wanted: Wanted, stats: Stats | None) -> dict[str, Any]:
    by = by_key(counts.kept)
    known = any(status in range(1, len(STATUSES)) for _, status, _ in counts.sources)
    span_s = (counts.last_us - counts.first_us) / 1e6
    hours = by_hour(counts.kept)
    told: dict[str, Any] = {
        "sources": [
            _source(row) | quantiles_of(source) | {"lookup_s": source.lookup_s}
            for row, (_, source) in zip(outcomes_of(counts.sources), sorted(counts.sources.items()), strict=True)
        ],
        "rate": {
            "span_s": span_s,
            "mean_per_s": counts.requests / span_s if span_s else 0.0,
            "busiest_per_s": max((row["requests"] for row in hours["rows"]), default=0) / (hours["seconds"] or 1),
            "busiest_of_s": hours["seconds"],
        },
        "keys": _keys(by, counts.requests),
        "hours": hours,
        "voices": by_name(counts, "voice"),
        "languages": by_name(counts, "language"),
        "engines_seen": by_name(counts, "engine"),
        "tenants": len({tenant for tenant, _ in counts.named["tenant"]}),
        "drift": drift(by),
    }
    if known:
        told["cold_and_warm"] = cold_and_warm(by)
        told["misses"] = reasons_json(by, wanted.ttl_s)
        told["coalesced_saved_s"] = coalesced_saved_s(by)
        told["saved_blocks_s"] = _blocks(by)
        told["similarity"] = {"edges": list(SIMILARITY_EDGES), "hits": counts.similar_hits.tolist()}
        told["least_alike"] = [
            {"similarity": similarity, "digest": f"{digest:016x}", "time_us": time_us}
            for similarity, digest, time_us in counts.least_alike
        ]
    if counts.requests:
        told |= _curves(by, wanted, stats)
    return told


def _keys(by: ByKey, requests: int) -> dict[str, Any]:
    counts = np.sort(by.counts)[::-1]
    return {
        "distinct": by.keys,
        "once": float((counts == 1).mean()) if by.keys else 0.0,
        "head_10": float(counts[:10].sum() / requests) if requests else 0.0,
        "head_100": float(counts[:100].sum() / requests) if requests else 0.0,
        "zipf": zipf_exponent(counts),
    }


def _curves(by: ByKey, wanted: Wanted, stats: Stats | None) -> dict[str, Any]:
    first = wanted.first_tier
    if first <= 1:
        first *= float(by.weights.sum())
    if stats is not None:
        device = next((tier for tier in stats.tiers if tier.name == "device" and tier.capacity_bytes), None)
        first = device.capacity_bytes if device else first
    smallest = min(0.5**HALVINGS, first / max(1.0, float(by.weights.sum())))
    sample = sampled(by, wanted.sample, smallest, wanted.seed)
    if not len(sample):
        return {}
    found = curve(sample, wanted.policy, first)
    return {
        "curve": found,
        "larger": advising.larger(found),
        "enough_bytes": advising.enough(found),
        "restart": advising.restart(sample, wanted.policy, first),
    }


def _blocks(by: ByKey) -> list[float]:
    kept = by.kept
    saved = np.where(np.isin(kept.status, (HIT_EXACT, HIT_FUZZY)), kept.cost_ms, 0).astype(np.float64)
    return [float(block.sum()) / 1e3 for block in np.array_split(saved, BLOCKS)]


def _source(row: OutcomeCount) -> dict[str, Any]:
    return {
        "task": row.task, "status": STATUSES[row.status] if row.status < len(STATUSES) else "other", "tier": row.tier,
        "requests": row.requests, "bytes": row.bytes, "compute_s": row.compute_s, "saved_s": row.saved_s,
        "p50_ms": row.p50_s * 1e3, "p99_ms": row.p99_s * 1e3,
    }  # fmt: skip


def _outcomes_of_replay(replay: Mapping[str, Any]) -> list[OutcomeCount]:
    return [
        OutcomeCount(
            row["task"], STATUSES.index(row["status"]), row["tier"], row["requests"],
            p50_s=row["p50_ms"] / 1e3, p99_s=row["p99_ms"] / 1e3,
        )
        for row in replay["sources"] if row["status"] in STATUSES
    ]  # fmt: skip


def _of_gateway(stats: Stats, engines: Sequence[Model], pairs: Sequence[AuditedPair]) -> dict[str, Any]:
    return {
        "gateway": {
            "uptime_s": stats.uptime_s,
            "failed": stats.failed,
            "counted": tally_json(stats.total),
            "tiers": [asdict(tier) for tier in stats.tiers],
        },
        "audits": {"recordings": asdict(stats.audits), "voices and moods": asdict(stats.near_audits)},
        "audits_by_language": [asdict(row) for row in stats.audits_by_language],
        "audits_by_voice": [asdict(row) for row in stats.audits_by_voice],
        "audited_pairs": [asdict(pair) for pair in pairs],
        "languages_named": [asdict(row) for row in stats.languages],
        "engines": [model._asdict() | {"versions": list(model.versions)} for model in engines],
    }


def _without_histogram(row: Mapping[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in row.items() if name != "histogram"}


def _savings(told: Mapping[str, Any], price: float) -> dict[str, Any]:
    """Compute saved, less what looking it up and judging it took, each second of either counted as one of compute."""
    total = told["total"]
    lookup_s = sum(row.get("lookup_s", 0.0) for row in told.get("sources", ()))
    audits_s = 0.0
    heard = [row for row in told.get("sources", ()) if row["task"] == "recognize" and row.get("compute_s")]
    runs = sum(row["requests"] for row in heard)
    if "audits" in told and runs:
        # Each audit ran the recognizer once more, at what a recognition took that was no hit.
        audits_s = told["audits"]["recordings"]["audited"] * sum(row["compute_s"] for row in heard) / runs
    net_s = total["saved_s"] - lookup_s - audits_s
    blocks = np.array(told.get("saved_blocks_s", ()))
    spread = 1.96 * float(blocks.std(ddof=1)) * len(blocks) ** 0.5 if len(blocks) > 1 else 0.0
    return {
        "spent_s": total["compute_s"],
        "saved_s": total["saved_s"],
        "coalesced_s": told.get("coalesced_saved_s", 0.0),
        "lookup_s": lookup_s,
        "lookup_known": "trace" in told,
        "audits_s": audits_s,
        "audits_known": "audits" in told,
        "net_s": net_s,
        "net_varies_s": spread,
        "price_per_gpu_hour": price,
        "money": net_s / 3600 * price,
    }


def _sums(total: Mapping[str, Any], misses: Sequence[Mapping[str, Any]] | None) -> list[dict[str, Any]]:
    """Sums within the report that must be equal: what, the two numbers, whether they are."""
    parts = ("hits", "misses", "coalesced", "bypassed", "unrecorded")
    name = "hits + misses + coalesced + bypassed + unrecorded = requests"
    told = [_check(name, sum(total[part] for part in parts), total["requests"])]
    if misses is not None:
        told.append(_check("misses by reason = misses", sum(row["requests"] for row in misses), total["misses"]))
    return told


def _same(traced: Sequence[OutcomeCount], counted: Sequence[OutcomeCount]) -> list[dict[str, Any]]:
    """The trace's rows since the gateway started beside the gateway's own."""
    ours = {(row.task, row.status, row.tier): row for row in traced}
    theirs = {(row.task, row.status, row.tier): row for row in counted if row.requests}
    told = []
    for key in sorted(ours.keys() | theirs.keys()):
        mine, its = ours.get(key, OutcomeCount(*key)), theirs.get(key, OutcomeCount(*key))
        name = " ".join(filter(None, (key[0], STATUSES[key[1]] if key[1] < len(STATUSES) else "other", key[2])))
        told.append(_check(f"{name}: requests in the trace = of the gateway", mine.requests, its.requests))
        told.append(_check(f"{name}: bytes in the trace = of the gateway", mine.bytes, its.bytes))
    return told


def _check(what: str, one: int, other: int) -> dict[str, Any]:
    return {"what": what, "one": one, "other": other, "equal": one == other}
