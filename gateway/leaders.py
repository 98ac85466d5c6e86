"""Which entries of the device tier are hit most, by tenant, at no cost to a hit beyond the count it adds.

Counts only grow by hits, and the tier says which keys were hit lately. So whoever leads now led before or was hit
since: looking at those alone finds the leaders without walking through the whole tier, which can hold a million keys.
"""

from __future__ import annotations

import heapq
from collections.abc import Iterable
from itertools import chain
from typing import Final

from cache_tiers.device import DeviceTier
from cache_tiers.entry import CacheKey

KEPT: Final = 64
"""Leaders remembered of each tenant: more than are shown, so that those who follow are known when some are dropped."""
LOOKED_AT: Final = 10_000
"""Keys that a reader looks at beside them, some 2 ms; of more, hit in ten seconds, he hears when `note` does."""


class Leaders:
    """One for a device tier, on its event loop."""

    def __init__(self, device: DeviceTier) -> None:
        self._device = device
        self._led: dict[str, list[CacheKey]] = {}

    def note(self, keys: Iterable[CacheKey]) -> None:
        """Takes in the keys that were hit since the last time, as the tier hands them out."""
        came: dict[str, set[CacheKey]] = {tenant: set(led) for tenant, led in self._led.items()}
        for key in keys:
            came.setdefault(key.tenant, set()).add(key)
        led = {tenant: self._first(KEPT, of) for tenant, of in came.items()}
        self._led = {tenant: of for tenant, of in led.items() if of}

    def of(self, tenant: str, limit: int) -> list[CacheKey]:
        """The tenant's resident keys with the most hits, those first."""
        lately = (key for key in self._device.recently_hit(LOOKED_AT) if key.tenant == tenant)
        return self._first(limit, set(chain(self._led.get(tenant, ()), lately)))

    def _first(self, limit: int, keys: Iterable[CacheKey]) -> list[CacheKey]:
        hits = self._device.hits_of
        counted = ((hits(key), key) for key in keys)
        # Equal counts in the order of their digests, so that a list that nobody hits stands still.
        return [key for count, key in heapq.nlargest(limit, counted) if count]
