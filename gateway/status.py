"""What the status page shows, as one JSON document: counts for everyone, entries and books for their own tenant alone.

The counts are those of /metrics, all tenants summed and none named. Whoever may administer a tenant sees in addition
that tenant's entries that are hit most, by the name that `CacheInfo.entry_id` has for them, and its audits. Words are
told only where the operator has allowed it (`status.show_text`). Nothing here waits, or asks Redis.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Final, TypeVar

from cache_tiers.device import DeviceTier
from cache_tiers.entry import CacheKey, Entry
from gateway import wire
from gateway.audits import near_of, respoken_of
from gateway.keys import Keys
from gateway.leaders import Leaders
from gateway.notes import Notes
from gateway.observe import Observer, TierReading, quantile
from gateway.pulse import SECONDS, Beat, Pulse
from gateway.stats import STATUSES, TIERS, AuditCount, AuditedPair, OutcomeCount, Tally

T = TypeVar("T")

ENTRIES: Final = 12
FUZZY: Final = 6
PAIRS: Final = 6
TEXT_CHARACTERS: Final = 120
AUDITS_S: Final = 5.0
"""How old what is told of audits may be: their bounds take milliseconds to compute, and move slowly."""


@dataclass(frozen=True, slots=True)
class RedisReading:
    """How the shared tier's server is doing, as seen from here."""

    private: bool = False
    """It is this gateway's own."""
    breaker_open: bool = False
    opened: int = 0
    """How often the breaker has opened."""
    calls: int = 0
    failures: int = 0
    timeouts: int = 0
    skipped: int = 0
    """Calls not made, because the breaker was open."""
    used_bytes: int = 0


