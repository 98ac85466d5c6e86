"""Recall's memory in Redis: records beside the values, audits with their quarantined pairs in the ledger."""

from __future__ import annotations

import logging
from collections.abc import AsyncIterator

from cache_tiers.entry import CacheKey, Entry
from cache_tiers.ledger import Ledger
from cache_tiers.link import Unavailable
from cache_tiers.redis import RedisTier

AUDIT = "audit"

log = logging.getLogger("refrain.recall")


class RedisJournal:
    """What Redis can't take now is lost but for the process: a hint for records, a count that starts over for audits."""

    def __init__(self, tier: RedisTier, ledger: Ledger) -> None:
        self._tier, self._ledger = tier, ledger

    def keep_record(self, key: CacheKey, entry: Entry, record: bytes) -> None:
        self._tier.put_behind(key, entry, record)

    async def keep_state(self, tenant: str, audit: bytes) -> None:
        try:
            await self._ledger.put(AUDIT, tenant, audit)
        except Unavailable as error:
            log.warning("audit counts could not be kept: %s", error, extra={"fields": {"tenant": tenant}})

    def records(self) -> AsyncIterator[tuple[CacheKey, bytes]]:
        return self._tier.records()

    async def states(self) -> dict[str, bytes]:
        try:
            return await self._ledger.all(AUDIT)
        except Unavailable as error:
            log.warning("audit counts could not be read: %s", error)
            return {}
