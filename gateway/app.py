"""The composition root: the one file that knows every concrete class and reads the settings.

Start is ordered so that exact requests are answered as soon as the models are loaded: Redis and the models start side
by side; until the Bloom filter and the recall index are rebuilt, in the background, the one says maybe and the other
nothing.
"""

from __future__ import annotations

import asyncio
import contextlib
import functools
import gc
import hashlib
import logging
import os
import secrets
import signal
import socket
import time
from collections.abc import AsyncIterator, Callable, Coroutine, Hashable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import Any, TypeVar

from cache_tiers.device import DeviceTier
from cache_tiers.embedded import EmbeddedRedis
from cache_tiers.entry import CacheKey
from cache_tiers.erasure import Gateways
from cache_tiers.events import ERASED, EventStream, RedisEpochs
from cache_tiers.ledger import Ledger
from cache_tiers.link import RedisLink, Unavailable
from cache_tiers.master_key import load_master_key, load_or_create_master_key
from cache_tiers.memory import HostMemory
from cache_tiers.pages import PagedMemory
from cache_tiers.pins import Pins
from cache_tiers.policy.base import Policy
from cache_tiers.policy.named import POLICIES
from cache_tiers.read_through import ReadThrough
from cache_tiers.redis import RedisTier
from cache_tiers.sealed import Keyring
from gateway import wire
from gateway.admin import Admin
from gateway.admission import Slots
from gateway.audits import TenantPolicy
from gateway.budget import Budget
from gateway.components import ComponentCache
from gateway.encoders import Listener, VoiceEngine, encoder_info
from gateway.engines import Engines
from gateway.hearsay import follow
from gateway.http import HttpServer
from gateway.journal import RedisJournal
from gateway.keys import Keys
from gateway.leaders import Leaders
from gateway.metrics import MetricsPage
from gateway.notes import Notes
from gateway.observe import Observer, configure_logging
from gateway.path import RequestPath
from gateway.pulse import Pulse
from gateway.recall import Recall
from gateway.recorder import Recorder
from gateway.reload import Reloader
from gateway.server import GrpcServer, PortTaken
from gateway.servicer import Servicer
from gateway.settings import Settings, SettingsError
from gateway.site import StatusSite
from gateway.status import Status
from gateway.streams import Streams
from gateway.tenants import Tenants
from gateway.trace import AccessTrace
from gateway.voices import VoiceBook
from gateway.watch import redis_reading, watch, watch_components, watch_inputs, watch_models
from models.load import Encoders, Served, load_encoders, load_engines
from models.onnx import ModelFileError, Providers
from models.pages import DevicePages
from models.threads import EngineThreads

T = TypeVar("T")
log = logging.getLogger("refrain.app")

LANGUAGES = ("en-US",)
HEAT_EVERY_S = 10.0
"""How often the keys hit in the device tier are touched in Redis, so that it does not forget the hottest."""
HEAT_KEYS = 10_000
REBUILD_EVERY_S = 3600.0
"""How often recall's index is read anew, which forgets what Redis has forgotten."""
FIRST_RETRY_S = 0.25


@dataclass(slots=True)
class Running:
    """What a caller of `running` may want to know."""

    port: int
    http_port: int
    cache: ReadThrough
    tier: RedisTier
    recall: Recall
    models: Reloader


@dataclass(slots=True)
class Shared:
    """All that gateways on one Redis share, and this gateway's part in it."""

    link: RedisLink
    keyring: Keyring
    events: EventStream
    epochs: RedisEpochs
    tier: RedisTier
    gateways: Gateways


