"""The observer's cells summed over tenants as they change, and the last five minutes second by second: what is live on
the status page.

A cell is looked at in full only where it has changed since the last look, so that a thousand tenants of whom ten are
awake cost what ten cost. Nothing is added to a request for it.
"""

from __future__ import annotations

import asyncio
import time
from collections import Counter, deque
from collections.abc import Callable
from dataclasses import dataclass, field
from itertools import compress
from operator import ne
from typing import Final, NamedTuple

from gateway.observe import BOUNDS, Cell, Observer, quantile
from gateway.stats import HIT_EXACT, HIT_FUZZY

SECONDS: Final = 300
"""Beats that are kept."""
WINDOW: Final = 10
"""Beats that a rate and a percentile are taken over: of one second alone they say little."""


@dataclass(slots=True)
class Source:
    """All requests of one task that were answered from one place, of all tenants."""

    latency: list[int] = field(default_factory=lambda: [0] * (len(BOUNDS) + 1))
    bytes: int = 0
    compute_ms: float = 0.0
    saved_ms: float = 0.0


class Beat(NamedTuple):
    """The last WINDOW beats as of one of them. None where there was nothing to divide by."""

    rate: float
    """Answered requests a second."""
    hit_rate: float | None
    p99_s: float | None


class _Seen(NamedTuple):
    """What a cell held at the last look."""

    mark: tuple[float, int, int]
    latency: list[int]
    compute_ms: float
    saved_ms: float


_NOTHING: Final = _Seen((0.0, 0, 0), [0] * (len(BOUNDS) + 1), 0.0, 0.0)


class Pulse:
    """Reads an observer, on its event loop. `clock` gives seconds, monotonic."""

    def __init__(self, observer: Observer, *, clock: Callable[[], float] = time.monotonic) -> None:
        self.sources: dict[tuple[str, int, str], Source] = {}
        """By task, status and tier; as of the last `look`."""
        self.beats: deque[Beat] = deque(maxlen=SECONDS)
        self._cells = observer.cells
        self._clock = clock
        self._seen: dict[tuple[str, str, int, str], _Seen] = {}
        self._second: Counter[int] = Counter()
        """Latencies of this second by bucket."""
        self._second_hits = 0
        self._window: deque[tuple[Counter[int], int, float]] = deque(maxlen=WINDOW)
        """Latencies, hits and length of the last seconds."""
        self._last = clock()

    async def run(self) -> None:
        """Beats every second, for ever."""
        while True:
            await asyncio.sleep(1.0)
            self.beat()

    def look(self) -> None:
        """Brings `sources` up to this moment."""
        for place, cell in self._cells.items():
            seen = self._seen.get(place, _NOTHING)
            mark = (cell.latency_sum, cell.bytes_in, cell.bytes_out)
            if mark != seen.mark:
                self._take(place, cell, seen, mark)

    def _take(self, place: tuple[str, str, int, str], cell: Cell, seen: _Seen, mark: tuple[float, int, int]) -> None:
        _, task, status, tier = place
        source = self.sources.setdefault((task, status, tier), Source())
        source.bytes += mark[1] + mark[2] - seen.mark[1] - seen.mark[2]
        source.compute_ms += cell.compute_ms - seen.compute_ms
        source.saved_ms += cell.saved_ms - seen.saved_ms
        hit = status in (HIT_EXACT, HIT_FUZZY)
        # Few buckets of many change, and which do is found without a line of Python for each.
        for bucket in compress(range(len(BOUNDS) + 1), map(ne, cell.latency, seen.latency)):
            count = cell.latency[bucket] - seen.latency[bucket]
            source.latency[bucket] += count
            self._second[bucket] += count
            if hit:
                self._second_hits += count
        self._seen[place] = _Seen(mark, cell.latency.copy(), cell.compute_ms, cell.saved_ms)

    def beat(self) -> Beat:
        """Ends a second, however long it was."""
        self.look()
        now = self._clock()
        took, self._last = now - self._last, now
        self._window.append((self._second, self._second_hits, took))
        buckets = [0] * (len(BOUNDS) + 1)
        for second, _, _ in self._window:
            for bucket, count in second.items():
                buckets[bucket] += count
        requests, hits = sum(buckets), sum(hits for _, hits, _ in self._window)
        lasted = sum(took for _, _, took in self._window)
        beat = Beat(
            rate=requests / lasted if lasted > 0 else 0.0,
            hit_rate=hits / requests if requests else None,
            p99_s=quantile(buckets, 0.99) if requests else None,
        )
        self._second, self._second_hits = Counter(), 0
        self.beats.append(beat)
        return beat
