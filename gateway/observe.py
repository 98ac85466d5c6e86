"""Outcome in; sums for Prometheus, the access trace and the rows of GetStats out. Also the form of the log.

`Observer.record` runs once in every request, hits included, so it only adds to plain numbers in a cell found by one
dictionary look-up; everything that costs (labels, cumulative buckets, quantiles) waits until somebody reads: `http`
for Prometheus, `snapshot` for GetStats. It is called from the event loop alone. One outcome is one request that ended
with an answer, so hits + misses + coalesced + bypassed = requests by construction; requests that ended with an error
are counted apart.
"""

from __future__ import annotations

import json
import logging
import sys
import time
from bisect import bisect_left
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final, TextIO

from gateway.stats import (
    BYPASS,
    HIT_EXACT,
    HIT_FUZZY,
    STATUSES,
    AuditCount,
    LanguageAudits,
    LanguageCount,
    OutcomeCount,
)
from gateway.trace import AccessTrace

_R20: Final = (1, 1.12, 1.25, 1.4, 1.6, 1.8, 2, 2.24, 2.5, 2.8, 3.15, 3.55, 4, 4.5, 5, 5.6, 6.3, 7.1, 8, 9)
BOUNDS: Final = (*(float(f"{step}e{decade}") for decade in range(-5, 2) for step in _R20), 100.0)
"""Upper bounds of the time buckets in seconds: preferred numbers, 9 to 14 % apart, 10 µs to 100 s; one more above."""
LANGUAGES: Final = 50
"""Told apart in metrics; more are "other"."""
WATCHABLE: Final = (
    "flights", "engine_queue", "rejected_stores", "bloom_false_negatives", "model_reloads", "components",
    "components_saved_s", "inputs_recorded", "inputs_dropped", "inputs_bytes",
)  # fmt: skip
"""Numbers that other parts own and that are read when somebody asks; `rejected_stores` and `inputs_dropped` are
mappings by reason, `model_reloads` and `components` by result."""


@dataclass(slots=True)
class Outcome:
    """Where one answer came from, what it took, what it saved. One for each request that ended with an answer."""

    task: str
    tenant: str
    status: int
    """CacheInfo.Status value."""
    tier: str = ""
    """The tier of a hit, else empty."""
    latency_s: float = 0.0
    """From the request's arrival to the end of its answer."""
    first_s: float = 0.0
    """To the first message of the answer; 0 where nobody measured."""
    bytes_in: int = 0
    bytes_out: int = 0
    compute_ms: float = 0.0
    """Engine time this request spent."""
    saved_ms: float = 0.0
    """Engine time it did not spend."""
    lookup_ms: float = 0.0
    """Time in the tiers and in recall."""
    similarity: float = 0.0
    digest: bytes = b""
    """The cache key's digest. The trace keeps it only hashed once more."""
    voice: str = ""
    emotion: str = ""
    streaming: bool = False
    engine: str = ""
    language: str = ""
    input: bytes = b""
    """The input's digest, where the answer is no hit; kept as the key's."""
    cause: int = 0
    """Why it is none: a number of stats.CAUSES."""


@dataclass(frozen=True, slots=True)
class TierReading:
    """What a tier says of itself when asked."""

    entries: int = 0
    bytes: int = 0
    capacity_bytes: int = 0
    evictions: Mapping[str, int] = field(default_factory=dict)
    """By reason, such as capacity, expired, tag."""
    errors: int = 0
    breaker_open: bool = False


@dataclass(frozen=True, slots=True)
class EngineReading:
    """An engine that serves now."""

    task: str
    identity: str
    models: str
    """NAME@VERSION of every model in it, joined by +."""
    share: float
    name: str = ""
    provider: str = ""
    """The ONNX Runtime execution provider that really runs."""


class Cell:
    """The sums of one tenant, task, status and tier. A histogram has one count for each of BOUNDS and one above."""

    __slots__ = (
        "bytes_in", "bytes_out", "compute_ms", "first", "first_sum", "latency", "latency_sum", "lookup", "lookup_sum",
        "saved_ms",
    )  # fmt: skip

    def __init__(self) -> None:
        self.bytes_in = self.bytes_out = 0
        self.compute_ms = self.saved_ms = self.latency_sum = self.first_sum = self.lookup_sum = 0.0
        self.latency = [0] * (len(BOUNDS) + 1)
        self.first = [0] * (len(BOUNDS) + 1)
        self.lookup = [0] * (len(BOUNDS) + 1)