@contextlib.asynccontextmanager
async def running(settings: Settings) -> AsyncIterator[Running]:
    """A gateway from start to drain. Raises whatever keeps it from starting, having stopped what had started."""
    begun = time.monotonic()
    async with contextlib.AsyncExitStack() as stack:
        settings.data_dir.mkdir(parents=True, exist_ok=True, mode=0o700)
        masters = master_keys(settings)
        keys = Keys(load_or_create_master_key(settings.keys.digest or settings.data_dir / "digest.key"))
        workers = settings.engines.workers or os.cpu_count() or 1
        codecs = _pool(stack, ThreadPoolExecutor(max(4, workers), thread_name_prefix="codec"))
        runs = _pool(stack, EngineThreads(workers, thread_name_prefix="engine"))
        served, encoders, private = await asyncio.gather(
            asyncio.to_thread(_engines, settings, runs), _encoders(settings), _private_redis(settings, stack)
        )
        engines, voices = _with_encoders(settings, served, encoders, runs)
        del served  # or its sessions would stay for ever, whatever comes to serve in their place
        shared = _shared(settings, private, masters)
        stack.push_async_callback(shared.link.aclose)

        device_bytes = int(settings.device.size)
        policy = _device_policy(settings, device_bytes)
        # Twice the policy's bytes of memory: entries dropped while leased are still there until they are released.
        device = DeviceTier(HostMemory(2 * device_bytes), policy, clock=time.time)
        cache = ReadThrough(device, shared.tier, max_entry_bytes=int(settings.max_entry_bytes), epochs=shared.epochs)
        components = _components(settings, engines, cache, shared.epochs, runs)
        journal = RedisJournal(shared.tier, Ledger(shared.link), shared.events, _owner(settings))
        recall = Recall(_policies(settings), journal, epochs=shared.epochs)
        observer = Observer(_trace(settings, keys, stack))
        tenants = Tenants(settings.tokens)
        slots = Slots(workers, settings.engines.queue, clock=time.monotonic)
        limits = _limits(engines)
        recorder = await _recorder(settings, keys, shared, stack)
        notes, leaders = Notes(phrases=settings.status.show_text), Leaders(device)
        path = RequestPath(
            cache=cache,
            keys=keys,
            tenants=tenants,
            policies=_policies(settings),
            engines=engines,
            limits=limits,
            voices=voices,
            listener=Listener(encoders.speaker, encoders.emotion, voices, runs, slots.slot),
            recall=recall,
            slots=slots,
            observer=observer,
            pool=codecs,
            clock=time.perf_counter,
            wall=time.time,
            step_limit_s=settings.engines.step_limit or None,
            notes=notes,
            components=components,
            recorder=recorder,
        )
        admin = Admin(
            path=path,
            limits=limits,
            tenants=tenants,
            keys=keys,
            engines=engines,
            cache=cache,
            gateways=shared.gateways,
            recall=recall,
            observer=observer,
        )
        streams = Streams(
            path, limits, Budget(int(settings.listen.max_stream_bytes)), patience_s=settings.listen.stream_patience
        )
        moods = [encoder_info(encoders.emotion, "emotion")] if encoders.emotion is not None else []
        servicer = Servicer(path, streams, admin, engines, tenants, observer, languages=LANGUAGES, encoders=moods)
        redis_bytes = 0 if settings.redis.url else int(settings.redis.maxmemory)
        watch(observer, device, device_bytes, shared.tier, shared.link, redis_bytes, cache, slots, recall)

        def adopt(served: Served) -> None:
            """Other engines, between two requests."""
            try:
                others, voices = _with_encoders(settings, served, encoders, runs)
            except SettingsError as error:
                raise ModelFileError(str(error)) from error
            engines.become(others)
            limits.become(_limits(engines))
            path.engines_changed(voices)
            if components is not None:
                components.served_by({engine.info.component for engine in engines})

        if components is not None:
            watch_components(observer, components)

        models = Reloader(settings.models_dir, engines, lambda before: _engines(settings, runs, before), adopt)
        watch_models(observer, engines, models)
        rebuild = _Repeated(recall.rebuild, "recall-rebuild", REBUILD_EVERY_S)
        follow(shared.events, shared.gateways, shared.tier, cache, recall, rebuild.ask)
        if recorder is not None:
            recorder.on_missed = path.forget_shortcuts
            watch_inputs(observer, recorder)
        pins = _pins(shared, device)
        if private is not None:
            shared.gateways.on_erase(lambda tag: private.compact_soon())  # at each start too
            shared.events.on(ERASED, lambda event: private.compact_soon())

        await _join(shared, stack)
        # Ended before the tier is, which has to take what they still store: flights first, then what they enrolled.
        stack.push_async_callback(recall.close)
        stack.push_async_callback(rebuild.close)
        stack.push_async_callback(cache.aclose)
        server = GrpcServer(
            servicer.handlers(), int(settings.listen.max_message_bytes), max_calls=settings.listen.max_calls or None
        )
        site = None
        if settings.status.page != "off":
            pulse = Pulse(observer)
            _background(stack, pulse.run(), "pulse")
            status = Status(
                observer,
                pulse,
                device,
                leaders,
                notes,
                keys,
                audits=recall.audits.count,
                pairs=admin.audited_pairs,
                redis=redis_reading(shared.tier, shared.link, private=private is not None),
                voices=lambda: {voice for engine in engines for voice in engine.info.voices},
                show_text=settings.status.show_text,
                version=_version(),
            )
            site = StatusSite(status, admin, tenants, cache, pins, notes, path.in_thread, settings.status.page)
        page = MetricsPage(observer, version=_version()).render
        http = HttpServer(page, lambda: server.serving, lambda: _running_on(engines), site)
        at = f"{settings.listen.http_host}:{settings.listen.http_port}"
        try:
            http_port = await http.start(settings.listen.http_host, settings.listen.http_port)
        except OSError as error:
            raise PortTaken(f"cannot listen on {at} (listen.http_port): {error.strerror}") from error
        stack.push_async_callback(http.close)
        port = await server.start(settings.listen.host, settings.listen.port)
        stack.push_async_callback(server.stop, settings.listen.grace)
        rebuild.ask()
        _background(stack, _heat(device, shared.tier, leaders, notes), "heat")
        _background(stack, models.run(), "models")
        if pins is not None:
            _background(stack, pins.bring(cache.lookup_remote), "pins")
        facts = {
            "grpc": f"{settings.listen.host}:{port}",
            "http": f"{settings.listen.http_host}:{http_port}",
            "provider": ", ".join(sorted({engine.info.provider for engine in engines})),
            "start_s": round(time.monotonic() - begun, 3),
        }
        log.info("serving", extra={"fields": facts})
        yield Running(port, http_port, cache, shared.tier, recall, models)
        log.info("draining")


