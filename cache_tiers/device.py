"""The first tier: entries in the memory of the device that runs the models.

The policy decides by keys and weights, the memory holds the bytes, and this file keeps the two in step. Its hot path is
`lookup` and `Lease.release`, plain synchronous calls. Event-loop confined and not thread-safe by design: without an
await inside there is nothing to interleave with, so there is no lock to pay for.

An entry in use is leased. One that is dropped while leases are out leaves the policy at once, so that no new request
finds it, but keeps its block, and its bytes count as used (`leased_bytes`), until the last lease is given back.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Container, Sequence
from dataclasses import dataclass, field
from itertools import islice
from types import TracebackType
from typing import Any, Literal, get_args

from cache_tiers.entry import CacheKey, Entry
from cache_tiers.memory import Block, DeviceMemory
from cache_tiers.policy.base import Pinning, PinRefused, Policy

Reason = Literal["capacity", "expired", "deleted", "tag", "replaced"]


@dataclass(slots=True)
class DeviceStats:
    """Counts since the start, and what is held now. stores = entries + the sum of evictions, at any time."""

    hits: int = 0
    misses: int = 0
    stores: int = 0
    rejected: int = 0
    """Entries that were offered and not kept: the policy refused, no room, or already expired."""
    evictions: dict[Reason, int] = field(default_factory=lambda: dict.fromkeys(get_args(Reason), 0))
    entries: int = 0
    bytes: int = 0
    """Of resident entries. bytes + leased_bytes is what is taken of the memory."""
    leased_bytes: int = 0
    """Of entries dropped while a response or a model run still holds them."""
    abandoned: int = 0
    """Leases that were garbage-collected instead of released: each is a bug of a caller."""
    unpinned: int = 0
    """Entries that were to be pinned as soon as they came, for which the pins had no room."""


class _Resident:
    """An entry and its block. `gone` once it has been dropped with leases out."""

    __slots__ = ("block", "entry", "expires", "gone", "hits", "leases")

    def __init__(self, entry: Entry, block: Block) -> None:
        self.entry = entry
        self.block = block
        self.expires = entry.expires
        self.hits = 0
        self.leases = 0
        self.gone = False


class Lease:
    """The right to use an entry. Its block is not freed before `release`, which may be called more than once."""

    __slots__ = ("_resident", "_tier", "entry")

    def __init__(self, tier: DeviceTier, resident: _Resident) -> None:
        self.entry = resident.entry
        self._tier = tier
        self._resident: _Resident | None = resident

    @property
    def block(self) -> Block:
        """Where the entry lies on the device, for a model that binds it."""
        if self._resident is None:
            raise ValueError("this lease was released")
        return self._resident.block

    def release(self) -> None:
        resident = self._resident
        if resident is not None:
            self._resident = None
            resident.leases -= 1
            if resident.gone and not resident.leases:
                self._tier._free(resident)

    def __enter__(self) -> Lease:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, tb: TracebackType | None) -> None:
        self.release()

    def __del__(self) -> None:
        # The collector may run in any thread, so the tier is only told, and settles it on its own.
        if self._resident is not None:
            self._tier._abandoned.append(self._resident)


class DeviceTier:
    """L1. `clock` gives Unix seconds, and is asked only about entries that expire."""

    name = "device"

    def __init__(self, memory: DeviceMemory[Any, Any], policy: Policy[CacheKey], *, clock: Callable[[], float]) -> None:
        if policy.capacity > memory.free_bytes:
            raise ValueError(f"the policy may fill {policy.capacity} bytes of a memory with {memory.free_bytes} free")
        self.stats = DeviceStats()
        self.keeps: Container[CacheKey] = ()
        """Keys whose entries are pinned whenever they come: see pins.py."""
        self._memory = memory
        self._size = memory.free_bytes
        self._policy = policy
        self._touch = policy.touch
        self._clock = clock
        self._residents: dict[CacheKey, _Resident] = {}
        self._by_tag: dict[str, set[CacheKey]] = {}
        self._hit: dict[CacheKey, None] = {}  # resident keys hit since they were last handed out, in that order
        self._abandoned: deque[_Resident] = deque()

    # The hot path.

    def lookup(self, key: CacheKey) -> Lease | None:
        """A lease on the entry, or None. An expired entry is dropped and is a miss."""
        stats = self.stats
        resident = self._residents.get(key)
        if resident is None:
            stats.misses += 1
            return None
        if resident.expires and resident.expires <= self._clock():
            self._drop(key, "expired")
            stats.misses += 1
            return None
        self._touch(key)
        self._hit[key] = None
        stats.hits += 1
        resident.hits += 1
        resident.leases += 1
        return Lease(self, resident)

    def lookup_again(self, key: CacheKey) -> Lease | None:
        """As `lookup`, for a second look within one request, whose miss has been counted."""
        return self.lookup(key) if key in self._residents else None

    def hold(self, key: CacheKey) -> Lease | None:
        """A lease on what is resident, which is neither a hit nor an access: for what was just promoted."""
        resident = self._residents.get(key)
        if resident is None:
            return None
        resident.leases += 1
        return Lease(self, resident)

    def __contains__(self, key: object) -> bool:
        return key in self._residents

    # Changes.

    def store(self, key: CacheKey, entry: Entry, block: Block | None = None) -> bool:
        """Takes the entry and evicts for it what the policy names. False when it is not kept: then nothing is under
        the key any more, because what was there is what the entry was to replace.

        `block`: where the entry's value lies already, copied in by a thread because that takes time; the entry has no
        frames then. The block is the tier's from now on, to release if the entry is not kept.
        """
        self._settle_abandoned()
        victims: Sequence[CacheKey] | None = None
        if not 0 < entry.expires <= self._clock():
            size = self._memory.footprint(entry.weight) if block is None else block.size
            self._shed_for(size)
            victims = self._policy.offer(key, size, entry.cost_ms)
        if victims is None:
            self._drop(key, "replaced")
            self.stats.rejected += 1
            if block is not None:
                self._memory.release(block)
            return False
        for victim in victims:
            self._discard(victim, "capacity")
        if key in self._residents:
            self._discard(key, "replaced")
        if block is None:
            block = self._memory.allocate(size)
            if block is None:  # victims were leased, so that their bytes are not free yet
                self._policy.remove(key)
                self.stats.rejected += 1
                return False
            self._memory.copy_in(block, entry.frames)
        self._residents[key] = _Resident(entry, block)
        for tag in entry.tags:
            self._by_tag.setdefault(tag, set()).add(key)
        self.stats.stores += 1
        self.stats.entries += 1
        self.stats.bytes += size
        if key in self.keeps:
            self.pin_if_room(key)
        return True

    def drop(self, key: CacheKey) -> bool:
        """Drops one entry. True when there was one."""
        return self._drop(key, "deleted")

    def drop_tag(self, tag: str) -> int:
        """Drops the entries that carry the tag; returns how many there were."""
        return sum(self._drop(key, "tag") for key in tuple(self._by_tag.get(tag, ())))

    def drop_where(self, condemned: Callable[[CacheKey], bool]) -> int:
        """Drops the entries whose key meets the condition: a tenant, or all. Looks at every key."""
        return sum(self._drop(key, "deleted") for key in list(filter(condemned, self._residents)))

    def pin(self, key: CacheKey) -> bool:
        """Never evicts the entry for another's sake, while it is there. False when there is none; `PinRefused` where
        the policy has no pins or no more room for them. Expiry, erasure and deletion end it as they end any entry."""
        try:
            return self._pin(key)
        except PinRefused:
            if not self._drop_expired_pins():
                raise
            return self._pin(key)

    def pin_if_room(self, key: CacheKey) -> bool:
        """As `pin`, of what was decided before or elsewhere: where pins have no room here, that is counted."""
        try:
            return self._pin(key)
        except PinRefused:
            self.stats.unpinned += 1
            return False

    def _pin(self, key: CacheKey) -> bool:
        if not isinstance(self._policy, Pinning):
            raise PinRefused(f"{type(self._policy).__name__} has no pins")
        if key not in self._residents:
            return False
        self._policy.pin(key)
        return True

    def _drop_expired_pins(self) -> int:
        """They hold their room until somebody asks for them, for nothing evicts them. Looks at every key."""
        now = self._clock()
        expired = [key for key, resident in self._residents.items() if 0 < resident.expires <= now]
        return sum(self._drop(key, "expired") for key in expired if self.is_pinned(key))

    def unpin(self, key: CacheKey) -> bool:
        """False when there is no such entry."""
        if key not in self._residents or not isinstance(self._policy, Pinning):
            return False
        self._policy.unpin(key)
        return True

    @property
    def has_pins(self) -> bool:
        return isinstance(self._policy, Pinning)

    def is_pinned(self, key: CacheKey) -> bool:
        return isinstance(self._policy, Pinning) and self._policy.is_pinned(key)

    def resident_keys(self, limit: int) -> list[CacheKey]:
        """At most `limit` resident keys that were hit since they were last handed out, longest waiting first.

        The next tier sees no access to what is hit here, so it is told in batches, or it would forget the hottest.
        """
        keys = list(islice(self._hit, limit))
        for key in keys:
            del self._hit[key]
        return keys

    def recently_hit(self, limit: int) -> list[CacheKey]:
        """Of what `resident_keys` would hand out, at most `limit`; nothing changes."""
        return list(islice(self._hit, limit))

    def tags_of(self, key: CacheKey) -> tuple[str, ...] | None:
        """None for a key that is not resident."""
        resident = self._residents.get(key)
        return None if resident is None else resident.entry.tags

    def hits_of(self, key: CacheKey) -> int:
        """Hits since the entry came into this tier; 0 for a key that is not resident."""
        resident = self._residents.get(key)
        return resident.hits if resident is not None else 0

    # The tier protocol.

    async def get(self, key: CacheKey) -> Entry | None:
        lease = self.lookup(key)
        if lease is None:
            return None
        with lease:
            return lease.entry

    async def put(self, key: CacheKey, entry: Entry) -> bool:
        return self.store(key, entry)

    async def delete(self, key: CacheKey) -> bool:
        return self.drop(key)

    async def evict(self, tag: str) -> int:
        return self.drop_tag(tag)

    # Keeping policy, memory and counts in step.

    def _drop(self, key: CacheKey, reason: Reason) -> bool:
        if key not in self._residents:
            return False
        self._policy.remove(key)
        self._discard(key, reason)
        return True

    def _discard(self, key: CacheKey, reason: Reason) -> None:
        """Takes out an entry whose key the policy no longer counts."""
        resident = self._residents.pop(key)
        self._hit.pop(key, None)
        for tag in set(resident.entry.tags):
            keys = self._by_tag[tag]
            keys.remove(key)
            if not keys:
                del self._by_tag[tag]
        stats = self.stats
        stats.evictions[reason] += 1
        stats.entries -= 1
        stats.bytes -= resident.block.size
        if resident.leases:
            resident.gone = True
            stats.leased_bytes += resident.block.size
        else:
            self._memory.release(resident.block)

    def _free(self, resident: _Resident) -> None:
        """The last lease on a dropped entry came back."""
        self.stats.leased_bytes -= resident.block.size
        self._memory.release(resident.block)

    def _shed_for(self, size: int) -> None:
        """Makes room beside dropped entries that are still leased: the policy takes their bytes for free.

        Without this, one slow reader of a dropped entry would keep a full tier from storing anything.
        """
        leased = self.stats.leased_bytes
        over = self._policy.used + leased + size - self._size
        if leased and over > 0 and size <= min(self._size - leased, self._policy.capacity):
            for victim in self._policy.shed(over):
                self._discard(victim, "capacity")

    def _settle_abandoned(self) -> None:
        while self._abandoned:
            resident = self._abandoned.popleft()
            self.stats.abandoned += 1
            resident.leases -= 1
            if resident.gone and not resident.leases:
                self._free(resident)
