"""The policy protocol: who is admitted and who is evicted. Keys and weights only: no clock, no I/O, never a value.

A tier owns the values and tells its policy what happens to the keys; the policy answers with keys to drop. So the same
class serves a tier in production and a trace in simulation. All policies pass tests/cache_tiers/test_policy.py.

`ByCachetools` turns any cachetools cache whose `popitem` is its eviction rule into a policy. In cachetools 8 both
LRUCache (one ordered dict) and LFUCache (a linked list of counts, each with an ordered dict of its keys) do every
operation in constant time, and LFUCache breaks ties by age within a count: the key that reached it first goes first.
"""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from typing import Generic, Protocol, TypeVar, runtime_checkable

import cachetools

K = TypeVar("K", bound=Hashable)


class Policy(Protocol[K]):
    """Not thread-safe: one tier, one event loop."""

    @property
    def capacity(self) -> int:
        """Bytes that the resident keys may weigh together."""
        ...

    @property
    def used(self) -> int:
        """Bytes that the resident keys weigh; never above the capacity."""
        ...

    def touch(self, key: K) -> None:
        """A resident key was hit. KeyError when it is not resident."""
        ...

    def offer(self, key: K, weight: int, cost_ms: float) -> Sequence[K] | None:
        """Asks to admit a key; a resident one is weighed anew, which counts as an access.

        Returns the keys evicted for it, never the key itself. None refuses it, and nothing has changed.
        """
        ...

    def shed(self, weight: int) -> Sequence[K]:
        """Evicts until at least this weight is gone, or everything is that is not pinned: memory is held by what no key
        names any more."""
        ...

    def remove(self, key: K) -> None:
        """Forgets a key; one that is not resident is no matter."""
        ...

    def __contains__(self, key: object) -> bool: ...

    def __len__(self) -> int: ...


class PinRefused(ValueError):
    """A key cannot be pinned; the text says why."""


@runtime_checkable
class Pinning(Protocol):
    """A policy that can be told never to evict a key. A pin ends with `unpin`, `remove`, or the key's growing past what
    pins may take."""

    def pin(self, key: Hashable) -> None:
        """KeyError when the key is not resident, `PinRefused` when pins would take too much of the capacity."""
        ...

    def unpin(self, key: Hashable) -> None:
        """KeyError when the key is not resident; one that is not pinned is no matter."""
        ...

    def is_pinned(self, key: Hashable) -> bool: ...


class ByCachetools(Generic[K]):
    """A policy whose order is that of a cachetools cache, which holds each key's weight as its value."""

    def __init__(self, cache: cachetools.Cache[K, int]) -> None:
        self._cache = cache
        self.capacity = int(cache.maxsize)

    @property
    def used(self) -> int:
        return int(self._cache.currsize)

    def touch(self, key: K) -> None:
        self._cache[key]  # reading is what cachetools counts as an access

    def offer(self, key: K, weight: int, cost_ms: float) -> Sequence[K] | None:
        if weight > self.capacity:
            return None
        cache = self._cache
        # The base class reads without counting an access: the assignment below is the one that counts.
        held = cachetools.Cache.__getitem__(cache, key) if key in cache else 0
        victims: list[K] = []
        while cache.currsize - held + weight > self.capacity:
            victim, _ = cache.popitem()
            if victim == key:
                held = 0  # its turn had come: it is admitted again as a new key
            else:
                victims.append(victim)
        cache[key] = weight
        return victims

    def shed(self, weight: int) -> Sequence[K]:
        floor = self._cache.currsize - weight
        victims: list[K] = []
        while self._cache and self._cache.currsize > floor:
            victims.append(self._cache.popitem()[0])
        return victims

    def remove(self, key: K) -> None:
        self._cache.pop(key, None)

    def __contains__(self, key: object) -> bool:
        return key in self._cache

    def __len__(self) -> int:
        return len(self._cache)


def weight_of(weight: int) -> int:
    """What cachetools asks for: the size of a value, which here is the weight itself."""
    return weight
