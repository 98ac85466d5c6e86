"""A gateway's counts as plain values, and as the table and the JSON people read. No protos, no metrics library.

`observe` fills these values in the gateway, `client` from the wire; everything derived from them is derived here once,
so that every report adds up: hits + misses + coalesced + bypassed = requests. Failures are counted apart.
"""

from __future__ import annotations

import time
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from rich.console import RenderableType
    from rich.table import Table

STATUSES: Final = ("STATUS_UNSPECIFIED", "HIT_EXACT", "HIT_FUZZY", "MISS", "COALESCED", "BYPASS")
"""Names of CacheInfo.Status by number."""
HIT_EXACT, HIT_FUZZY, MISS, COALESCED, BYPASS = range(1, 6)
TASKS: Final = ("recognize", "synthesize", "vocode", "embed")
TIERS: Final = ("device", "redis")
CAUSES: Final = ("", "not looked", "spared", "absent", "unavailable", "too old", "unlike", "withheld")
"""Why an answer was no hit: the caller wanted a new one; the filter of the second tier said that it can't be there; it
was not there; the second tier could not be asked; older than the caller allows; recall found nothing alike enough;
found, and held back by audits. Empty for hits and for what was being computed already."""
NOT_LOOKED, SPARED, ABSENT, UNAVAILABLE, TOO_OLD, UNLIKE, WITHHELD = range(1, 8)


@dataclass(frozen=True, slots=True)
class OutcomeCount:
    """All requests of one task that were answered from one place."""

    task: str
    status: int
    """CacheInfo.Status value."""
    tier: str = ""
    """The tier of a hit, else empty."""
    requests: int = 0
    bytes: int = 0
    """Of requests and of answers."""
    compute_s: float = 0.0
    saved_s: float = 0.0
    p50_s: float = 0.0
    p99_s: float = 0.0


@dataclass(frozen=True, slots=True)
class TierCount:
    """How full a tier is, and what became of it."""

    name: str
    entries: int = 0
    bytes: int = 0
    capacity_bytes: int = 0
    evictions: int = 0
    errors: int = 0


@dataclass(frozen=True, slots=True)
class AuditCount:
    """What is known of the fuzzy answers' being right."""

    audited: int = 0
    wrong: int = 0
    undecided: int = 0
    wrong_upper_bound: float = 1.0
    """Upper 95 % bound of the share of wrong answers among fuzzy hits, valid at any time it is read."""
    limit: float = 0.0
    serving: bool = False
    doubted_upper_bound: float = 1.0
    """The same bound with every undecided audit a wrong one."""
    from_similarity: float = 0.0
    """Where serving: only answers at least this much alike are."""
    alarms: int = 0
    """How often audits showed that wrong answers had become frequent; each time all had to be proved anew."""
    shadow: bool = False
    """Recordings are looked up and audited, and none is served."""
    would_serve: int = 0
    """In shadow mode: answers that audits would have let through, since the gateway started."""
    withheld: int = 0
    """Answers found but held back by audits, since the gateway started."""


@dataclass(frozen=True, slots=True)
class LanguageAudits:
    """What is known of the fuzzy answers to requests in one language."""

    language: str
    audited: int = 0
    wrong: int = 0
    undecided: int = 0
    wrong_upper_bound: float = 1.0


@dataclass(frozen=True, slots=True)
class VoiceAudits:
    """What is known of the answers to voices and moods by likeness in which one voice answered."""

    voice: str
    audited: int = 0
    wrong: int = 0
    undecided: int = 0
    wrong_upper_bound: float = 1.0


@dataclass(frozen=True, slots=True)
class AuditedPair:
    """A fuzzy answer that was judged."""

    kind: str
    """recording, said again, or voice and mood."""
    verdict: str
    """wrong, unjudged, undecided or right."""
    similarity: float
    """0 where only a person's report tells of it."""
    entry_id: str
    """Of the fuzzy answer, to report it as wrong."""
    answer_id: str
    """Of the stored answer that was given, to look at or drop; empty where it is not known."""
    asked: str
    """Half the keyed digest of what was asked, in hex."""
    recalled: str
    """The same of what answered."""
    language: str
    voice: str
    """The voice that answered where one was asked for by likeness; a recording's speaker is not known."""
    at_s: float
    """Unix seconds."""


