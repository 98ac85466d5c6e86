"""The tier protocol: a place that holds entries. A tier that fails is a miss and a counter, never an exception here."""

from __future__ import annotations

from typing import Protocol

from cache_tiers.entry import CacheKey, Entry


class Tier(Protocol):
    """All tiers and wrappers pass one conformance suite (tests/cache_tiers/test_tier_conformance.py)."""

    @property
    def name(self) -> str:
        """device or redis; the word in metrics and in CacheInfo."""
        ...

    async def get(self, key: CacheKey) -> Entry | None:
        """The entry, or None when it is absent, expired, unreadable, or the tier is out of order."""
        ...

    async def put(self, key: CacheKey, entry: Entry) -> bool:
        """Takes the entry, replacing what was there. False when it was not admitted."""
        ...

    async def delete(self, key: CacheKey) -> bool:
        """Drops one entry. True when there was one."""
        ...

    async def evict(self, tag: str) -> int:
        """Drops every entry that carries the tag; returns how many there were."""
        ...
