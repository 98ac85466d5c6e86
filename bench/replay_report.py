"""What a replay found, as JSON that adds up with others of its kind, and as the tables people read.

Latencies are HdrHistograms in their own compressed text (three digits, microseconds), so that reports of several
processes or machines are added up exactly, and quantiles are of the sum. Errors are no answers, and in no rate.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Final

from hdrh.histogram import HdrHistogram
from rich.table import Table

from bench.replay_control import Rounds
from bench.replay_load import Result, Source, histogram
from bench.replay_quality import added_pairs, added_quality, breakdown, pairs_json, quality, quality_tables, worth
from bench.replay_things import Things
from gateway.stats import human_seconds

VERSION: Final = 2
_ALIKE: Final = ("seed", "match", "snr_db", "pace", "warmup_s")
"""In what parts of one replay can't differ."""
_ROUNDS: Final = ("share", "length_s")
_FOR_ADDING: Final = ("kind", "version", "answers_by", "lent", "made")
LATE_MS = 10.0
"""A sender whose 99th percentile is later than this is itself a limit, and says so."""
KEPT = 0.95
"""Of the rate that is offered: a sender that sends less has fallen behind."""


@dataclass(frozen=True, slots=True)
class Sent:
    """What this machine was to send."""

    things: Things
    requests: Sequence[bytes]
    """Of each thing."""
    rounds: Rounds
    offered_per_s: float
    """By the plan, after the warm-up, while the load runs."""


def report_of(about: dict[str, Any], results: Sequence[Result], sent: Sent) -> dict[str, Any]:
    """`about`: whatever names the run."""
    warm = sum((result.warm for result in results), Counter[Source]())
    firsts: dict[int, bytes] = {}
    differing = sum((result.differing for result in results), Counter[int]())
    for result in results:
        for ask, digest in result.answers.items():
            differing[ask] += firsts.setdefault(ask, digest) != digest
    begun = min((result.first_s for result in results if result.last_s), default=0.0)
    ended = max((result.last_s for result in results), default=0.0)
    sources = _sources(result.latency for result in results)
    paused = sent.rounds.paused(ended) - sent.rounds.paused(begun)
    span = ended - begun - paused
    judged = [result.judged for result in results]
    report = {
        "kind": "refrain replay",
        "version": VERSION,
        **about,
        "span_s": span,
        "offered_per_s": sent.offered_per_s,
        "achieved_per_s": sum(row["requests"] for row in sources) / span if span > 0 else 0.0,
        "warmup": [{"task": t, "status": s, "tier": r, "requests": n} for (t, s, r), n in sorted(warm.items())],
        "sources": sources,
        "late": _histogram(result.late for result in results),
        "gaps": _histogram(result.gaps for result in results),
        "sender_cpu": [round(result.cpu_share, 3) for result in results],
        "items": len(firsts),
        "items_answered_differently": sum(count > 0 for count in differing.values()),
        "answers_that_differ": sum(differing.values()),
        **quality(sent.things, sent.requests, judged),
    }
    if sent.rounds.share:
        report["control"] = {
            **asdict(sent.rounds),
            "offered_per_s": sent.offered_per_s * sent.rounds.share,
            "sources": _sources(result.control for result in results),
            **pairs_json(sent.things, judged),
        }
    return _with_sums(report)


