"""What the policies are measured beside: theine, S3-FIFO, SIEVE, and bounds that no policy can pass.

SIEVE (Y. Zhang and others, NSDI 2024) and S3-FIFO (J. Yang and others, SOSP 2023) are written after their papers, with
the parameters of libCacheSim, whose counts of hits the tests hold them to. (Its Python wheel is not used itself: it
is under the GPL and brings an S3 client along.) theine is the package as its users have it, with its own W-TinyLFU in
Rust.

Bounds: where all sizes are equal, Belady's rule with leave to store nothing is the best there is. Where they are not,
the best is not known in reasonable time; PFOO-L (D. Berger, N. Beckmann, M. Harchol-Balter, "Practical bounds on
optimal caching with variable object sizes", SIGMETRICS 2018) misses less than any: it keeps the intervals between two
uses that save most for their bytes times their length, until bytes times time of the whole trace are spent.
"""

from __future__ import annotations

import contextlib
from collections import OrderedDict
from collections.abc import Iterator
from typing import Any

import numpy as np

from bench import simulation
from bench.policy_traces import Trace


class Sieve:
    """A queue in order of arrival and a hand that goes from old to new, sparing once what was used."""

    def __init__(self, capacity: int) -> None:
        self.capacity = capacity
        self.used = 0
        self._nodes: dict[int, _Node] = {}
        self._newest: _Node | None = None
        self._oldest: _Node | None = None
        self._hand: _Node | None = None

    def __contains__(self, key: object) -> bool:
        return key in self._nodes

    def touch(self, key: int) -> None:
        self._nodes[key].used = True

    def offer(self, key: int, weight: int, cost_ms: float) -> None:
        if weight > self.capacity:
            return
        while self.used + weight > self.capacity:
            self._evict()
        node = self._nodes[key] = _Node(key, weight, self._newest)
        if self._newest is not None:
            self._newest.newer = node
        else:
            self._oldest = node
        self._newest = node
        self.used += weight

    def _evict(self) -> None:
        node = self._hand or self._oldest
        while node is not None and node.used:
            node.used = False
            node = node.newer or self._oldest
        if node is None:
            raise RuntimeError("nothing to evict")
        self._hand = node.newer
        if node.newer is not None:
            node.newer.older = node.older
        else:
            self._newest = node.older
        if node.older is not None:
            node.older.newer = node.newer
        else:
            self._oldest = node.newer
        del self._nodes[node.key]
        self.used -= node.weight


class _Node:
    __slots__ = ("key", "newer", "older", "used", "weight")

    def __init__(self, key: int, weight: int, older: _Node | None) -> None:
        self.key, self.weight, self.older = key, weight, older
        self.newer: _Node | None = None
        self.used = False


class S3Fifo:
    """A small queue that most pass once, a main queue for what was used there, a ghost queue of keys alone."""

    SMALL, TO_MAIN, MOST = 0.1, 2, 3

    def __init__(self, capacity: int) -> None:
        self.capacity = capacity
        self._small_size = int(capacity * self.SMALL)
        self._main_size = capacity - self._small_size
        self._small: OrderedDict[int, int] = OrderedDict()
        self._main: OrderedDict[int, int] = OrderedDict()
        self._ghost: OrderedDict[int, int] = OrderedDict()
        self._weights: dict[int, int] = {}
        self._in_small = self._in_main = self._in_ghost = 0
        self._full = False  # until something is evicted for the first time, what the small queue cannot take is main's

    def __contains__(self, key: object) -> bool:
        return key in self._weights

    def touch(self, key: int) -> None:
        queue = self._small if key in self._small else self._main
        queue[key] = min(queue[key] + 1, self.MOST)

    def offer(self, key: int, weight: int, cost_ms: float) -> None:
        if weight > self.capacity:
            return
        known = self._ghost.pop(key, None)
        if known is not None:
            self._in_ghost -= known
        elif weight > self._small_size > 0:
            return  # what does not fit into the small queue is left out, as in libCacheSim
        while self._in_small + self._in_main + weight > self.capacity:
            self._evict()
        if known is not None or not self._small_size or (not self._full and self._in_small >= self._small_size):
            self._to_main(key, weight, 0)
        else:
            self._small[key] = 0
            self._in_small += weight
        self._weights[key] = weight

    def _to_main(self, key: int, weight: int, uses: int) -> None:
        self._main[key] = uses
        self._in_main += weight

    def _evict(self) -> None:
        self._full = True
        if self._in_main > self._main_size or not self._small:
            self._evict_main()
            return
        evicted = False
        while not evicted and self._small:
            key, uses = self._small.popitem(last=False)
            weight = self._weights[key]
            self._in_small -= weight
            if uses >= self.TO_MAIN:
                self._to_main(key, weight, 0)
            else:
                self._remember(key, self._weights.pop(key))
                evicted = True

    def _evict_main(self) -> None:
        while True:
            key, uses = self._main.popitem(last=False)
            if uses:
                self._main[key] = uses - 1
            else:
                self._in_main -= self._weights.pop(key)
                return

    def _remember(self, key: int, weight: int) -> None:
        self._ghost[key] = weight
        self._in_ghost += weight
        while self._in_ghost > self._main_size:
            self._in_ghost -= self._ghost.popitem(last=False)[1]


class Theine:
    """theine counts keys, not bytes, so it stands beside the others where sizes are equal."""

    def __init__(self, capacity: int) -> None:
        import theine

        self._cache: Any = theine.Cache(capacity, nolock=True)

    def __contains__(self, key: object) -> bool:
        """Reading is what theine counts as a use."""
        return bool(self._cache.get(key)[1])

    def touch(self, key: int) -> None:
        pass

    def offer(self, key: int, weight: int, cost_ms: float) -> None:
        self._cache.set(key, True)

    def close(self) -> None:
        self._cache.close()


def have_theine() -> bool:
    with contextlib.suppress(ImportError):
        import theine

        return bool(theine.Cache)
    return False


def belady(trace: Trace, capacity: int) -> Iterator[bool]:
    """Whether each request is a hit when what is used last of all goes first, or is not stored. For equal sizes."""
    distinct, keys = np.unique(trace.keys, return_inverse=True)
    missed = simulation.belady(keys, [trace.sizes[0]] * len(distinct), capacity)
    return (not miss for miss in missed.tolist())


def pfoo_bound(trace: Trace, capacity: int) -> dict[str, float]:
    """Upper bounds of the ratios of hits by requests, bytes and compute, each for itself."""
    sizes, costs = np.asarray(trace.sizes, np.float64), np.asarray(trace.costs, np.float64)
    worths = [np.ones(len(trace)), sizes, costs]
    saved = simulation.most_saved(np.asarray(trace.keys), sizes, worths, capacity)
    whole = [float(worth.sum()) for worth in worths]
    return dict(zip(("requests", "bytes", "compute"), (saved / whole).tolist(), strict=True))
