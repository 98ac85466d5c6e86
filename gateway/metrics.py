"""What the observer knows, as a page for Prometheus: its plain numbers get names and labels when somebody asks.

Labels are closed sets: task, status, tier, reason, code, verdict, and the versions that serve; never a tenant or a
voice, which would grow without bound and say who speaks. Every series a gateway can come to have is there at zero from
the start, so that rates have a beginning.
"""

from __future__ import annotations

import asyncio
import logging
import platform
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Final, TypeVar

from prometheus_client import CollectorRegistry, ProcessCollector
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily, Metric
from prometheus_client.exposition import choose_encoder
from prometheus_client.registry import Collector

from gateway.observe import BOUNDS, Cell, EngineCell, EngineReading, Observer, TierReading
from gateway.stats import (
    BYPASS,
    COALESCED,
    HIT_EXACT,
    HIT_FUZZY,
    MISS,
    STATUSES,
    TASKS,
    TIERS,
    AuditCount,
    LanguageAudits,
)

log = logging.getLogger("refrain.metrics")
T = TypeVar("T")
Labels = TypeVar("Labels", bound=tuple[str, ...])

_EXPORTED: Final = tuple(i for i, bound in enumerate(BOUNDS) if bound >= 1e-4 and f"{bound:.1e}"[:3] in "1.0 2.5 5.0")
"""Every seventh bucket is enough for Prometheus: 100 µs, 250 µs, 500 µs, 1 ms and so on to 100 s."""
_SOURCES: Final = (
    *((status, tier) for status in (HIT_EXACT, HIT_FUZZY) for tier in TIERS), (MISS, ""), (COALESCED, ""), (BYPASS, "")
)  # fmt: skip
_LABELS: Final = ("task", "status", "tier")
_ENGINE: Final = ("task", "models", "engine")
_RELOADS: Final = ("done", "refused")
_COMPONENTS: Final = ("hit", "miss", "kept", "refused", "failure")
_CODES: Final = (
    "CANCELLED", "DEADLINE_EXCEEDED", "INTERNAL", "INVALID_ARGUMENT", "NOT_FOUND", "RESOURCE_EXHAUSTED",
    "UNAUTHENTICATED", "UNAVAILABLE",
)  # fmt: skip
_REJECTIONS: Final = ("empty", "erased", "refused")
_UNRECORDED: Final = ("queue", "disk", "key", "large", "erased", "failed")


