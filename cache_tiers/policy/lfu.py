"""Least frequently used: speech repeats the same phrases for months, so a count tells more than the last access.

Plain counts do not age: what was popular last year stays until others have caught up. Policies that age live beside it.
"""

from __future__ import annotations

import cachetools

from cache_tiers.policy.base import ByCachetools, K, weight_of


class LfuPolicy(ByCachetools[K]):
    """Evicts the key with the fewest accesses, and of those the one that has had that count longest."""

    def __init__(self, capacity: int) -> None:
        super().__init__(cachetools.LFUCache(capacity, getsizeof=weight_of))
