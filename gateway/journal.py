"""Recall's memory in Redis: records beside the values, audits with their quarantined pairs in the ledger."""

from __future__ import annotations

import logging
from collections.abc import AsyncIterator

from cache_tiers.entry import CacheKey, Entry
from cache_tiers.events import QUARANTINED, EventStream
from cache_tiers.ledger import Ledger
from cache_tiers.link import Unavailable
from cache_tiers.redis import RedisTier

AUDIT = "audit"
QUARANTINE = "quarantine"
"""A record of its own for each pair, so that gateways which quarantine at once keep each other's."""

log = logging.getLogger("refrain.recall")


class RedisJournal:
    """What Redis can't take now is lost but for the process: of records a hint, of audits a count that starts over."""

    def __init__(self, tier: RedisTier, ledger: Ledger, events: EventStream) -> None:
        self._tier, self._ledger, self._events = tier, ledger, events

    def keep_record(self, key: CacheKey, entry: Entry, record: bytes) -> None:
        self._tier.put_record_behind(key, entry, record)

    async def keep_state(self, tenant: str, audit: bytes) -> None:
        try:
            await self._ledger.put(AUDIT, tenant, audit)
        except Unavailable as error:
            log.warning("audit counts could not be kept: %s", error, extra={"fields": {"tenant": tenant}})

    async def tell_quarantine(self, tenant: str, pair: tuple[bytes, bytes]) -> None:
        payload = pack_quarantine(tenant, pair)
        try:
            await self._ledger.put(QUARANTINE, payload.hex(), b"")
            await self._events.publish(QUARANTINED, payload)
        except Unavailable as error:
            log.warning("other gateways could not be told of a quarantined pair: %s", error)

    def records(self) -> AsyncIterator[tuple[CacheKey, bytes]]:
        return self._tier.records()

    async def states(self) -> dict[str, bytes]:
        try:
            return await self._ledger.all(AUDIT)
        except Unavailable as error:
            log.warning("audit counts could not be read: %s", error)
            return {}

    async def quarantined(self) -> list[tuple[str, tuple[bytes, bytes]]]:
        try:
            return [unpack_quarantine(bytes.fromhex(name)) for name in await self._ledger.all(QUARANTINE)]
        except Unavailable as error:
            log.warning("quarantined pairs could not be read: %s", error)
            return []


def pack_quarantine(tenant: str, pair: tuple[bytes, bytes]) -> bytes:
    """The payload of a QUARANTINED event: two half digests of 16 bytes, then the tenant."""
    return pair[0] + pair[1] + tenant.encode()


def unpack_quarantine(payload: bytes) -> tuple[str, tuple[bytes, bytes]]:
    return payload[32:].decode(), (payload[:16], payload[16:32])
