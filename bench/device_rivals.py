"""Three ways to give out a fixed memory, on one trace: pages anywhere, slabs of size classes, runs of neighbours.

Each evicts what was used longest ago until the newcomer fits: among all for pages and runs, within the newcomer's class
for slabs, as memcached does without moving slabs. What a memory is worth is what it holds and how often that is asked
for, so that is what is measured: the share of it that is payload, and hits.
"""

from __future__ import annotations

from bisect import insort
from collections import OrderedDict
from collections.abc import Iterator, Sequence
from typing import Protocol

import numpy as np

SLAB = 2 << 20
GROWTH = 1.25
"""memcached's default."""
SMALLEST = 1 << 10


class Allocator(Protocol):
    def fits(self, key: int, size: int) -> bool:
        """Takes room for it where there is some."""
        ...

    def free(self, key: int) -> None: ...

    def rival(self, size: int) -> object:
        """Those that must make room for this size have the same."""
        ...


class InPages:
    def __init__(self, memory: int, page: int) -> None:
        self._page, self._left = page, memory // page
        self._held: dict[int, int] = {}

    def fits(self, key: int, size: int) -> bool:
        count = -(-size // self._page)
        if count > self._left:
            return False
        self._held[key] = count
        self._left -= count
        return True

    def free(self, key: int) -> None:
        self._left += self._held.pop(key)

    def rival(self, size: int) -> object:
        return None


class InSlabs:
    def __init__(self, memory: int) -> None:
        self._slabs = memory // SLAB
        self._classes = [SMALLEST]
        while self._classes[-1] < SLAB:
            self._classes.append(min(SLAB, int(self._classes[-1] * GROWTH) // 8 * 8))
        self._chunks = dict.fromkeys(range(len(self._classes)), 0)
        self._held: dict[int, int] = {}

    def rival(self, size: int) -> int:
        return int(np.searchsorted(self._classes, size))

    def fits(self, key: int, size: int) -> bool:
        kind = self.rival(size)
        if not self._chunks[kind]:
            if not self._slabs:
                return False
            self._slabs -= 1
            self._chunks[kind] = SLAB // self._classes[kind]
        self._chunks[kind] -= 1
        self._held[key] = kind
        return True

    def free(self, key: int) -> None:
        self._chunks[self._held.pop(key)] += 1


class InRuns:
    """First fit over holes that merge with their neighbours."""

    def __init__(self, memory: int, unit: int) -> None:
        self._unit = unit
        self._holes = [(0, memory // unit)]
        self._held: dict[int, tuple[int, int]] = {}

    def fits(self, key: int, size: int) -> bool:
        count = -(-size // self._unit)
        for place, (start, length) in enumerate(self._holes):
            if length >= count:
                self._held[key] = (start, count)
                self._holes[place : place + 1] = [(start + count, length - count)] if length > count else []
                return True
        return False

    def free(self, key: int) -> None:
        start, length = self._held.pop(key)
        insort(self._holes, (start, length))
        place = self._holes.index((start, length))
        for first in (place, place - 1):
            if 0 <= first < len(self._holes) - 1:
                (a, size), (b, more) = self._holes[first : first + 2]
                if a + size == b:
                    self._holes[first : first + 2] = [(a, size + more)]

    def rival(self, size: int) -> object:
        return None


def trace(count: int, keys: int, seed: int = 3) -> Iterator[tuple[int, int]]:
    """(key, bytes) of `count` requests: a power law over `keys` mels of short clauses, from the middle on of long ones
    instead."""
    rng = np.random.default_rng(seed)
    draws = rng.zipf(1.1, 4 * count)
    draws = draws[draws <= keys][:count]
    short = np.clip(rng.lognormal(np.log(48_000), 0.7, keys), 8_000, SLAB).astype(int)
    long = np.clip(rng.lognormal(np.log(280_000), 0.7, keys), 8_000, SLAB).astype(int)
    for place, draw in enumerate(draws):
        late = place >= len(draws) // 2
        yield int(draw) + keys * late, int((long if late else short)[draw - 1])


def measure(allocator: Allocator, memory: int, requests: Sequence[tuple[int, int]]) -> tuple[float, float, float, int]:
    """Share of the memory that is payload, on average over the second and over the last quarter; share of the requests
    that hit, and how many found no room."""
    order: dict[object, OrderedDict[int, int]] = {}
    hits = refused = held = 0
    filled = [0, 0, 0, 0]
    for place, (key, size) in enumerate(requests):
        filled[4 * place // len(requests)] += held
        rival = allocator.rival(size)
        line = order.setdefault(rival, OrderedDict())
        if key in line:
            hits += 1
            line.move_to_end(key)
            continue
        while not allocator.fits(key, size):
            if not line:
                refused += 1
                break
            victim, weight = line.popitem(last=False)
            allocator.free(victim)
            held -= weight
        else:
            line[key] = size
            held += size
    whole = memory * len(requests) / 4
    return filled[1] / whole, filled[3] / whole, hits / len(requests), refused