async def serve(settings: Settings) -> None:
    """Serves until SIGTERM or SIGINT, then drains. SIGHUP has the registry of models read again."""
    configure_logging(settings.log.level, settings.log.format == "json")
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    async with running(settings) as gateway:
        if hasattr(signal, "SIGHUP"):
            loop.add_signal_handler(signal.SIGHUP, gateway.models.ask)
        # What is alive now stays alive: the collector need not walk through it again while requests are served.
        gc.collect()
        gc.freeze()
        await stop.wait()


# ------------------------------------------------------------------------------------------------------- the parts


def _engines(settings: Settings, pool: ThreadPoolExecutor, before: Served | None = None) -> Served:
    own = settings.engines
    threads = own.threads or os.cpu_count() or 1
    return load_engines(_registry(settings), _providers(settings), threads, pool, own.trusted_keys, before)


def _providers(settings: Settings) -> Providers:
    return Providers(settings.engines.providers, strict=settings.engines.strict_providers)


def _registry(settings: Settings) -> Path:
    """The folder that `refrain models add` fills; the one in the data folder need not have been made yet."""
    if settings.engines.models_dir is None:
        settings.models_dir.mkdir(exist_ok=True)
    return settings.models_dir


async def _encoders(settings: Settings) -> Encoders:
    own = settings.engines
    threads = own.threads or os.cpu_count() or 1
    return await asyncio.to_thread(load_encoders, _registry(settings), _providers(settings), threads, own.trusted_keys)


