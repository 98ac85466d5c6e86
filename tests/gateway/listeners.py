"""Gateways that only listen: recall on a real Redis as `app` puts it together, without gRPC and engines, so that tests
can say when what is enrolled, told, missed and erased."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator, Callable
from typing import Any

import numpy as np

from cache_tiers.device import DeviceTier
from cache_tiers.entry import CacheKey, Entry
from cache_tiers.ledger import Ledger
from cache_tiers.memory import HostMemory
from cache_tiers.policy.lfu import LfuPolicy
from cache_tiers.read_through import ReadThrough
from gateway.audits import Recalled, TenantPolicy
from gateway.hearsay import follow
from gateway.journal import RedisJournal
from gateway.keys import KeyFields, Keys
from gateway.recall import Recall
from models.utterance import Samples
from tests.cache_tiers.conftest import MASTER, Gateway, Server, gateway_on, until

KEYS = Keys(bytes(32))
FIELDS = KeyFields(task="recognize", engine="e1")
FOLDER_BYTES = 1 << 20


def pcm_of(samples: Samples) -> bytes:
    """As a decoded request has it."""
    return np.round(np.clip(samples, -1, 1) * 32_767).astype("<i2").tobytes()


def digest_of(samples: Samples, tenant: str = "default") -> bytes:
    return KEYS.of(tenant).input_digest("recognize", pcm_of(samples))


def entry_of(*tags: str) -> Entry:
    return Entry((b"what was said",), 5.0, time.time(), tags=tags)


class Listener:
    """What one gateway remembers of recordings."""

    def __init__(self, recall: Recall, shared: Gateway | None = None, cache: ReadThrough | None = None) -> None:
        self.recall = recall
        self._shared, self._cache = shared, cache
        self.rebuilds = 0

    @property
    def shared(self) -> Gateway:
        assert self._shared is not None, "this listener has no Redis"
        return self._shared

    @property
    def cache(self) -> ReadThrough:
        assert self._cache is not None, "this listener has no Redis"
        return self._cache

    def begin_to_remember(self, samples: Samples, tenant: str = "default", tags: tuple[str, ...] = ()) -> CacheKey:
        """As the path does in the step in which it stores an answer."""
        digest = digest_of(samples, tenant)
        key = KEYS.of(tenant).cache_key(FIELDS, digest)
        entry = entry_of(*tags)
        if self._shared is not None:
            self._shared.tier.put_behind(key, entry)
        self.recall.enrol(key, entry, digest, pcm_of(samples))
        return key

    async def remember(self, samples: Samples, tenant: str = "default", tags: tuple[str, ...] = ()) -> CacheKey:
        """Returns when the recording can be recalled, and where there is a Redis lies there too."""
        enrolled = self.recall.stats.enrolled
        key = self.begin_to_remember(samples, tenant, tags)
        await until(lambda: self.recall.stats.enrolled > enrolled)
        if self._shared is not None:
            await self._shared.tier.drain()
        return key

    async def find(self, samples: Samples, tenant: str = "default", min_similarity: float = 0.0) -> Recalled | None:
        return await self.recall.find(tenant, pcm_of(samples), digest_of(samples, tenant), min_similarity)

    async def quarantine(self, query: Samples, stored: Samples, tenant: str = "default") -> None:
        """Returns when the pair is quarantined, and kept and told where there is a Redis."""
        assert await self.recall.audits.report_wrong(tenant, digest_of(query, tenant), digest_of(stored, tenant))

    async def settle(self) -> None:
        """Returns when this gateway has applied all that was told before. It may hear of the last of it, which says
        so, before the answer to its own publishing."""
        heard: set[str] = set()
        handlers = self.shared.events._handlers.setdefault("settle", [])
        handlers.append(lambda event: heard.add(event.id))
        event_id = await self.shared.events.publish("settle")
        await until(lambda: event_id in heard)


def policy_of(**policy: Any) -> Callable[[str], TenantPolicy]:
    return lambda tenant: TenantPolicy(**{"require_proof": False, **policy})


@contextlib.asynccontextmanager
async def alone(**policy: Any) -> AsyncIterator[Listener]:
    """Without a Redis: remembers for as long as it runs."""
    recall = Recall(policy_of(**policy), seed=1, keep_s=0.0)
    try:
        await recall.rebuild()
        yield Listener(recall)
    finally:
        await recall.close()


@contextlib.asynccontextmanager
async def listening(server: Server, name: str = "a", **policy: Any) -> AsyncIterator[Listener]:
    """On `server`, with whatever others there remember; `rebuild` is done when it is handed out."""
    shared = gateway_on(server, name, masters=[MASTER])
    device = DeviceTier(HostMemory(2 * FOLDER_BYTES), LfuPolicy(FOLDER_BYTES), clock=time.time)
    cache = ReadThrough(device, shared.tier, max_entry_bytes=FOLDER_BYTES, epochs=shared.epochs)
    journal = RedisJournal(shared.tier, Ledger(shared.link, deadline=5.0), shared.events)
    recall = Recall(policy_of(**policy), journal, epochs=shared.epochs, seed=1, keep_s=0.0)
    listener = Listener(recall, shared, cache)
    rebuilding: list[asyncio.Task[int]] = []

    def rebuild() -> None:
        listener.rebuilds += 1
        rebuilding.append(asyncio.create_task(recall.rebuild()))

    follow(shared.events, shared.gateways, shared.tier, cache, recall, rebuild)
    await shared.start()
    try:
        await until(recall.ready.is_set)
        yield listener
    finally:
        await asyncio.gather(*rebuilding)
        await recall.close()
        await cache.aclose()
        await shared.close()
