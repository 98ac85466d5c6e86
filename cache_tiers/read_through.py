"""Reading through: the one way of a request from the tiers to its computation, and back into the tiers.

    get: device ──▶ flight { remote, its hint first ──▶ load } ──▶ commit: device, and behind the answer the remote

Looking in the device tier and joining a flight are one step of the event loop, and so are committing an answer and
ending its flight. Hence no request falls between the two, and no second look in the device tier is needed in a flight.

What is erased stays erased (consistency contract, point 5). A computation is committed only if the epochs of its tags
have not moved since its callers asked. An entry on its way up from the remote tier is not let into the device tier when
it was condemned meanwhile. Erasing is: move the epoch, then `evict`, which condemns what is under way in this process.
"""

from __future__ import annotations

import asyncio
import enum
import time
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, field
from functools import partial
from typing import Literal, Protocol, get_args

from cache_tiers.device import DeviceTier, Lease
from cache_tiers.entry import CacheKey, Entry, Epochs
from cache_tiers.epochs import EpochBook, LocalEpochs
from cache_tiers.events import tenant_tag
from cache_tiers.flight import Flights, Follower
from cache_tiers.tier import Tier

Load = Callable[[], AsyncIterator[bytes]]
OnCommit = Callable[[CacheKey, Entry], None]
Refusal = Literal["empty", "erased", "refused"]
Absence = Literal["", "spared", "absent", "unavailable"]
"""Of the remote tier: nobody looked, its hint said so, it was looked for, it could not be asked."""


class RemoteTier(Tier, Protocol):
    """A tier beyond this process, with what spares waiting for it, and a removal that is certain."""

    @property
    def away(self) -> bool:
        """Whether it is left alone at present, because it did not answer."""
        ...

    def may_hold(self, key: CacheKey) -> bool:
        """A hint; does not wait. False only where the key is very likely absent: a wrong one costs a computation."""
        ...

    def put_behind(self, key: CacheKey, entry: Entry) -> bool:
        """Queues the entry to be put; does not wait. The epochs of its tags are valid now, and must be checked again
        when it is written. False when the queue is full."""
        ...

    async def erase_key(self, key: CacheKey) -> bool:
        """As delete, but raises when it can't say for certain that the entry is gone."""
        ...


class Source(enum.Enum):
    """Where an answer comes from."""

    HIT = "hit"
    MISS = "miss"
    """Computed for this request."""
    COALESCED = "coalesced"
    """Computed for another request that this one follows."""


@dataclass(slots=True)
class ReadThroughStats:
    """Counts since the start. Hits and misses of the device tier are its own statistics."""

    remote_hits: int = 0
    remote_misses: int = 0
    remote_spared: int = 0
    """Look-ups that the hint saved."""
    remote_errors: int = 0
    loads: int = 0
    coalesced: int = 0
    stored: int = 0
    not_stored: dict[Refusal, int] = field(default_factory=lambda: dict.fromkeys(get_args(Refusal), 0))


@dataclass(slots=True)
class Answer:
    """What a request gets. Iterate `frames`, or take them from `entry` at once; then `release`, or `aclose`."""

    source: Source
    tier: str = ""
    """device or redis for a hit, else empty."""
    age_s: float = 0.0
    lease: Lease | None = None
    entry: Entry | None = None
    """The complete answer, when this is a hit."""
    absence: Absence = ""
    """Of a miss."""
    follower: Follower[CacheKey] | None = None

    @property
    def frames(self) -> AsyncIterator[bytes]:
        """The answer's frames, live when it is being computed. Finishing it releases the answer; who may leave before
        its first frame has to release it himself."""
        return self._replay() if self.follower is None else self.follower

    @property
    def cost_ms(self) -> float:
        """Compute time: saved by a hit; of a computed answer known after its end, 0 before."""
        if self.entry is not None:
            return self.entry.cost_ms
        return self.follower.cost_ms if self.follower else 0.0

    def release(self) -> None:
        """Gives back the lease, or leaves the flight. May be called more than once."""
        if self.lease is not None:
            self.lease.release()
        if self.follower is not None:
            self.follower.leave()

    async def aclose(self) -> None:
        self.release()

    async def _replay(self) -> AsyncIterator[bytes]:
        try:
            for frame in self.entry.frames if self.entry else ():
                yield frame
        finally:
            self.release()


class _Fetch:
    """A look-up of the remote tier under way; condemned when what it may bring back has been deleted."""

    def __init__(self, key: CacheKey) -> None:
        self.key = key
        self.absence: Absence = ""
        self.dropped = False
        self.evicted: set[str] = set()

    def condemns(self, entry: Entry) -> bool:
        return self.dropped or not self.evicted.isdisjoint(entry.tags)