class Status:
    """Reads, on the event loop, what others own."""

    def __init__(
        self,
        observer: Observer,
        pulse: Pulse,
        device: DeviceTier,
        leaders: Leaders,
        notes: Notes,
        keys: Keys,
        *,
        audits: Callable[[str], AuditCount],
        pairs: Callable[[str], Sequence[AuditedPair]],
        redis: Callable[[], RedisReading],
        voices: Callable[[], Iterable[str]],
        show_text: bool,
        version: str = "",
        wall: Callable[[], float] = time.time,
    ) -> None:
        """`audits`: of a tenant's books. `pairs`: that were judged, the worst first. `voices`: names that entries may
        be tagged with."""
        self._observer, self._pulse, self._device = observer, pulse, device
        self._leaders, self._notes, self._keys = leaders, notes, keys
        self._audits, self._pairs, self._redis, self._voices = audits, pairs, redis, voices
        self._show_text, self._version, self._wall = show_text, version, wall
        self._told: dict[str | None, tuple[float, list[dict[str, Any]]]] = {}
        """Of audits, by tenant, None for all: when, and what."""

    def public(self) -> dict[str, Any]:
        """What everyone may see."""
        self._pulse.look()
        outcomes = [
            OutcomeCount(
                task, status, tier, sum(source.latency), source.bytes, source.compute_ms / 1e3, source.saved_ms / 1e3,
                quantile(source.latency, 0.5), quantile(source.latency, 0.99),
            )
            for (task, status, tier), source in sorted(self._pulse.sources.items())
        ]  # fmt: skip
        total = Tally.of(outcomes)
        beats = self._pulse.beats
        return {
            "version": self._version,
            "uptime_s": self._observer.uptime_s,
            "live": _beat(beats[-1] if beats else Beat(0.0, None, None)),
            "history": _history(beats),
            "totals": asdict(total)
            | {"hits": total.hits, "hit_rate": total.hit_rate, "compute_hit_rate": total.compute_hit_rate}
            | {"failed": sum(self._observer.failed_requests.values())},
            "sources": [self._source(row, total) for row in outcomes],
            "tiers": [self._tier(name, read, outcomes, total) for name, read in self._observer.tiers.items()],
            "audits": self._audited(None),
            "engines": self._engines(),
            "redis": asdict(_read(self._redis, RedisReading())),
            "work": {name: _number(self._observer, name) for name in ("flights", "engine_queue")}
            | {"bloom_false_negatives": _number(self._observer, "bloom_false_negatives")},
        }

    def own(self, tenant: str) -> dict[str, Any]:
        """What those may see who may administer this tenant."""
        return {
            "audits": self._audited(tenant),
            "entries": self._entries(tenant),
            "fuzzy": [
                {"id": entry_id, "task": one.task, "tier": one.tier, "similarity": one.similarity,
                 "age_s": max(0.0, self._wall() - one.at)}
                for entry_id, one in self._notes.fuzzy_of(tenant, FUZZY)
            ],
            "pairs": [self._pair(tenant, one) for one in self._pairs(tenant)[:PAIRS]],
        }  # fmt: skip

    def _pair(self, tenant: str, one: AuditedPair) -> dict[str, Any]:
        return {
            "id": one.entry_id, "kind": one.kind, "verdict": one.verdict, "similarity": one.similarity,
            "language": one.language, "voice": one.voice, "answer_id": one.answer_id,
            "age_s": max(0.0, self._wall() - one.at_s), "text": self._text_by_id(tenant, one.answer_id),
        }  # fmt: skip

    def audits_changed(self, tenant: str) -> None:
        """They are looked at anew the next time."""
        self._told.pop(tenant, None)

    def _audited(self, tenant: str | None) -> list[dict[str, Any]]:
        at, told = self._told.get(tenant, (-math.inf, []))
        now = self._wall()
        if not 0 <= now - at < AUDITS_S:
            if tenant is None:
                counts = {"recordings, all tenants": _read(self._observer.audits, AuditCount())}
            else:
                books = (
                    ("recordings", tenant), ("commands said again", respoken_of(tenant)),
                    ("voices and moods", near_of(tenant)),
                )  # fmt: skip
                counts = {what: self._audits(book) for what, book in books}
            told = [{"what": what} | asdict(count) for what, count in counts.items()]
            self._told[tenant] = now, told
        return told

    def _source(self, row: OutcomeCount, total: Tally) -> dict[str, Any]:
        latency = self._pulse.sources[row.task, row.status, row.tier].latency
        return asdict(row) | {
            "status": STATUSES[row.status],
            "share": row.requests / total.requests if total.requests else 0.0,
            "p95_s": quantile(latency, 0.95),
        }

    def _tier(
        self, name: str, read: Callable[[], TierReading], outcomes: Sequence[OutcomeCount], total: Tally
    ) -> dict[str, Any]:
        # A tier of components answers no request by itself.
        hits = sum(row.requests for row in outcomes if row.tier == name) if name in TIERS else None
        reading = _read(read, TierReading())
        return {
            "name": name, "entries": reading.entries, "bytes": reading.bytes, "capacity_bytes": reading.capacity_bytes,
            "evictions": dict(reading.evictions), "errors": reading.errors, "breaker_open": reading.breaker_open,
            "hits": hits, "hit_rate": None if hits is None else hits / total.requests if total.requests else 0.0,
        }  # fmt: skip

    def _engines(self) -> list[dict[str, Any]]:
        nothing: Sequence[Any] = ()
        told = []
        for one in _read(self._observer.engines, nothing):
            cell = self._observer.engine_cells.get(one.identity)
            told.append(
                {
                    "task": one.task, "name": one.name, "models": one.models, "identity": one.identity[:12],
                    "provider": one.provider, "share": one.share,
                    "answers": cell.answers if cell else 0, "failures": cell.failures if cell else 0,
                    "compute_s": cell.compute_s if cell else 0.0,
                    "p50_s": quantile(cell.compute, 0.5) if cell else 0.0,
                }
            )  # fmt: skip
        return told

    # ------------------------------------------------------------------------------------------------- entries

    def task_of(self, tenant: str, entry: Entry) -> str:
        """The task of an entry, by the engine it is tagged with; empty where that serves no more."""
        return _first(self._tags(tenant), entry.tags)

    def _tags(self, tenant: str) -> Mapping[str, str]:
        """Tasks by the tags of the engines that serve."""
        keys = self._keys.of(tenant)
        return {keys.tag("engine", one.identity): one.task for one in self._observer.engines()}

    def _entries(self, tenant: str) -> list[dict[str, Any]]:
        keys, now = self._keys.of(tenant), self._wall()
        tasks = self._tags(tenant)
        voices = {keys.tag("voice", name): name for name in self._voices()}
        told = []
        for key in self._leaders.of(tenant, ENTRIES):
            lease = self._device.hold(key)
            if lease is None:
                continue
            with lease:
                entry = lease.entry
                hits = self._device.hits_of(key)
                task = _first(tasks, entry.tags)
                told.append(
                    {
                        "id": "e" + key.digest.hex(), "task": task, "voice": _first(voices, entry.tags), "hits": hits,
                        "bytes": entry.weight, "cost_s": entry.cost_ms / 1e3, "saved_s": hits * entry.cost_ms / 1e3,
                        "age_s": max(0.0, now - entry.created),
                        "expires_s": max(0.0, entry.expires - now) if entry.expires else None,
                        "text": self.text_of(key, task, entry), "pinned": self._device.is_pinned(key),
                    }
                )  # fmt: skip
        return told

    def _text_by_id(self, tenant: str, answer_id: str) -> str:
        """As `text_of`, of an answer that the device tier may hold; empty where it does not."""
        if not (self._show_text and answer_id):
            return ""
        key = CacheKey(tenant, bytes.fromhex(answer_id[1:]))
        lease = self._device.hold(key)
        if lease is None:
            return ""
        with lease:
            return self.text_of(key, self.task_of(tenant, lease.entry), lease.entry)

    def text_of(self, key: CacheKey, task: str, entry: Entry) -> str:
        """The words of an answer or of what it speaks; empty where they are not known, or not to be shown."""
        if not self._show_text:
            return ""
        if task == "recognize":
            words = wire.words_of(entry.frames)
        else:
            words = self._notes.phrase_of(key, self._device.__contains__)
        return words if len(words) <= TEXT_CHARACTERS else words[: TEXT_CHARACTERS - 1] + "…"


def _first(names: Mapping[str, str], tags: Iterable[str]) -> str:
    return next((names[tag] for tag in tags if tag in names), "")


def _beat(beat: Beat) -> dict[str, float | None]:
    return {"rate": _short(beat.rate), "hit_rate": _short(beat.hit_rate), "p99_s": _short(beat.p99_s)}


def _history(beats: Iterable[Beat]) -> dict[str, Any]:
    """Column by column, oldest first, the last being now."""
    columns = list(zip(*beats, strict=True)) or [(), (), ()]
    named = zip(Beat._fields, columns, strict=True)
    return {"seconds": SECONDS} | {name: [_short(value) for value in column] for name, column in named}


def _short(value: float | None) -> float | None:
    return None if value is None or not math.isfinite(value) else float(f"{value:.4g}")


def _number(observer: Observer, name: str) -> float:
    nothing: float | Mapping[str, float] = 0.0
    value = _read(observer.numbers.get(name, lambda: nothing), nothing)
    return sum(value.values()) if isinstance(value, Mapping) else value


def _read(read: Callable[[], T], otherwise: T) -> T:
    try:
        return read()
    except Exception:  # one part that cannot be read must not hide the others; /metrics counts it
        return otherwise