class EngineCell:
    """The sums of one engine, whatever tenant and source: what a version on trial is judged by."""

    __slots__ = ("answers", "compute", "compute_s", "failures")

    def __init__(self) -> None:
        self.answers = self.failures = 0
        self.compute_s = 0.0
        self.compute = [0] * (len(BOUNDS) + 1)
        """Answers by the engine time they took; those from memory took none and are not in it."""


class Observer:
    """Counts outcomes for everyone who asks later. What it has counted is public, for readers only."""

    def __init__(self, trace: AccessTrace | None = None, *, wall: Callable[[], float] = time.time) -> None:
        self.trace = trace
        self.started = wall()
        self.cells: dict[tuple[str, str, int, str], Cell] = {}
        """By tenant, task, status and tier."""
        self.engine_cells: dict[str, EngineCell] = {}
        """By engine identity."""
        self.failed_requests: dict[tuple[str, str, str], int] = {}
        """By tenant, task and name of the gRPC status."""
        self.tiers: dict[str, Callable[[], TierReading]] = {}
        self.audits: Callable[[], AuditCount] = AuditCount
        self.audited_languages: Callable[[], Sequence[LanguageAudits]] = tuple
        self.engines: Callable[[], Sequence[EngineReading]] = tuple
        self.numbers: dict[str, Callable[[], float | Mapping[str, float]]] = {}
        self._languages: dict[tuple[str, str, str], list[int]] = {}
        """Requests by tenant, task and language, by status."""
        self._wall = wall

    def record(self, outcome: Outcome) -> None:
        """Counts one answered request. Raises ValueError for a status that is none."""
        cell = self.cells.get((outcome.tenant, outcome.task, outcome.status, outcome.tier))
        if cell is None:
            if not HIT_EXACT <= outcome.status <= BYPASS:
                raise ValueError(f"outcome status {outcome.status}: 1 ({STATUSES[1]}) to 5 ({STATUSES[5]}) are known")
            cell = self.cells[outcome.tenant, outcome.task, outcome.status, outcome.tier] = Cell()
        latency, first, lookup = outcome.latency_s, outcome.first_s, outcome.lookup_ms * 1e-3
        cell.bytes_in += outcome.bytes_in
        cell.bytes_out += outcome.bytes_out
        cell.compute_ms += outcome.compute_ms
        cell.saved_ms += outcome.saved_ms
        cell.latency[bisect_left(BOUNDS, latency)] += 1
        cell.latency_sum += latency
        cell.lookup[bisect_left(BOUNDS, lookup)] += 1
        cell.lookup_sum += lookup
        if first:
            cell.first[bisect_left(BOUNDS, first)] += 1
            cell.first_sum += first
        engine = self.engine_cells.get(outcome.engine) or self._cell_of(outcome.engine)
        engine.answers += 1
        if outcome.compute_ms:
            compute_s = outcome.compute_ms * 1e-3
            engine.compute[bisect_left(BOUNDS, compute_s)] += 1
            engine.compute_s += compute_s
        spoken = self._languages.get((outcome.tenant, outcome.task, outcome.language)) or self._spoken_of(outcome)
        spoken[outcome.status] += 1
        if self.trace is not None:
            self.trace.add(outcome)

    def _spoken_of(self, outcome: Outcome) -> list[int]:
        known = {language for _, _, language in self._languages}
        language = outcome.language if outcome.language in known or len(known) < LANGUAGES else "other"
        return self._languages.setdefault((outcome.tenant, outcome.task, language), [0] * len(STATUSES))

    def languages(self, tenant: str | None = None) -> list[LanguageCount]:
        """Requests and hits by task and language, of one tenant or of all; where no language is meant, none is told."""
        sums: dict[tuple[str, str], list[int]] = {}
        for (owner, task, language), row in sorted(self._languages.items()):
            if language and tenant in (None, owner):
                before = sums.get((task, language), [0] * len(row))
                sums[task, language] = [a + b for a, b in zip(before, row, strict=True)]
        return [
            LanguageCount(task, language, sum(row), row[HIT_EXACT], row[HIT_FUZZY])
            for (task, language), row in sums.items()
        ]

    def engine_failed(self, engine: str) -> None:
        """Counts a run of an engine that ended with its own failure, be it for a caller or for an audit."""
        self._cell_of(engine).failures += 1

    def _cell_of(self, engine: str) -> EngineCell:
        return self.engine_cells.setdefault(engine, EngineCell())

    def failed(self, task: str, code_name: str, tenant: str = "default") -> None:
        """Counts a request that ended with an error, by the name of its gRPC status."""
        key = (tenant, task, code_name)
        self.failed_requests[key] = self.failed_requests.get(key, 0) + 1

    def watch_tier(self, name: str, read: Callable[[], TierReading]) -> None:
        """Has `read` asked whenever metrics are collected. It must not block."""
        self.tiers[name] = read

    def watch_audits(
        self, read: Callable[[], AuditCount], by_language: Callable[[], Sequence[LanguageAudits]] = tuple
    ) -> None:
        """Both speak for all tenants together."""
        self.audits, self.audited_languages = read, by_language

    def watch_engines(self, read: Callable[[], Sequence[EngineReading]]) -> None:
        self.engines = read

    def watch(self, name: str, read: Callable[[], float | Mapping[str, float]]) -> None:
        """`name` is one of WATCHABLE."""
        if name not in WATCHABLE:
            raise ValueError(f"nothing called {name!r} is exported; known are {', '.join(WATCHABLE)}")
        self.numbers[name] = read

    def snapshot(self, tenant: str) -> list[OutcomeCount]:
        """The rows of GetStats: one for each task, status and tier that the tenant has seen."""
        return [
            OutcomeCount(
                task, status, tier, sum(cell.latency), cell.bytes_in + cell.bytes_out, cell.compute_ms / 1e3,
                cell.saved_ms / 1e3, quantile(cell.latency, 0.5), quantile(cell.latency, 0.99),
            )
            for (owner, task, status, tier), cell in sorted(self.cells.items()) if owner == tenant
        ]  # fmt: skip

    def failures(self, tenant: str) -> int:
        """How many requests of the tenant ended with an error."""
        return sum(count for (owner, _, _), count in self.failed_requests.items() if owner == tenant)

    @property
    def uptime_s(self) -> float:
        return self._wall() - self.started