class MetricsPage(Collector):
    """Everything the observer knows, as a Prometheus page. Tenants are summed."""

    def __init__(self, observer: Observer, *, version: str = "") -> None:
        self._observer, self._version = observer, version
        self._errors = 0
        self._registry = CollectorRegistry(auto_describe=False)
        self._registry.register(self)
        ProcessCollector(registry=self._registry)

    def render(self, accept: str = "") -> tuple[bytes, str]:
        """The page and its content type, in the form the Accept header asks for."""
        encode, content_type = choose_encoder(accept)
        return encode(self._registry), content_type

    def collect(self) -> Iterator[Metric]:
        cells: dict[tuple[str, int, str], list[Cell]] = {(task, *source): [] for task in TASKS for source in _SOURCES}
        for (_, task, status, tier), cell in self._observer.cells.items():
            cells.setdefault((task, status, tier), []).append(cell)
        groups = {(task, STATUSES[status].lower(), tier): group for (task, status, tier), group in cells.items()}
        yield from self._sums(groups)
        yield from self._failures()
        yield from self._histograms(groups)
        yield from self._engines()
        yield from self._tiers()
        yield from self._audits()
        yield from self._languages()
        yield from self._own()

    def _sums(self, groups: Mapping[tuple[str, str, str], Sequence[Cell]]) -> Iterator[Metric]:
        sums: tuple[tuple[str, str, Callable[[Cell], float]], ...] = (
            ("requests", "Answered requests, by where the answer came from.", lambda cell: sum(cell.latency)),
            ("request_bytes", "Bytes of answered requests.", lambda cell: cell.bytes_in),
            ("response_bytes", "Bytes of answers.", lambda cell: cell.bytes_out),
            ("compute_seconds", "Engine time spent.", lambda cell: cell.compute_ms / 1e3),
            ("saved_compute_seconds", "Engine time not spent.", lambda cell: cell.saved_ms / 1e3),
        )
        for name, what, value in sums:
            yield _counter(name, what, _LABELS, {labels: sum(map(value, group)) for labels, group in groups.items()})

    def _failures(self) -> Iterator[Metric]:
        counts = {(task, code): 0 for task in TASKS for code in _CODES}
        for (_, task, code), count in self._observer.failed_requests.items():
            counts[task, code] = counts.get((task, code), 0) + count
        yield _counter("failed_requests", "Requests that ended with an error.", ("task", "code"), counts)

    def _histograms(self, groups: Mapping[tuple[str, str, str], Sequence[Cell]]) -> Iterator[Metric]:
        # Each with the labels that matter to it alone: buckets are most of the page, and the page is made on the loop.
        for name, what, attribute, kept in (
            ("request_duration", "From a request's arrival to the end of its answer.", "latency", (0, 1, 2)),
            ("first_response", "From a request's arrival to the first message of its answer.", "first", (0, 1)),
            ("lookup_duration", "Time in tiers and recall.", "lookup", (0, 2)),
        ):
            family = HistogramMetricFamily(f"refrain_{name}_seconds", what, labels=[_LABELS[place] for place in kept])
            merged: dict[tuple[str, ...], list[Cell]] = {}
            for labels, group in groups.items():
                merged.setdefault(tuple(labels[place] for place in kept), []).extend(group)
            for wanted, cells in merged.items():
                counts = [sum(column) for column in zip(*(getattr(cell, attribute) for cell in cells), strict=True)]
                total = sum(getattr(cell, f"{attribute}_sum") for cell in cells)
                family.add_metric(wanted, _cumulative(counts), sum_value=total)
            yield family

    def _engines(self) -> Iterator[Metric]:
        """By version, so that one on trial can be held against the active one. What serves no more is told no more:
        versions come and go for ever."""
        nothing: Sequence[EngineReading] = ()
        readings = self._read(self._observer.engines, nothing)
        labels = {one.identity: (one.task, one.models, one.identity[:12]) for one in readings}
        cells = {labels[key]: self._observer.engine_cells.get(key, EngineCell()) for key in labels}
        answers = {key: cell.answers for key, cell in cells.items()}
        yield _counter("engine_answers", "Answers of an engine, those from memory among them.", _ENGINE, answers)
        failures = {key: cell.failures for key, cell in cells.items()}
        yield _counter("engine_failures", "Runs of an engine that failed.", _ENGINE, failures)
        what = "Engine time of a computed answer."
        took = HistogramMetricFamily("refrain_engine_compute_seconds", what, labels=_ENGINE)
        for key, cell in cells.items():
            took.add_metric(key, _cumulative(cell.compute), sum_value=cell.compute_s)
        yield took
        told = {(one.task, one.name, one.identity[:12], one.provider): 1.0 for one in readings}
        what = "1 for each engine that serves, with the ONNX Runtime execution provider that really runs."
        yield _gauge("engine_info", what, ("task", "model", "engine", "provider"), told)
        shares = {labels[one.identity]: one.share for one in readings}
        yield _gauge("engine_share", "Of the requests that name no version, the share an engine gets.", _ENGINE, shares)

    def _tiers(self) -> Iterator[Metric]:
        readings = {name: TierReading() for name in TIERS}
        readings |= {name: self._read(read, TierReading()) for name, read in self._observer.tiers.items()}
        for name, what, attribute in (
            ("entries", "Entries held.", "entries"),
            ("bytes", "Bytes held.", "bytes"),
            ("capacity_bytes", "Bytes the tier may hold; 0 for no bound.", "capacity_bytes"),
            ("breaker_open", "1 while the tier is left alone after failures.", "breaker_open"),
        ):
            values = {(tier,): float(getattr(reading, attribute)) for tier, reading in readings.items()}
            yield _gauge(f"tier_{name}", what, ("tier",), values)
        errors = {(tier,): reading.errors for tier, reading in readings.items()}
        yield _counter("tier_errors", "Calls of a tier that failed.", ("tier",), errors)
        evictions = {(tier, why): 0 for tier in readings for why in ("capacity", "expired")}
        evictions |= {(tier, why): n for tier, reading in readings.items() for why, n in reading.evictions.items()}
        yield _counter("tier_evictions", "Entries dropped.", ("tier", "reason"), evictions)

    def _audits(self) -> Iterator[Metric]:
        audits = self._read(self._observer.audits, AuditCount())
        verdicts = {
            ("right",): audits.audited - audits.wrong - audits.undecided,
            ("wrong",): audits.wrong,
            ("undecided",): audits.undecided,
        }
        yield _counter("fuzzy_audits", "Fuzzy answers judged.", ("verdict",), verdicts)
        bound = "Upper 95 % bound of the share of wrong answers among fuzzy hits."
        yield _gauge("fuzzy_wrong_upper_bound", bound, (), {(): audits.wrong_upper_bound})
        doubted = "The same bound, were every undecided audit a wrong one."
        yield _gauge("fuzzy_wrong_upper_bound_doubted", doubted, (), {(): audits.doubted_upper_bound})
        least = "Least similarity of fuzzy answers that are served; above 1 while none is."
        yield _gauge("fuzzy_serving_from_similarity", least, (), {(): audits.from_similarity})
        alarms = "Times that audits showed wrong answers to have become frequent."
        yield _counter("fuzzy_alarms", alarms, (), {(): audits.alarms})
        unserved = {("withheld",): audits.withheld, ("shadow",): audits.would_serve}
        yield _counter("fuzzy_unserved", "Fuzzy answers found and not served, by why.", ("reason",), unserved)
        limit = "Largest share of fuzzy answers that may be wrong."
        yield _gauge("fuzzy_wrong_limit", limit, (), {(): audits.limit})
        yield _gauge("fuzzy_serving", "1 while fuzzy answers are served.", (), {(): float(audits.serving)})

    def _languages(self) -> Iterator[Metric]:
        counts: dict[tuple[str, ...], float] = {}
        for row in self._observer.languages():
            counts[row.task, row.language, "hit_exact"] = row.hits_exact
            counts[row.task, row.language, "hit_fuzzy"] = row.hits_fuzzy
            counts[row.task, row.language, "other"] = row.requests - row.hits_exact - row.hits_fuzzy
        what = "Answered requests by the language they named."
        yield _counter("language_requests", what, ("task", "language", "status"), counts)
        nothing: Sequence[LanguageAudits] = ()
        verdicts: dict[tuple[str, ...], float] = {}
        for one in self._read(self._observer.audited_languages, nothing):
            verdicts[one.language, "right"] = one.audited - one.wrong - one.undecided
            verdicts[one.language, "wrong"] = one.wrong
            verdicts[one.language, "undecided"] = one.undecided
        what = "Fuzzy answers judged, by the language their requests named."
        yield _counter("language_fuzzy_audits", what, ("language", "verdict"), verdicts)

    def _own(self) -> Iterator[Metric]:
        nothing: float | Mapping[str, float] = {}
        numbers = {name: self._read(read, nothing) for name, read in self._observer.numbers.items()}

        def number(name: str) -> dict[tuple[str, ...], float]:
            value = numbers.get(name, nothing)
            return {(): sum(value.values()) if isinstance(value, Mapping) else value}

        yield _gauge("flights", "Computations running now.", (), number("flights"))
        yield _gauge("tasks", "Tasks of the event loop, this page's among them.", (), {(): _tasks()})
        yield _gauge("engine_queue", "Computations waiting for a thread.", (), number("engine_queue"))
        denied = "Entries a Bloom filter denied although they were there."
        yield _counter("bloom_false_negatives", denied, (), number("bloom_false_negatives"))
        rejected = numbers.get("rejected_stores")
        reasons = dict.fromkeys(_REJECTIONS, 0.0) | (dict(rejected) if isinstance(rejected, Mapping) else {})
        counts = {(reason,): count for reason, count in reasons.items()}
        yield _counter("rejected_stores", "Answers that were not stored.", ("reason",), counts)
        found = numbers.get("components")
        results = dict.fromkeys(_COMPONENTS, 0.0) | (dict(found) if isinstance(found, Mapping) else {})
        counts = {(result,): count for result, count in results.items()}
        what = "Mels between models, looked for (hit, miss) and made (kept, refused), and copies that failed."
        yield _counter("components", what, ("result",), counts)
        saved = "Engine time that mels found had taken to make."
        yield _counter("components_saved_seconds", saved, (), number("components_saved_s"))
        loads = numbers.get("model_reloads")
        results = dict.fromkeys(_RELOADS, 0.0) | (dict(loads) if isinstance(loads, Mapping) else {})
        counts = {(result,): count for result, count in results.items()}
        yield _counter("model_reloads", "Times the registry was read again.", ("result",), counts)
        trace = self._observer.trace
        yield _counter("trace_records", "Requests taken by the access trace.", (), {(): trace.records if trace else 0})
        yield _counter("trace_dropped", "Requests the access trace lost.", (), {(): trace.dropped if trace else 0})
        kept = "Inputs recorded, of tenants that consent to it."
        yield _counter("inputs_recorded", kept, (), number("inputs_recorded"))
        lost = numbers.get("inputs_dropped")
        reasons = dict.fromkeys(_UNRECORDED, 0.0) | (dict(lost) if isinstance(lost, Mapping) else {})
        counts = {(reason,): count for reason, count in reasons.items()}
        yield _counter("inputs_dropped", "Inputs that were to be recorded and were not.", ("reason",), counts)
        yield _gauge("inputs_bytes", "Of all files of recorded inputs.", (), number("inputs_bytes"))
        yield _counter("scrape_errors", "Readings that failed during a scrape.", (), {(): self._errors})
        build = {(self._version, platform.python_version()): 1.0}
        yield _gauge("build_info", "1, for its labels.", ("version", "python"), build)
        yield _gauge("start_time_seconds", "Unix time of the start.", (), {(): self._observer.started})

    def _read(self, read: Callable[[], T], otherwise: T) -> T:
        try:
            return read()
        except Exception:  # one part that cannot be read must not hide the others
            self._errors += 1
            log.debug("reading failed", exc_info=True)
            return otherwise


def _counter(name: str, what: str, labels: Sequence[str], values: Mapping[Labels, float]) -> Metric:
    family = CounterMetricFamily(f"refrain_{name}", what, labels=labels)
    for key, value in values.items():
        family.add_metric(key, value)
    return family


def _gauge(name: str, what: str, labels: Sequence[str], values: Mapping[Labels, float]) -> Metric:
    family = GaugeMetricFamily(f"refrain_{name}", what, labels=labels)
    for key, value in values.items():
        family.add_metric(key, value)
    return family


def _tasks() -> int:
    try:
        return len(asyncio.all_tasks())
    except RuntimeError:  # the page is made outside of it
        return 0


def _cumulative(counts: Sequence[int]) -> list[tuple[str, float]]:
    """Prometheus' cumulative buckets from ours, which may be none at all."""
    counts = counts or [0] * (len(BOUNDS) + 1)
    buckets = [(f"{BOUNDS[index]:g}", float(sum(counts[: index + 1]))) for index in _EXPORTED]
    return [*buckets, ("+Inf", float(sum(counts)))]
