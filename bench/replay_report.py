"""What a replay found, as JSON that adds up with others of its kind, and as the tables people read.

Latencies are HdrHistograms in their own compressed text (three digits, microseconds), so that reports of several
processes or machines are added up exactly, and quantiles are of the sum. Errors are no answers, and in no rate.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Sequence
from typing import Any, Final

from hdrh.histogram import HdrHistogram
from rich.table import Table

from bench.replay_load import Result, Source, histogram
from gateway.stats import human_seconds

VERSION: Final = 1
LATE_MS = 10.0
"""A sender whose 99th percentile is later than this is itself the limit of what it offers."""


def report_of(about: dict[str, Any], results: Sequence[Result], offered: float) -> dict[str, Any]:
    """`about`: whatever names the run. `offered`: requests a second, as planned after the warm-up."""
    latency: dict[Source, list[str]] = defaultdict(list)
    for result in results:
        for source, text in result.latency.items():
            latency[source].append(text)
    warm = sum((result.warm for result in results), Counter[Source]())
    firsts: dict[int, bytes] = {}
    differing = sum((result.differing for result in results), Counter[int]())
    for result in results:
        for ask, digest in result.answers.items():
            differing[ask] += firsts.setdefault(ask, digest) != digest
    begun = min((result.first_s for result in results if result.last_s), default=0.0)
    ended = max((result.last_s for result in results), default=0.0)
    sources = [_source(source, texts) for source, texts in sorted(latency.items())]
    sent = sum(row["requests"] for row in sources)
    return _with_sums(
        {
            "kind": "refrain replay",
            "version": VERSION,
            **about,
            "span_s": ended - begun,
            "offered_per_s": offered,
            "achieved_per_s": sent / (ended - begun) if ended > begun else 0.0,
            "warmup": [{"task": t, "status": s, "tier": r, "requests": n} for (t, s, r), n in sorted(warm.items())],
            "sources": sources,
            "late": _histogram(result.late for result in results),
            "sender_cpu": [round(result.cpu_share, 3) for result in results],
            "items": len(firsts),
            "items_answered_differently": sum(count > 0 for count in differing.values()),
            "answers_that_differ": sum(differing.values()),
        }
    )


def merged(reports: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """The sum of reports on parts of one trace that were sent at the same time. Raises ValueError for others."""
    first = reports[0]
    for report in reports:
        if report.get("kind") != "refrain replay" or report.get("version") != VERSION:
            raise ValueError(f"not a replay report of version {VERSION}")
        if report["trace"] != first["trace"]:
            raise ValueError("the reports are of different traces")
    if len({report["part"] for report in reports}) < len(reports):
        raise ValueError("two reports are of the same part")
    latency: dict[Source, list[str]] = defaultdict(list)
    warm: Counter[Source] = Counter()
    for report in reports:
        for row in report["sources"]:
            latency[row["task"], row["status"], row["tier"]].append(row["histogram"])
        for row in report["warmup"]:
            warm[row["task"], row["status"], row["tier"]] += row["requests"]
    added = ("offered_per_s", "achieved_per_s", "items_answered_differently", "answers_that_differ")
    return _with_sums(
        {
            **first,
            **{name: sum(report[name] for report in reports) for name in added},
            "part": "+".join(report["part"] for report in reports),
            "span_s": max(report["span_s"] for report in reports),
            "interrupted": any(report["interrupted"] for report in reports),
            "warmup": [{"task": t, "status": s, "tier": r, "requests": n} for (t, s, r), n in sorted(warm.items())],
            "sources": [_source(source, texts) for source, texts in sorted(latency.items())],
            "late": _histogram(report["late"]["histogram"] for report in reports),
            "sender_cpu": [share for report in reports for share in report["sender_cpu"]],
            "items": max(report["items"] for report in reports),
        }
    )


def _source(source: Source, texts: Iterable[str]) -> dict[str, Any]:
    task, status, tier = source
    return {"task": task, "status": status, "tier": tier, **_histogram(texts)}


def _histogram(texts: Iterable[str]) -> dict[str, Any]:
    total = histogram()
    for text in texts:
        total.add(HdrHistogram.decode(text))
    count = total.get_total_count()
    ms = {f"p{share}_ms": total.get_value_at_percentile(share) / 1e3 if count else 0.0 for share in (50, 95, 99)}
    longest = total.get_max_value() / 1e3 if count else 0.0
    return {"requests": count, **ms, "max_ms": longest, "histogram": total.encode().decode()}


def _with_sums(report: dict[str, Any]) -> dict[str, Any]:
    counts: Counter[str] = Counter()
    for row in report["sources"]:
        counts[row["status"]] += row["requests"]
    answered = sum(counts.values()) - counts["ERROR"]
    hits = counts["HIT_EXACT"] + counts["HIT_FUZZY"]
    late = report["late"]["p99_ms"]
    limit = ""
    if late > LATE_MS:
        limit = (
            f"the sender was itself late, by {late:.0f} ms at the 99th percentile (its processes used "
            f"{report['sender_cpu']} of a core): give it --processes, or another machine"
        )
    sums = {"requests": sum(counts.values()), "answered": answered, "errors": counts["ERROR"]}
    return {
        **report,
        **sums,
        "hits": hits,
        "misses": counts["MISS"],
        "coalesced": counts["COALESCED"],
        "bypassed": counts["BYPASS"],
        "hit_rate": hits / answered if answered else 0.0,
        "sender_is_the_limit": limit,
    }


def as_tables(report: dict[str, Any]) -> Iterator[Table | str]:
    """For the terminal."""
    yield (
        f"{report['requests']:,} requests in {human_seconds(report['span_s'])}: offered {report['offered_per_s']:,.1f} "
        f"and sent {report['achieved_per_s']:,.1f} a second; [b]{report['hit_rate']:.1%}[/b] of the answers from memory"
    )
    table = Table("task", "outcome", "tier", "requests", "p50", "p95", "p99", "max")
    for column in table.columns[3:]:
        column.justify = "right"
    for row in report["sources"]:
        times = [human_seconds(row[name] / 1e3) for name in ("p50_ms", "p95_ms", "p99_ms", "max_ms")]
        table.add_row(row["task"], row["status"], row["tier"], f"{row['requests']:,}", *times)
    yield table
    late = report["late"]
    yield (
        f"times count from when a request was due; the sender was late by {human_seconds(late['p50_ms'] / 1e3)} at the "
        f"median, {human_seconds(late['p99_ms'] / 1e3)} at the 99th percentile"
    )
    if report["answers_that_differ"]:
        yield f"[red]{report['answers_that_differ']} answers were not what the same request had got before[/red]"
    control = report.get("control")
    if control:
        yield (
            f"past the cache: {control['asked']} things asked, {control['equal']} answered the same, "
            f"{control['near']} nearly; median {human_seconds(control['p50_ms'] / 1e3)}"
        )
    if report["sender_is_the_limit"]:
        yield f"[red]{report['sender_is_the_limit']}[/red]"
    if report["interrupted"]:
        yield "cut short: the report is of what was sent until then"
