"""Which exponent suits the requests: two small caches of a sample of the keys, one for recency, one for frequency.

Miniature simulation (C. Waldspurger and others, "Cache modeling and optimization using miniature simulations", USENIX
ATC 2017): a cache of 1/n of the capacity that sees 1/n of the keys, all requests of those, has nearly the hit ratio of
the whole. Here two of them see the same sample and differ in the exponent alone, so that the luck of the sample is the
same for both, and only what one hits and the other misses counts. Where such requests go one way, the exponent goes
that way; where they balance, it stays between.

The sample is halved, as in SHARDS with a fixed size (FAST 2015), whenever a small cache holds more than `LARGEST` keys,
so that trying costs less the larger the cache is.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final, Protocol

SPREAD: Final = 0x9E3779B97F4A7C15
"""Mixes the bits of a key's number."""
RECENCY: Final = 0.5
BETWEEN: Final = 2.0
FREQUENCY: Final = 4.0
"""Exponents: of the small caches, and where they balance."""
DENSEST: Final = 4
"""One key in so many is in the sample at first."""
LARGEST: Final = 64
"""Keys in a small cache at which the sample is halved."""
THINNEST: Final = 32
"""It is at least one key in so many."""
MEMORY: Final = 256
"""Requests that only one of the two hits, after which older ones count half."""
DOUBT: Final = 12
"""As many are taken to have been there before the first,"""
START: Final = 0.5
"""and to have gone so far to frequency: what is said follows a power law until shown otherwise."""
GAIN: Final = 1.5
"""How far a balance of them goes: at 1 only if all go one way is the exponent that of the small cache."""
STEPS: Final = 8
"""The exponent changes by steps of an eighth of each half of its range, lest it follow each request."""


class Shadow(Protocol):
    def touch(self, key: int) -> None: ...
    def offer(self, key: int, weight: int, cost_ms: float) -> object: ...
    def shrink(self, capacity: int, keep: Callable[[int], bool]) -> None: ...
    def __contains__(self, key: object) -> bool: ...
    def __len__(self) -> int: ...


class Trial:
    """`make` makes a cache of a capacity and an exponent."""

    def __init__(self, capacity: int, make: Callable[[int, float], Shadow]) -> None:
        self._capacity = capacity
        self._make = make
        self.mask = DENSEST - 1
        self._recent = make(self._size(), RECENCY)
        self._frequent = make(self._size(), FREQUENCY)
        self._for_recency = 0.0
        self._for_frequency = 0.0
        self._count = 0

    def wants(self, sample: int) -> bool:
        """Whether the key of this number is in the sample. The hot path says it in place."""
        return not (sample * SPREAD >> 29) & self.mask

    def access(self, sample: int, weight: int, cost_ms: float) -> float | None:
        """A request for a key of the sample. Returns the exponent that suits, if that may have changed."""
        recent = self._use(self._recent, sample, weight, cost_ms)
        frequent = self._use(self._frequent, sample, weight, cost_ms)
        if max(len(self._frequent), len(self._recent)) > LARGEST and self.mask + 1 < THINNEST:
            self._halve()
        if recent == frequent:
            return None
        if recent:
            self._for_recency += cost_ms
        else:
            self._for_frequency += cost_ms
        self._count += 1
        if self._count >= MEMORY:
            self._count //= 2
            self._for_recency /= 2
            self._for_frequency /= 2
        return self.exponent

    def _use(self, shadow: Shadow, sample: int, weight: int, cost_ms: float) -> bool:
        if sample in shadow:
            shadow.touch(sample)
            return True
        shadow.offer(sample, weight, cost_ms)
        return False

    @property
    def exponent(self) -> float:
        both = self._for_recency + self._for_frequency
        balance = (self._for_frequency - self._for_recency) / both if both else 0.0
        balance = (GAIN * balance * self._count + START * DOUBT) / (self._count + DOUBT)
        balance = round(min(max(balance, -1.0), 1.0) * STEPS) / STEPS
        end = FREQUENCY if balance > 0 else RECENCY
        return float(BETWEEN * (end / BETWEEN) ** abs(balance))

    def _size(self) -> int:
        return max(1, self._capacity // (self.mask + 1))

    def _halve(self) -> None:
        """Half the sample in half the size. What was learned of the counts of keys that stay is kept."""
        self.mask = 2 * self.mask + 1
        for shadow in (self._recent, self._frequent):
            shadow.shrink(self._size(), self.wants)
