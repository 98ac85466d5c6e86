"""Lets the observer read the parts' own counts when somebody asks for metrics: tiers, flights, queue, audits."""

from __future__ import annotations

from collections.abc import Callable

from cache_tiers.device import DeviceTier
from cache_tiers.link import RedisLink
from cache_tiers.read_through import ReadThrough
from cache_tiers.redis import RedisTier
from gateway.admission import Slots
from gateway.components import ComponentCache
from gateway.engines import Engines
from gateway.observe import EngineReading, Observer, TierReading
from gateway.recall import Recall
from gateway.recorder import Recorder
from gateway.reload import Reloader
from gateway.status import RedisReading


def watch(
    observer: Observer,
    device: DeviceTier,
    device_bytes: int,
    redis: RedisTier,
    link: RedisLink,
    redis_bytes: int,
    cache: ReadThrough,
    slots: Slots,
    recall: Recall,
) -> None:
    """Plugs the readings in. None of them blocks or asks Redis. `*_bytes`: capacities, 0 where it is not known."""

    def read_device() -> TierReading:
        stats = device.stats
        return TierReading(
            entries=stats.entries,
            bytes=stats.bytes,
            capacity_bytes=device_bytes,
            evictions={str(reason): count for reason, count in stats.evictions.items()},
        )

    def read_redis() -> TierReading:
        return TierReading(
            entries=len(redis.filter),
            bytes=redis.used_bytes,
            capacity_bytes=redis_bytes,
            errors=link.stats.failures + link.stats.timeouts,
            breaker_open=link.left_alone,
        )

    observer.watch_tier("device", read_device)
    observer.watch_tier("redis", read_redis)
    observer.watch("flights", lambda: len(cache.flights))
    observer.watch("engine_queue", lambda: slots.waiting)
    observer.watch("rejected_stores", lambda: {str(why): count for why, count in cache.stats.not_stored.items()})
    observer.watch("bloom_false_negatives", lambda: redis.filter.stats.false_negatives)
    observer.watch_audits(recall.audits.total, recall.audits.by_language)


def redis_reading(redis: RedisTier, link: RedisLink, *, private: bool) -> Callable[[], RedisReading]:
    """How the shared tier's server is doing, for the status page. It asks nobody."""

    def read() -> RedisReading:
        return RedisReading(
            private=private,
            breaker_open=link.left_alone,
            opened=link.opened,
            calls=link.stats.calls,
            failures=link.stats.failures,
            timeouts=link.stats.timeouts,
            skipped=link.stats.skipped,
            used_bytes=redis.used_bytes,
        )

    return read


def watch_components(observer: Observer, components: ComponentCache) -> None:
    """Plugs in the tier of what is kept between models, and what it was good for."""

    def read() -> TierReading:
        tier = components.tier.stats
        return TierReading(
            entries=tier.entries,
            bytes=tier.bytes,
            capacity_bytes=components.capacity,
            evictions={str(reason): count for reason, count in tier.evictions.items()},
            errors=components.stats.failures,
        )

    def counts() -> dict[str, float]:
        stats = components.stats
        return {
            "hit": stats.hits,
            "miss": stats.misses,
            "kept": stats.kept,
            "refused": stats.refused,
            "failure": stats.failures,
        }

    observer.watch_tier("components", read)
    observer.watch("components", counts)
    observer.watch("components_saved_s", lambda: components.stats.saved_ms / 1e3)


def watch_inputs(observer: Observer, recorder: Recorder) -> None:
    """Plugs in what became of the inputs that were to be recorded."""
    observer.watch("inputs_recorded", lambda: recorder.recorded)
    observer.watch("inputs_dropped", lambda: {str(why): count for why, count in recorder.dropped.items()})
    observer.watch("inputs_bytes", lambda: recorder.held)


def watch_models(observer: Observer, engines: Engines, models: Reloader) -> None:
    """Plugs in which engines serve now, and how often the registry was read again."""

    def read() -> list[EngineReading]:
        return [
            EngineReading(
                task,
                engine.info.identity,
                "+".join(engines.chain(engine)),
                engines.share(engine),
                engine.info.name,
                engine.info.provider,
            )
            for task, engine in engines.by_task()
        ]

    observer.watch_engines(read)
    observer.watch("model_reloads", lambda: dict(models.results))