@dataclass(frozen=True, slots=True)
class LanguageCount:
    """All requests of one task in one language."""

    task: str
    language: str
    requests: int = 0
    hits_exact: int = 0
    hits_fuzzy: int = 0


@dataclass(frozen=True, slots=True)
class Tally:
    """Sums over outcomes, and the rates people ask for. All rates are 0 where there is nothing to divide by."""

    requests: int = 0
    hits_exact: int = 0
    hits_fuzzy: int = 0
    misses: int = 0
    coalesced: int = 0
    bypassed: int = 0
    bytes: int = 0
    hit_bytes: int = 0
    compute_s: float = 0.0
    saved_s: float = 0.0

    @classmethod
    def of(cls, outcomes: Iterable[OutcomeCount]) -> Tally:
        rows = list(outcomes)

        def count(*statuses: int) -> int:
            return sum(row.requests for row in rows if row.status in statuses)

        return cls(
            requests=sum(row.requests for row in rows),
            hits_exact=count(HIT_EXACT),
            hits_fuzzy=count(HIT_FUZZY),
            misses=count(MISS),
            coalesced=count(COALESCED),
            bypassed=count(BYPASS),
            bytes=sum(row.bytes for row in rows),
            hit_bytes=sum(row.bytes for row in rows if row.status in (HIT_EXACT, HIT_FUZZY)),
            compute_s=sum(row.compute_s for row in rows),
            saved_s=sum(row.saved_s for row in rows),
        )

    @property
    def hits(self) -> int:
        return self.hits_exact + self.hits_fuzzy

    @property
    def hit_rate(self) -> float:
        return self.hits / self.requests if self.requests else 0.0

    @property
    def byte_hit_rate(self) -> float:
        return self.hit_bytes / self.bytes if self.bytes else 0.0

    @property
    def compute_hit_rate(self) -> float:
        """Share of the engine time that was not spent, of what it would have been without a cache."""
        whole = self.compute_s + self.saved_s
        return self.saved_s / whole if whole else 0.0


@dataclass(frozen=True, slots=True)
class Stats:
    """Everything GetStats says."""

    outcomes: Sequence[OutcomeCount] = ()
    tiers: Sequence[TierCount] = ()
    audits: AuditCount = field(default_factory=AuditCount)
    uptime_s: float = 0.0
    failed: int = 0
    near_audits: AuditCount = field(default_factory=AuditCount)
    """Of voices by embedding and moods by example; `audits` are of recordings recalled."""
    languages: Sequence[LanguageCount] = ()
    audits_by_language: Sequence[LanguageAudits] = ()
    audits_by_voice: Sequence[VoiceAudits] = ()

    @property
    def total(self) -> Tally:
        return Tally.of(self.outcomes)

    def by_task(self) -> dict[str, Tally]:
        tasks = sorted({row.task for row in self.outcomes if row.requests})
        return {task: Tally.of(row for row in self.outcomes if row.task == task) for task in tasks}


def as_json(stats: Stats, *, price_per_gpu_hour: float = 0.0) -> dict[str, Any]:
    """For `json.dump`. Money appears only where a price was given."""
    document: dict[str, Any] = {
        "uptime_s": stats.uptime_s,
        "failed": stats.failed,
        "total": _tally_json(stats.total),
        "tasks": {task: _tally_json(tally) for task, tally in stats.by_task().items()},
        "outcomes": [{**asdict(row), "status": STATUSES[row.status]} for row in stats.outcomes],
        "tiers": [asdict(tier) for tier in stats.tiers],
        "audits": asdict(stats.audits),
        "near_audits": asdict(stats.near_audits),
        "languages": [asdict(row) for row in stats.languages],
        "audits_by_language": [asdict(row) for row in stats.audits_by_language],
        "audits_by_voice": [asdict(row) for row in stats.audits_by_voice],
    }
    if price_per_gpu_hour:
        document["price_per_gpu_hour"] = price_per_gpu_hour
        document["saved_money"] = stats.total.saved_s / 3600 * price_per_gpu_hour
    return document


