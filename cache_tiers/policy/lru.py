"""Least recently used: the baseline, better than plain LFU on web logs and worse on speech logs."""

from __future__ import annotations

import cachetools

from cache_tiers.policy.base import ByCachetools, K, weight_of


class LruPolicy(ByCachetools[K]):
    """Evicts the key that was hit or offered longest ago."""

    def __init__(self, capacity: int) -> None:
        super().__init__(cachetools.LRUCache(capacity, getsizeof=weight_of))
