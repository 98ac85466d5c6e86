"""Control records of other owners: small named values in Redis that never expire and are never evicted.

Recall keeps its audits here. Opaque bytes, one hash per kind.
"""

from __future__ import annotations

from cache_tiers.link import RedisLink


class Ledger:
    """Every call raises `Unavailable` when Redis does not answer; what that means is the owner's business."""

    def __init__(self, link: RedisLink, *, deadline: float = 1.0) -> None:
        self._link = link
        self._deadline = deadline
        self._prefix = f"{link.names.prefix}:{{control}}:ledger:"

    async def put(self, kind: str, name: str, value: bytes) -> None:
        await self._link.call("HSET", f"{self._prefix}{kind}", name, value, deadline=self._deadline)

    async def all(self, kind: str) -> dict[str, bytes]:
        """Every value of the kind, by name."""
        rows = await self._link.call("HGETALL", f"{self._prefix}{kind}", deadline=self._deadline)
        pairs = rows.items() if isinstance(rows, dict) else zip(rows[::2], rows[1::2], strict=True)
        return {name.decode(): value for name, value in pairs}