def _tally_json(tally: Tally) -> dict[str, Any]:
    rates = {name: getattr(tally, name) for name in ("hits", "hit_rate", "byte_hit_rate", "compute_hit_rate")}
    return asdict(tally) | rates


def as_table(stats: Stats, *, price_per_gpu_hour: float = 0.0) -> RenderableType:
    """Tables and lines for a `rich` console."""
    from rich.console import Group

    parts: list[RenderableType] = [""]
    total = stats.total
    if not total.requests:
        parts.append(f"No request has been answered yet (up {human_seconds(stats.uptime_s)}, {stats.failed} failed).")
    else:
        parts += [_task_table(stats), "", _source_table(stats), "", *_sum_lines(stats, price_per_gpu_hour)]
    if stats.tiers:
        parts += ["", _tier_table(stats.tiers)]
    if stats.audits.audited or stats.audits.serving or total.hits_fuzzy:
        parts += ["", audit_line(stats.audits)]
    if len({row.language for row in stats.languages}) > 1:
        parts += ["", _language_table(stats)]
    if stats.near_audits.audited:
        parts.append(f"Voices and moods: {audit_line(stats.near_audits)}")
    return Group(*parts)


def pairs_table(pairs: Sequence[AuditedPair]) -> RenderableType:
    """Each on lines of its own: the entry_id that reports it is longer than a row of a table can be."""
    from rich.markup import escape
    from rich.text import Text

    if not pairs:
        return "\nNo fuzzy answer has been judged yet."
    lines = ["", "[bold]Judged by audits or reported, the worst first[/]"]
    for pair in pairs:
        alike = f"similarity {pair.similarity:.3f}" if pair.similarity else "similarity not known"
        about = ", ".join(filter(None, (pair.kind, pair.language, pair.voice)))
        when = time.strftime("%Y-%m-%d %H:%M:%S", time.gmtime(pair.at_s))
        lines.append(f"  {pair.verdict:10}{alike}  {escape(about)}, {when} UTC\n    {pair.entry_id}")
    lines.append("`refrain wrong ENTRY_ID` reports one that is not called wrong and is.")
    return Text.from_markup("\n".join(lines))


def _task_table(stats: Stats) -> Table:
    title = "By task: hits as a share of requests, of bytes and of compute"
    table = _table(title, "task", "requests", "exact", "fuzzy", "hits", "bytes", "compute", "spent", "saved")
    rows = stats.by_task()
    if len(rows) > 1:
        rows["all"] = stats.total
    for task, tally in rows.items():
        table.add_row(
            task, f"{tally.requests:,}", f"{tally.hits_exact:,}", f"{tally.hits_fuzzy:,}", _share(tally.hit_rate),
            _share(tally.byte_hit_rate), _share(tally.compute_hit_rate),
            human_seconds(tally.compute_s), human_seconds(tally.saved_s),
        )  # fmt: skip
    return table


def _source_table(stats: Stats) -> Table:
    table = _table("By source", "answered by", "requests", "share", "spent", "saved", "p50", "p99")
    for task, tally in stats.by_task().items():
        table.add_row(f"[bold]{task}[/]")
        rows = [row for row in stats.outcomes if row.task == task and row.requests]
        for row in sorted(rows, key=lambda row: (row.status, row.tier)):
            table.add_row(
                "  " + " from ".join(filter(None, (STATUSES[row.status], row.tier))), f"{row.requests:,}",
                _share(row.requests / tally.requests), human_seconds(row.compute_s), human_seconds(row.saved_s),
                human_seconds(row.p50_s), human_seconds(row.p99_s),
            )  # fmt: skip
    return table


def _language_table(stats: Stats) -> Table:
    table = _table("By language", "task, language", "requests", "exact", "fuzzy", "judged", "wrong", "at most")
    audits = {row.language: row for row in stats.audits_by_language}
    for row in stats.languages:
        found = audits.get(row.language) if row.task == "recognize" else None
        judged = [f"{found.audited:,}", f"{found.wrong:,}", _share(found.wrong_upper_bound, 2)] if found else [""] * 3
        table.add_row(
            f"{row.task}, {row.language}", f"{row.requests:,}", f"{row.hits_exact:,}", f"{row.hits_fuzzy:,}", *judged
        )
    return table