def _with_encoders(
    settings: Settings, served: Served, encoders: Encoders, pool: ThreadPoolExecutor
) -> tuple[Engines, VoiceBook]:
    """The engines of all tasks, and the voices that embeddings can mean. Raises `SettingsError`."""
    engines = Engines(served)
    voices = _voices(settings, engines, encoders)
    if encoders.speaker is not None:
        engines = engines.and_of("embed", VoiceEngine(encoders.speaker, voices, pool))
    return engines, voices


def _voices(settings: Settings, engines: Engines, encoders: Encoders) -> VoiceBook:
    """The synthesizer's own embeddings of its voices, and those of the settings in their place."""
    speaking = engines.of("synthesize").info
    own = {name: voice.embedding for name, voice in settings.voices.items()}
    for name in own:
        if name not in speaking.voices:
            known = ", ".join(sorted(speaking.voices))
            raise SettingsError(f"voices.{name}: the synthesizer has no such voice; it has {known}")
    registered = {**speaking.voice_embeddings, **own}
    threshold: float | Mapping[int, float] | None = settings.voice_threshold
    if threshold is None and encoders.speaker is not None:
        threshold = encoders.speaker.thresholds
    try:
        return VoiceBook(registered) if threshold is None else VoiceBook(registered, threshold=threshold)
    except ValueError as error:
        raise SettingsError(f"voices: {error}") from None


def master_keys(settings: Settings) -> list[bytes]:
    """The one that seals, made when there is none, and those that open what was sealed before or elsewhere."""
    own = load_or_create_master_key(settings.keys.master or settings.data_dir / "master.key")
    return [own, *map(load_master_key, settings.keys.other_masters)]


async def _private_redis(settings: Settings, stack: contextlib.AsyncExitStack) -> EmbeddedRedis | None:
    """A server of our own, unless the settings name one. It may still be loading its data when this returns: until it
    has, its tier is a miss."""
    if settings.redis.url:
        return None
    private = EmbeddedRedis(settings.data_dir / "redis", int(settings.redis.maxmemory))
    stack.push_async_callback(private.stop)
    await private.start(wait_for_data=False)
    return private


def _shared(settings: Settings, private: EmbeddedRedis | None, masters: Sequence[bytes]) -> Shared:
    own = settings.redis
    link = RedisLink(private.url if private else own.url, deadline=own.get_deadline)
    events = EventStream(link, gateway=f"{socket.gethostname()}-{os.getpid()}-{secrets.token_hex(4)}")
    epochs = RedisEpochs(link, events)
    keyring = Keyring(link, masters, pack_up_to=int(own.pack_up_to))
    tier = RedisTier(
        link,
        keyring,
        epochs=epochs,
        events=events,
        ttl=own.ttl,
        ttl_jitter=own.ttl_jitter,
        max_value_bytes=int(settings.max_entry_bytes),
        write_deadline=own.put_deadline,
        queue_bytes=int(own.write_queue),
    )
    gateways = Gateways(link, events, epochs, tier, keyring, alone=private is not None)
    return Shared(link, keyring, events, epochs, tier, gateways)


def _owner(settings: Settings) -> str:
    """This gateway over its restarts, for what gateways on one Redis keep side by side."""
    place = f"{socket.gethostname()}:{settings.data_dir.resolve()}"
    return hashlib.blake2b(place.encode(), digest_size=8).hexdigest()


async def _join(shared: Shared, stack: contextlib.AsyncExitStack) -> None:
    """Enters the registry of gateways before the stream, so that no erasure overlooks this one."""
    await shared.gateways.start()
    stack.push_async_callback(shared.gateways.close)
    await shared.events.start()
    stack.push_async_callback(shared.events.close)
    await shared.tier.start()
    stack.push_async_callback(shared.tier.close)


