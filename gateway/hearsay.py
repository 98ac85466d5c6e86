"""What other gateways tell: entries they stored, dropped and erased, applied to what this process keeps.

Redis is the truth; the device tier, the recall index and the filters only follow. A process that missed a part of the
stream rebuilds (cache_tiers.events calls the gap handlers).
"""

from __future__ import annotations

from collections.abc import Callable

from cache_tiers.codec import unpack_names
from cache_tiers.erasure import Gateways
from cache_tiers.events import AUDITED, INSERTED, QUARANTINED, REMOVED, TENANT, Event, EventStream
from cache_tiers.read_through import ReadThrough
from cache_tiers.redis import RedisTier
from gateway.journal import unpack_quarantine, unpack_tally
from gateway.recall import Recall


def follow(
    events: EventStream,
    gateways: Gateways,
    tier: RedisTier,
    cache: ReadThrough,
    recall: Recall,
    rebuild: Callable[[], None],
) -> None:
    """Plugs the handlers in; before the stream is started. `rebuild` starts reading recall's index anew."""
    joined = False

    async def inserted(event: Event) -> None:
        if event.source == events.gateway:
            return
        for key, has_record in unpack_names(event.payload):
            record = await tier.get_record(key) if has_record else None
            if record is not None:
                await recall.learn(key.tenant, record)

    def removed(event: Event) -> None:
        if event.source != events.gateway:
            for key, _ in unpack_names(event.payload):
                cache.delete_local(key)

    async def erased(tag: str) -> None:
        if tag.startswith(TENANT):
            tenant = tag.removeprefix(TENANT)
            cache.drop_where(lambda key: key.tenant == tenant)
            await recall.forget_tenant(tenant)
        else:
            cache.evict_local(tag)
            await recall.forget(tag)

    def quarantined(event: Event) -> None:
        if event.source != events.gateway:
            recall.audits.hear_quarantine(*unpack_quarantine(event.payload))

    def audited(event: Event) -> None:
        if event.source != events.gateway:
            recall.audits.hear_tally(*unpack_tally(event.payload))

    def gap() -> None:
        nonlocal joined
        if joined:  # removals that were missed are not told again
            cache.drop_where(lambda key: True)
        joined = cache.keeping = True
        recall.start_over()
        rebuild()

    def lost() -> None:
        cache.keeping = False
        cache.drop_where(lambda key: True)
        recall.start_over()

    events.on_gap(gap)
    events.on(QUARANTINED, quarantined)
    events.on(AUDITED, audited)
    events.on(INSERTED, inserted)
    events.on(REMOVED, removed)
    gateways.on_erase(erased)
    gateways.on_lost(lost)