def _tier_table(tiers: Iterable[TierCount]) -> Table:
    table = _table("Tiers", "tier", "entries", "bytes", "capacity", "full", "evictions", "errors")
    for tier in tiers:
        full = _share(tier.bytes / tier.capacity_bytes) if tier.capacity_bytes else "-"
        capacity = human_bytes(tier.capacity_bytes) if tier.capacity_bytes else "not bounded"
        table.add_row(
            tier.name, f"{tier.entries:,}", human_bytes(tier.bytes), capacity, full,
            f"{tier.evictions:,}", f"{tier.errors:,}",
        )  # fmt: skip
    return table


def _sum_lines(stats: Stats, price_per_gpu_hour: float) -> list[str]:
    total = stats.total
    lines = [
        f"{total.requests:,} requests in {human_seconds(stats.uptime_s)} = {total.hits:,} hits"
        f" + {total.misses:,} misses + {total.coalesced:,} coalesced + {total.bypassed:,} bypassed;"
        f" {stats.failed:,} more failed.",
        f"Saved {human_seconds(total.saved_s)} of compute, {_share(total.compute_hit_rate)} of what it would be.",
    ]
    if price_per_gpu_hour:
        money = total.saved_s / 3600 * price_per_gpu_hour
        lines.append(f"At {price_per_gpu_hour:g} per GPU hour that is {money:,.4f}, if compute is GPU time.")
    return lines


def audit_line(audits: AuditCount) -> str:
    """Says what the audits found, without claiming more than they did."""
    state = "fuzzy answers are served" if audits.serving else "fuzzy answers are not served"
    if audits.serving and audits.from_similarity:
        state += f" from a similarity of {audits.from_similarity:g}"
    if audits.withheld:
        state += f", {audits.withheld:,} were held back"
    if audits.shadow:
        state += f" (shadow mode: {audits.would_serve:,} would have been)"
    if not audits.audited:
        return f"Audits: none yet; {state}."
    return (
        f"Audits: {audits.wrong:,} wrong of {audits.audited:,} judged ({audits.undecided:,} undecided); at most"
        f" {_share(audits.wrong_upper_bound, 2)} of fuzzy hits are wrong (95 % bound, limit {_share(audits.limit, 2)};"
        f" {_share(audits.doubted_upper_bound, 2)} were all undecided ones wrong);"
        f" {state}."
    )


def human_seconds(seconds: float) -> str:
    """Three digits at most, in the unit a person would use."""
    if seconds == 0:
        return "0"
    for below, scale, unit in ((1e-3, 1e6, "µs"), (1, 1e3, "ms"), (120, 1, "s"), (7200, 1 / 60, "min")):
        if seconds < below:
            return f"{_three_digits(seconds * scale)} {unit}"
    if seconds < 172_800:
        return f"{_three_digits(seconds / 3600)} h"
    return f"{_three_digits(seconds / 86_400)} d"


def human_bytes(count: float) -> str:
    for unit in ("B", "KiB", "MiB", "GiB"):
        if count < 1024:
            return f"{_three_digits(count) if unit != 'B' else int(count)} {unit}"
        count /= 1024
    return f"{_three_digits(count)} TiB"


def _three_digits(value: float) -> str:
    return f"{value:.0f}" if value >= 99.95 else f"{value:.1f}" if value >= 9.995 else f"{value:.2f}"


def _share(value: float, digits: int = 1) -> str:
    return f"{value * 100:.{digits}f} %"


def _table(title: str, first: str, *columns: str) -> Table:
    from rich.box import SIMPLE_HEAD
    from rich.table import Table

    # All tables fit into 80 columns, the width of a pipe.
    table = Table(
        title=title, box=SIMPLE_HEAD, title_justify="left", title_style="bold", show_edge=False, padding=(0, 1, 0, 0)
    )
    table.add_column(first, no_wrap=True)
    for column in columns:
        table.add_column(column, justify="right", no_wrap=True)
    return table
