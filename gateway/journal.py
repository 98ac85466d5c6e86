"""Recall's memory in Redis: records beside the values, audits with their quarantined pairs in the ledger."""

from __future__ import annotations

import logging
from collections.abc import AsyncIterator

from cache_tiers.entry import CacheKey, Entry
from cache_tiers.events import AUDITED, QUARANTINED, EventStream
from cache_tiers.ledger import Ledger
from cache_tiers.link import Unavailable
from cache_tiers.redis import RedisTier

AUDIT = "audit"
"""Where the first version kept one record for all gateways; still read, never written."""
TALLY = "tally"
"""A record of its own for each tenant and gateway, so that none overwrites what another found."""
QUARANTINE = "quarantine"
"""A record of its own for each pair, so that gateways which quarantine at once keep each other's."""

log = logging.getLogger("refrain.recall")


class RedisJournal:
    """What Redis can't take now is lost but for the process: of records a hint, of audits a count that starts over."""

    def __init__(self, tier: RedisTier, ledger: Ledger, events: EventStream, owner: str = "") -> None:
        """`owner` is this gateway over its restarts, one word; without, it is another one after each."""
        self._tier, self._ledger, self._events = tier, ledger, events
        self._owner = owner or events.gateway

    def keep_record(self, key: CacheKey, entry: Entry, record: bytes) -> None:
        self._tier.put_record_behind(key, entry, record)

    async def keep_tally(self, tenant: str, tally: bytes, told: bytes) -> None:
        try:
            await self._ledger.put(TALLY, f"{tenant} {self._owner}", tally)
            await self._events.publish(AUDITED, pack_tally(tenant, self._owner, told))
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

    async def tallies(self) -> list[tuple[str, str, bytes]] | None:
        """What `gateway.audits` keeps. The first version's records come under a gateway of their own."""
        try:
            old = await self._ledger.all(AUDIT)
            kept = await self._ledger.all(TALLY)
        except Unavailable as error:
            log.warning("audit counts could not be read: %s", error)
            return None
        found = [(tenant, "before", tally) for tenant, tally in old.items()]
        for name, tally in kept.items():
            tenant, _, owner = name.rpartition(" ")
            found.append((tenant, "" if owner == self._owner else owner, tally))
        return found

    async def quarantined(self) -> list[tuple[str, tuple[bytes, bytes]]] | None:
        try:
            return [unpack_quarantine(bytes.fromhex(name)) for name in await self._ledger.all(QUARANTINE)]
        except Unavailable as error:
            log.warning("quarantined pairs could not be read: %s", error)
            return None


def pack_tally(tenant: str, owner: str, tally: bytes) -> bytes:
    """The payload of an AUDITED event: two names without spaces, then the tally."""
    return b" ".join((tenant.encode(), owner.encode(), tally))


def unpack_tally(payload: bytes) -> tuple[str, str, bytes]:
    tenant, owner, tally = payload.split(b" ", 2)
    return tenant.decode(), owner.decode(), tally


def pack_quarantine(tenant: str, pair: tuple[bytes, bytes]) -> bytes:
    """The payload of a QUARANTINED event: two half digests of 16 bytes, then the tenant."""
    return pair[0] + pair[1] + tenant.encode()


def unpack_quarantine(payload: bytes) -> tuple[str, tuple[bytes, bytes]]:
    return payload[32:].decode(), (payload[:16], payload[16:32])