def _pins(shared: Shared, device: DeviceTier) -> Pins | None:
    """None where the device tier's policy has no pins. To be made before the stream is joined."""
    if not device.has_pins:
        return None
    pins = Pins(shared.link, shared.events, shared.epochs, device)
    shared.gateways.on_erase(pins.erased)
    return pins


def _components(
    settings: Settings, engines: Engines, cache: ReadThrough, epochs: RedisEpochs, pool: ThreadPoolExecutor
) -> ComponentCache | None:
    """Where the synthesizer really runs; None where there are none to be, or that device has no room for them."""
    size = int(settings.device.components)
    if not size:
        return None
    try:
        pages = DevicePages(size, providers=[engines.of("synthesize").info.provider])
    except MemoryError as error:
        log.error("device.components: %s; nothing is kept between the models", error)
        return None
    except ValueError as error:
        raise SettingsError(f"device.components = {size}: {error}") from None
    components = ComponentCache(
        PagedMemory(pages),
        pages.device,
        functools.partial(_device_policy, settings),
        epochs,
        pool,
        clock=time.time,
        keeping=lambda: cache.keeping,
    )
    cache.beside = components.tier
    return components


def _trace(settings: Settings, keys: Keys, stack: contextlib.AsyncExitStack) -> AccessTrace | None:
    if not settings.trace.enabled:
        return None
    rotate, keep = int(settings.trace.rotate_bytes), settings.trace.keep
    trace = AccessTrace(settings.trace_dir, keys.trace_key(), rotate_bytes=rotate, keep=keep)
    trace.start()
    stack.callback(trace.close)
    return trace


async def _recorder(
    settings: Settings, keys: Keys, shared: Shared, stack: contextlib.AsyncExitStack
) -> Recorder | None:
    """None where no tenant consents; what was recorded while one did is gone then. Closed while Redis can still be
    asked for keys, and after the last request."""
    consenting = frozenset(name for name, tenant in settings.tenants.items() if tenant.record_inputs)
    own, key = settings.inputs, keys.trace_key()
    recorder = Recorder(
        settings.inputs_dir,
        shared.keyring,
        shared.epochs,
        key,
        consenting,
        size=int(own.size),
        keep_s=own.keep,
        share=own.share,
        queue_bytes=int(own.queue),
    )
    if not consenting:
        await recorder.open()
        return None
    await recorder.start()
    stack.push_async_callback(recorder.close)
    shared.gateways.on_erase(recorder.erase)
    return recorder


def _device_policy(settings: Settings, capacity: int) -> Policy[CacheKey]:
    """Who is evicted from the device tier."""
    shares = {name: tenant.device_share for name, tenant in settings.tenants.items()}
    quotas: dict[Hashable, int] = {name: int(share * capacity) for name, share in shares.items() if share < 1}
    own: dict[str, dict[str, Any]] = {
        "tinylfu": {"number": _number},
        "worth": {
            "group": lambda key: key.tenant,
            "quotas": quotas,
            "pin_share": settings.device.pin_share,
            "pins_of": lambda tenant: settings.tenant(tenant).pin_share,
            "number": _number,
        },
    }
    name = settings.device.policy
    return POLICIES[name](capacity, **own.get(name, {}))


def _number(key: CacheKey) -> int:
    """56 bits of a key that is random already; Python's own hash would cost more and differ in every process, and a
    number of 64 bits would take half as much memory again."""
    return int.from_bytes(key.digest[:7], "little")