class ReadThrough:
    """The tiers and flights of one gateway. Event-loop confined; `clock` gives Unix seconds, `now` monotonic ones."""

    def __init__(
        self,
        device: DeviceTier,
        remote: RemoteTier | None = None,
        *,
        clock: Callable[[], float] = time.time,
        now: Callable[[], float] = time.perf_counter,
        max_entry_bytes: int,
        epochs: EpochBook | None = None,
    ) -> None:
        self.device = device
        self.stats = ReadThroughStats()
        self.keeping = True
        """False: the device tier takes nothing in, because erasures by others would not be heard of."""
        self.beside: DeviceTier | None = None
        """Another tier of this process, of what answers are made from: what is erased leaves it too. That nothing of it
        is kept afterwards is for those to see to who fill it."""
        self.flights: Flights[CacheKey] = Flights(max_bytes=max_entry_bytes, now=now)
        self.lookup_device: Callable[[CacheKey], Lease | None] = device.lookup
        """The hot path: a lease, or None. Bound once, so that a hit pays for no second call."""
        self._remote = remote
        self._clock = clock
        self._epochs = LocalEpochs() if epochs is None else epochs
        self._fetches: set[_Fetch] = set()
        self._lookups: dict[CacheKey, asyncio.Future[tuple[Entry | None, Absence]]] = {}
        """Of `lookup_remote`, under way."""

    # Asking.

    async def lookup(self, key: CacheKey) -> Answer | None:
        """The answer if a tier has it: read only, and never from a flight. A remote hit moves into the device tier."""
        lease = self.device.lookup(key)
        if lease is not None:
            return self._hit(self.device.name, lease.entry, lease)
        entry = await self._fetch(_Fetch(key))
        return None if entry is None else self._remote_hit(key, entry)

    async def lookup_remote(self, key: CacheKey) -> tuple[Entry | None, Absence]:
        """As `lookup`, for who has just looked in the device tier: the entry, or why there is none, to tell `get`.

        Look-ups of one key are one. When who began it leaves, the others hear nothing, and ask `get`.
        """
        under_way = self._lookups.get(key)
        if under_way is not None:
            return await asyncio.shield(under_way)
        fetch, told = _Fetch(key), asyncio.get_running_loop().create_future()
        self._lookups[key] = told
        found: tuple[Entry | None, Absence] = (None, "")
        try:
            found = await self._fetch(fetch), fetch.absence
        finally:
            del self._lookups[key]
            told.set_result(found)
        return found

    async def peek(self, key: CacheKey) -> Answer | None:
        """What a tier has, for a person to see: no access of the device tier, and nothing moves up into it."""
        lease = self.device.hold(key)
        if lease is not None:
            with lease:
                return self._seen(self.device.name, lease.entry)
        if self._remote is None:
            return None
        try:
            entry = await self._remote.get(key)
        except Exception:  # as in _fetch
            self.stats.remote_errors += 1
            return None
        return None if entry is None else self._seen(self._remote.name, entry)

    def _seen(self, tier: str, entry: Entry) -> Answer | None:
        return None if 0 < entry.expires <= self._clock() else self._hit(tier, entry, None)

    async def get(
        self,
        key: CacheKey,
        load: Load,
        *,
        store: bool = True,
        ttl_s: float | None = None,
        tags: tuple[str, ...] = (),
        refresh: bool = False,
        newer: bool = False,
        looked: Absence = "",
        cost_ms: Callable[[], float] | None = None,
        on_commit: OnCommit | None = None,
    ) -> Answer:
        """The answer from wherever it is first found, or else from `load`, which identical requests share.

        Who leads a flight sets its ttl, cost_ms and on_commit; its tags are those of all who joined. `cost_ms` is asked
        at the end what computing took (without it, the time `load` ran). `on_commit` is told of an entry that was
        stored, in the step that stores it.

        Who has `looked` in the remote tier, and says what came of it (`lookup_remote`), does not wait for it again.

        `refresh` looks nowhere and joins nobody; its flight takes the place of one that runs. `newer`, for who has
        found an entry too old, looks nowhere either, but follows whoever computes already.
        `store=False` may follow a flight, whose leader has allowed storing: nothing more is stored on its account. Its
        own flight is private, or those who joined it would find their answer not stored. With `refresh`: a bypass.
        """
        if ttl_s is not None and ttl_s <= 0:
            store = False
        if not (refresh or newer):
            lease = self.device.lookup_again(key)  # the path has looked: a second miss would count twice
            if lease is not None:
                return self._hit(self.device.name, lease.entry, lease)
        fetch = _Fetch(key)
        follower, leads = self.flights.join(
            key,
            load,
            find=None if refresh or newer or looked or self._remote is None else partial(self._fetch, fetch),
            commit=partial(self._commit, key, ttl_s, on_commit) if store else None,
            cost_ms=cost_ms,
            epochs=self._epochs.of((*tags, tenant_tag(key.tenant))),
            fresh=refresh,
            shared=store,
        )
        entry = await follower.found()
        if entry is not None:
            follower.leave()
            return self._remote_hit(key, entry)
        if leads:
            self.stats.loads += 1
            return Answer(Source.MISS, absence=fetch.absence or looked, follower=follower)
        self.stats.coalesced += 1
        return Answer(Source.COALESCED, follower=follower)

    def must_compute(self, key: CacheKey, *, refresh: bool = False, newer: bool = False, looked: Absence = "") -> bool:
        """Whether `get`, asked so now, would begin a computation: nobody has begun one that it could follow, and no
        tier has the answer, as far as that can be told without waiting."""
        if refresh or key in self.flights:
            return refresh
        if newer:
            return True
        return key not in self.device and bool(looked or self._remote is None or not self._remote.may_hold(key))

    # Erasing.

    async def evict(self, tag: str) -> int:
        """Drops what carries the tag, here and in the remote tier; returns how many entries each had, summed.

        Only as sure as the remote tier is reachable, and only here: an erasure across gateways is erasure.Gateways.
        """
        dropped = self.evict_local(tag)
        if self._remote is not None:
            dropped += await self._remote.evict(tag)
            dropped += self.evict_local(tag)  # what was looked up there before it was gone, and has come up since
        return dropped

    def evict_local(self, tag: str) -> int:
        """Drops what carries the tag in this process, and condemns what is under way: for an erasure told by others."""
        self.flights.ground(lambda flight: tag in flight.epochs)
        for fetch in self._fetches:
            fetch.evicted.add(tag)
        if self.beside is not None:
            self.beside.drop_tag(tag)
        return self.device.drop_tag(tag)

    async def delete(self, key: CacheKey) -> bool:
        """Drops one entry in every tier. True when one had it. Raises what the remote tier raises when it can't."""
        dropped = self.delete_local(key)
        if self._remote is not None:
            dropped |= await self._remote.erase_key(key)
            dropped |= self.delete_local(key)  # as in evict
        return dropped

    def delete_local(self, key: CacheKey) -> bool:
        """Drops one entry in this process, and condemns what is under way."""
        self._condemn(key.__eq__)
        return self.device.drop(key)

    def drop_where(self, condemned: Callable[[CacheKey], bool]) -> int:
        """Drops entries of this process by their key, and condemns what is under way: a tenant, or all."""
        self._condemn(condemned)
        if self.beside is not None:
            self.beside.drop_where(condemned)
        return self.device.drop_where(condemned)

    async def aclose(self) -> None:
        """Cancels what is being computed."""
        await self.flights.aclose()

    # The steps.

    async def _fetch(self, fetch: _Fetch) -> Entry | None:
        """Looks in the remote tier, and takes what it has into the device tier."""
        remote, stats, key = self._remote, self.stats, fetch.key
        if remote is None:
            return None
        self._fetches.add(fetch)
        try:
            if not remote.may_hold(key):
                stats.remote_spared += 1
                fetch.absence = "spared"
                return None
            entry = await remote.get(key)
            fetch.absence = "unavailable" if entry is None and remote.away else "absent"
        except Exception:  # a tier keeps its failures to itself; one that does not is a miss all the same
            stats.remote_errors += 1
            fetch.absence = "unavailable"
            return None
        finally:
            self._fetches.discard(fetch)
        if entry is None or fetch.condemns(entry) or 0 < entry.expires <= self._clock():
            stats.remote_misses += 1
            return None
        stats.remote_hits += 1
        if self.keeping and key not in self.device:  # else a refresh was quicker, and what it stored is newer
            self.device.store(key, entry)
        return entry

    def _commit(
        self,
        key: CacheKey,
        ttl_s: float | None,
        on_commit: OnCommit | None,
        frames: tuple[bytes, ...],
        cost_ms: float,
        epochs: Epochs,
    ) -> None:
        """Stores a computed answer. Nothing here waits, so what is checked still holds when it is stored."""
        if not any(frames):
            self.stats.not_stored["empty"] += 1
            return
        if not self._epochs.unchanged(epochs):
            self.stats.not_stored["erased"] += 1
            return
        created = self._clock()
        expires = 0.0 if ttl_s is None else created + ttl_s
        whole = tenant_tag(key.tenant)  # every entry of the tenant has it without carrying it
        entry = Entry(frames, cost_ms, created, expires, tags=tuple(tag for tag, _ in epochs.of if tag != whole))
        in_device = self.keeping and self.device.store(key, entry)
        if not self._put_behind(key, entry) and not in_device:
            self.stats.not_stored["refused"] += 1
            return
        self.stats.stored += 1
        if on_commit is not None:
            on_commit(key, entry)

    def _put_behind(self, key: CacheKey, entry: Entry) -> bool:
        if self._remote is None:
            return False
        try:
            return self._remote.put_behind(key, entry)
        except Exception:  # as in _fetch
            self.stats.remote_errors += 1
            return False

    def _condemn(self, condemned: Callable[[CacheKey], bool]) -> None:
        self.flights.ground(lambda flight: condemned(flight.key))
        for fetch in self._fetches:
            fetch.dropped |= condemned(fetch.key)

    def _hit(self, tier: str, entry: Entry, lease: Lease | None) -> Answer:
        return Answer(Source.HIT, tier, max(0.0, self._clock() - entry.created), lease, entry)

    def _remote_hit(self, key: CacheKey, entry: Entry) -> Answer:
        # If it was taken into the device tier, its block is in use like that of any other hit there.
        lease = self.device.hold(key)
        assert self._remote is not None
        return self._hit(self._remote.name, lease.entry if lease else entry, lease)