def merged(reports: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """The sum of reports on parts of one trace that were sent at the same time. Raises ValueError for others."""
    first = reports[0]
    for report in reports:
        if report.get("kind") != "refrain replay" or report.get("version") != VERSION:
            raise ValueError(f"not a replay report of version {VERSION}")
        if report["trace"] != first["trace"]:
            raise ValueError("the reports are of different traces")
        for name in _ALIKE:
            if report.get(name) != first.get(name):
                raise ValueError(f"the reports differ in {name}: {report.get(name)}, {first.get(name)}")
        rounds = [{name: one.get("control", {}).get(name) for name in _ROUNDS} for one in (report, first)]
        if rounds[0] != rounds[1]:
            raise ValueError(f"the reports differ in their controls: {rounds[0]}, {rounds[1]}")
    if len({report["part"] for report in reports}) < len(reports):
        raise ValueError("two reports are of the same part")
    warm: Counter[Source] = Counter()
    for report in reports:
        for row in report["warmup"]:
            warm[row["task"], row["status"], row["tier"]] += row["requests"]
    added = ("offered_per_s", "achieved_per_s", "items_answered_differently", "answers_that_differ")
    total = {
        **first,
        **{name: sum(report[name] for report in reports) for name in added},
        "part": "+".join(report["part"] for report in reports),
        "span_s": max(report["span_s"] for report in reports),
        "interrupted": any(report["interrupted"] for report in reports),
        "warmup": [{"task": t, "status": s, "tier": r, "requests": n} for (t, s, r), n in sorted(warm.items())],
        "sources": _sources(_texts(report["sources"]) for report in reports),
        "late": _histogram(report["late"]["histogram"] for report in reports),
        "gaps": _histogram(report["gaps"]["histogram"] for report in reports),
        "sender_cpu": [share for report in reports for share in report["sender_cpu"]],
        "items": max(report["items"] for report in reports),
        **added_quality(reports),
    }
    if "control" in first:
        controls = [report["control"] for report in reports]
        total["control"] = {
            **first["control"],
            "offered_per_s": sum(control["offered_per_s"] for control in controls),
            "sources": _sources(_texts(control["sources"]) for control in controls),
            **added_pairs(controls),
        }
    return _with_sums(total)


def _texts(rows: Iterable[dict[str, Any]]) -> dict[Source, str]:
    return {(row["task"], row["status"], row["tier"]): row["histogram"] for row in rows}


def _sources(found: Iterable[dict[Source, str]]) -> list[dict[str, Any]]:
    """Histograms by source, added up."""
    texts: dict[Source, list[str]] = defaultdict(list)
    for one in found:
        for source, text in one.items():
            texts[source].append(text)
    return [_source(source, same) for source, same in sorted(texts.items())]


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
    sums = {"requests": sum(counts.values()), "answered": answered, "errors": counts["ERROR"]}
    if "control" in report:
        control = report["control"]
        report["control"] = control | worth(control) | {"requests": sum(row["requests"] for row in control["sources"])}
    return {
        **report,
        **sums,
        **breakdown(report),
        "hits": hits,
        "misses": counts["MISS"],
        "coalesced": counts["COALESCED"],
        "bypassed": counts["BYPASS"],
        "hit_rate": hits / answered if answered else 0.0,
        "sender_is_the_limit": _limit(report),
    }


def _limit(report: Mapping[str, Any]) -> str:
    """What is to be said where the sender, and not the target, decided what was offered when; else nothing."""
    late, offered, achieved = report["late"]["p99_ms"], report["offered_per_s"], report["achieved_per_s"]
    if late <= LATE_MS:
        return ""
    found = (
        f"the sender, and not the target, was the limit: it sent {achieved:,.1f} of {offered:,.1f} requests a second"
        if achieved < KEPT * offered
        else "the sender kept the rate, but not each moment"
    )
    return (
        f"{found}, {late:.0f} ms late at the 99th percentile, which all times hold (its processes used "
        f"{report['sender_cpu']} of a core): give it --processes, or another machine"
    )


def shown(report: Mapping[str, Any]) -> dict[str, Any]:
    """A report without what only adding it to others needs."""
    told = {name: value for name, value in report.items() if name not in _FOR_ADDING}
    for name in ("late", "gaps"):
        told[name] = _plain(report[name])
    told["sources"] = [_plain(row) for row in report["sources"]]
    if "control" in report:
        told["control"] = {**report["control"], "sources": [_plain(row) for row in report["control"]["sources"]]}
    return told


def _plain(row: Mapping[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in row.items() if name != "histogram"}


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
    late, gaps = report["late"], report["gaps"]
    yield (
        f"times count from when a request was due; the sender was late by {human_seconds(late['p50_ms'] / 1e3)} at the "
        f"median, {human_seconds(late['p99_ms'] / 1e3)} at the 99th percentile, and the times between its requests off "
        f"by {human_seconds(gaps['p50_ms'] / 1e3)} and {human_seconds(gaps['p99_ms'] / 1e3)}"
    )
    if report["answers_that_differ"]:
        yield f"[red]{report['answers_that_differ']} answers were not what the same request had got before[/red]"
    yield from quality_tables(report)
    if report["sender_is_the_limit"]:
        yield f"[red]{report['sender_is_the_limit']}[/red]"
    if report["interrupted"]:
        yield "cut short: the report is of what was sent until then"