def _policies(settings: Settings) -> Callable[[str], TenantPolicy]:
    def policy(tenant: str) -> TenantPolicy:
        own = settings.tenant(tenant)
        return TenantPolicy(
            fuzzy=own.fuzzy,
            min_similarity=own.min_similarity,
            wrong_hit_limit=own.wrong_hit_limit,
            require_proof=own.require_proof,
            require_near_proof=own.require_near_proof,
            pool_audits=own.pool_audits,
            respoken=own.respoken,
        )

    return functools.cache(policy)


def _limits(engines: Engines) -> wire.Limits:
    """What requests may name, as the engines have it."""
    speaking = engines.of("synthesize").info
    canary = engines.served.canaries.get("synthesize")
    also = canary.engine.info if canary is not None else speaking
    return wire.Limits(
        models={task: engines.names(task) for task in engines.tasks},
        languages=LANGUAGES,
        voices=frozenset({*speaking.voices, *also.voices}),
        emotions=frozenset(speaking.emotions),
        default_emotion=speaking.emotions[0],
    )


def _running_on(engines: Engines) -> list[str]:
    """A line for each engine: task, model, identity, and the provider that really runs."""
    infos = [(task, engine.info) for task, engine in engines.by_task()]
    return [f"{task} {info.name} {info.identity[:12]} {info.provider}" for task, info in infos]


def _version() -> str:
    try:
        return metadata.version("refrain")
    except metadata.PackageNotFoundError:
        return "unknown"


def _pool(stack: contextlib.AsyncExitStack, pool: ThreadPoolExecutor) -> ThreadPoolExecutor:
    stack.callback(pool.shutdown, wait=False, cancel_futures=True)
    return pool


def _background(stack: contextlib.AsyncExitStack, work: Coroutine[Any, Any, T], name: str) -> asyncio.Task[T]:
    """Runs it until it ends or the gateway does; what it raises is logged."""

    async def logged() -> T:
        try:
            return await work
        except Exception:
            log.exception("%s failed", name)
            raise

    task = asyncio.create_task(logged(), name=name)

    async def end() -> None:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)

    stack.push_async_callback(end)
    return task


class _Repeated:
    """Work that is done when asked for, again until it succeeds, and from then on every so often. Asked for while it
    runs, it is broken off and done once more from the start."""

    def __init__(self, work: Callable[[], Coroutine[Any, Any, object]], name: str, every: float) -> None:
        self._work, self._name, self._every = work, name, every
        self._asked = asyncio.Event()
        self._doing: asyncio.Task[object] | None = None
        self._task: asyncio.Task[None] | None = None

    def ask(self) -> None:
        if self._doing is not None and not self._asked.is_set():
            self._doing.cancel()
        self._asked.set()
        if self._task is None:
            self._task = asyncio.create_task(self._run(), name=self._name)

    async def _run(self) -> None:
        retry_after = FIRST_RETRY_S
        while True:
            self._asked.clear()
            self._doing = asyncio.create_task(self._work(), name=self._name)
            await asyncio.wait({self._doing})
            pause = self._every
            error = None if self._doing.cancelled() else self._doing.exception()
            if error is None:
                retry_after = FIRST_RETRY_S
            else:
                if isinstance(error, Unavailable):
                    log.warning("%s waits for Redis: %s", self._name, error)
                else:
                    log.error("%s failed and is tried again", self._name, exc_info=error)
                pause, retry_after = retry_after, min(2 * retry_after, 10.0)
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(pause):
                    await self._asked.wait()

    async def close(self) -> None:
        tasks = [task for task in (self._task, self._doing) if task is not None]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


async def _heat(device: DeviceTier, tier: RedisTier, leaders: Leaders, notes: Notes) -> None:
    """Heat flows down: keys hit in the device tier count as used in Redis too. Who watches hears of them as well."""
    while True:
        await tier.measure()
        await asyncio.sleep(HEAT_EVERY_S)
        keys = device.resident_keys(HEAT_KEYS)
        leaders.note(keys)
        notes.forget_all_but(device.__contains__)
        if keys:
            await tier.touch(keys)