def quantile(buckets: Sequence[int], share: float) -> float:
    """Seconds that `share` of the counted times do not exceed, to within a bucket's 14 %; 0 if nothing is counted."""
    wanted = share * sum(buckets)
    if not wanted:
        return 0.0
    below = 0
    for index, count in enumerate(buckets):
        if below + count >= wanted:
            if index == len(BOUNDS):
                break  # above the last bound nothing is known but that
            upper = BOUNDS[index]
            lower = BOUNDS[index - 1] if index else upper / 2
            return lower * float((upper / lower) ** ((wanted - below) / count))
        below += count
    return BOUNDS[-1]


class _LogLine(logging.Formatter):
    """One line an event. Callers pass facts as `extra={"fields": {...}}`: never text, audio, keys or tokens."""

    def __init__(self, *, json_lines: bool) -> None:
        super().__init__("%(asctime)s %(levelname)-7s %(name)s: %(message)s")
        self._json = json_lines
        self.converter = time.gmtime
        self.default_time_format, self.default_msec_format = "%Y-%m-%dT%H:%M:%S", "%s.%03dZ"

    def format(self, record: logging.LogRecord) -> str:
        fields: dict[str, Any] = getattr(record, "fields", {})
        if not self._json:
            record.message = record.getMessage() + "".join(f" {name}={value}" for name, value in fields.items())
            record.asctime = self.formatTime(record)
            line = self.formatMessage(record)
            return f"{line}\n{self.formatException(record.exc_info)}" if record.exc_info else line
        event = {
            "time": self.formatTime(record), "level": record.levelname, "logger": record.name,
            "event": record.getMessage(), "fields": fields,
        }  # fmt: skip
        if record.exc_info:
            event["exception"] = self.formatException(record.exc_info)
        return json.dumps(event, default=str, ensure_ascii=False)


def configure_logging(level: str = "INFO", json: bool = False, stream: TextIO | None = None) -> None:
    """Sends Refrain's log (loggers under `refrain`) and others' warnings to `stream`, standard error by default."""
    handler = logging.StreamHandler(stream or sys.stderr)
    handler.setFormatter(_LogLine(json_lines=json))
    root = logging.getLogger()
    for old in [old for old in root.handlers if isinstance(old.formatter, _LogLine)]:
        root.removeHandler(old)
    root.addHandler(handler)
    root.setLevel(logging.WARNING)
    logging.getLogger("refrain").setLevel(level.upper())
