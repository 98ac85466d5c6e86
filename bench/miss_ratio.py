"""Hit rate by size: the gateway's own policy classes over a trace, the best that any policy could do, and what doubling
the memory buys.

Long traces are sampled in space (SHARDS: Waldspurger et al., "Efficient MRC Construction with SHARDS", FAST 2015): a
key is in the sample if a hash of it is below a threshold, with all its requests, in a cache as many times smaller.
Misses are counted and divided by the share, which is SHARDS' corrected form. A few keys of a speech trace are asked for
so often that luck with them would decide; so the commonest, as long as they fit ten times into the smallest size looked
at, are taken to be there from their first request on, and only the others are sampled.

What none can beat: for answers of one size Belady's MIN, which drops what is asked for again last, and takes nothing in
that would be it. For sizes that differ MIN is no bound; that is PFOO-L (Berger, Beckmann, Harchol-Balter, "Practical
bounds on optimal caching with variable object sizes", SIGMETRICS 2018): of all waits between two requests for a key
those that take the least room and time for what they are worth, as many as the room of the whole trace holds.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from heapq import heappop, heappush
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from bench.report_keys import ByKey
from bench.trace_frames import next_access
from cache_tiers.policy.base import Policy
from cache_tiers.policy.lfu import LfuPolicy
from cache_tiers.policy.lru import LruPolicy
from cache_tiers.policy.tinylfu import TinyLfuPolicy
from cache_tiers.policy.worth import WorthPolicy
from gateway.settings import Device
from gateway.stats import BYPASS, HIT_FUZZY

POLICIES: Final[dict[str, Callable[[int], Policy[int]]]] = {
    "worth": WorthPolicy,
    "tinylfu": TinyLfuPolicy,
    "lfu": LfuPolicy,
    "lru": LruPolicy,
}
"""By their names in the settings; made with a capacity in bytes."""
DEFAULT: Final[str] = Device.model_fields["policy"].default
"""What a gateway has unless its settings name another."""
SAMPLE: Final = 50_000
"""Requests that are simulated, some more or fewer; all of a trace that has no more."""
HALVINGS: Final = 7
"""The sizes looked at are all answers' bytes, half of them, and so on."""
TIMES: Final = (1, 2, 4, 8)
"""What if the first tier were so many times larger."""
GAIN: Final = 0.005
"""A doubling of the size that gains less hits than this share of requests buys nothing."""
Array = npt.NDArray[Any]


@dataclass(frozen=True)
class Sample:
    """Requests that exact keys can answer, thinned by key. Keys are numbered from 0 within the sample."""

    keys: npt.NDArray[np.int64]
    """[n]"""
    sizes: list[int]
    """[k] bytes"""
    costs: list[float]
    """[k] ms"""
    rate: float
    """Share of the keys that is in the sample, but for the head."""
    head_bytes: int
    head_first: npt.NDArray[np.float64]
    """What the head's first requests miss: requests, bytes, ms."""
    total: npt.NDArray[np.float64]
    """What all requests of the trace ask for: requests, bytes, ms."""
    all_bytes: int
    """Of all distinct answers of the trace."""
    ceiling: npt.NDArray[np.float64]
    """Hit rates of an endless cache over the whole trace: of requests, bytes, compute."""
    head: npt.NDArray[np.int64]
    """[m] in order of the sample: where a request of the head would stand, its key's number among the head."""
    head_at: npt.NDArray[np.int64]
    """[m] before which position of the sample."""
    head_costs: npt.NDArray[np.float64]

    def __len__(self) -> int:
        return len(self.keys)

    def capacity(self, size: float) -> int:
        """Of the small cache that stands for one of `size` bytes."""
        return max(1, round((size - self.head_bytes) * self.rate))

    def rates(self, missed: npt.NDArray[np.bool_]) -> dict[str, float]:
        """Hit rates of the whole trace, by requests, bytes and compute, from what the sample missed."""
        lost = self.keys[missed]
        sums = np.array([len(lost), np.array(self.sizes)[lost].sum(), np.array(self.costs)[lost].sum()])
        return self._rates(sums)

    def _rates(self, missed: npt.NDArray[np.float64]) -> dict[str, float]:
        found = 1 - (missed / self.rate + self.head_first) / np.maximum(self.total, 1e-9)
        return dict(zip(("requests", "bytes", "compute"), np.clip(found, 0, 1).tolist(), strict=True))

    def endless(self) -> dict[str, float]:
        """What the sample says of an endless cache; how far that is from `ceiling` is the luck of the sample."""
        return self._rates(np.array([len(self.sizes), sum(self.sizes), sum(self.costs)], float))

    def bounded(self, size: float) -> dict[str, float]:
        """Hit rates that no policy can exceed at this size, one by one: PFOO-L."""
        following = next_access(self.keys)
        again = following >= 0
        size_of, cost_of = np.array(self.sizes, float)[self.keys], np.array(self.costs)[self.keys]
        room = (following - np.arange(len(self.keys)))[again] * size_of[again]
        missed = []
        for worth in (np.ones(len(self.keys)), size_of, cost_of):
            mine = worth[again]
            order = np.argsort(room / np.maximum(mine, 1e-9), kind="stable")
            fits = np.searchsorted(np.cumsum(room[order]), self.capacity(size) * len(self.keys), side="right")
            missed.append(worth.sum() - mine[order[: fits + 1]].sum())  # the one that fits in part counts as whole
        return self._rates(np.array(missed))


def sampled(by: ByKey, most: int = SAMPLE, smallest: float = 0.5**HALVINGS, seed: int = 0) -> Sample:
    """`smallest`: the least size that will be asked for, as a share of all answers' bytes."""
    kept = by.kept
    exact = (kept.status != BYPASS) & (kept.status != HIT_FUZZY)
    key = by.key[exact].astype(np.int64)
    counts = np.bincount(key, minlength=by.keys)
    asked = counts > 0
    worth = np.stack([np.ones(by.keys), by.weights, by.costs])
    all_bytes = int(by.weights[asked].sum())
    total = (worth * counts).sum(axis=1)
    ceiling = 1 - worth[:, asked].sum(axis=1) / np.maximum(total, 1e-9)
    share, is_head = 1.0, np.zeros(by.keys, bool)
    if len(key) > most:
        ranked = np.argsort(-counts, kind="stable")
        fitting = np.cumsum(by.weights[ranked]) <= all_bytes * smallest / 10
        is_head[ranked[fitting & (counts[ranked] >= len(key) / 1000)]] = True
        rest = int(counts[~is_head].sum())
        luck = _mixed(by.kept.digest[by.order[by.starts]], seed)
        share = min(1.0, most / max(rest, 1))
        while counts[(inside := asked & ~is_head & (luck < share))].sum() > 1.5 * most and share > 1e-6:
            share /= 2
    else:
        inside = asked
    taken = inside[key]
    numbers = np.cumsum(inside) - 1
    where = np.cumsum(taken)
    heads = is_head[key]
    return Sample(
        keys=numbers[key[taken]],
        sizes=by.weights[inside].tolist(),
        costs=by.costs[inside].tolist(),
        rate=share,
        head_bytes=int(by.weights[is_head].sum()),
        head_first=worth[:, is_head & asked].sum(axis=1),
        total=total,
        all_bytes=all_bytes,
        ceiling=np.where(total > 0, ceiling, 0.0),
        head=(np.cumsum(is_head) - 1)[key[heads]],
        head_at=where[heads],
        head_costs=by.costs[is_head],
    )


def _mixed(digests: Array, seed: int) -> npt.NDArray[np.float64]:
    """A number in 0..1 for each digest, by SplitMix64: digests of other programs may be numbers from 1 on."""
    with np.errstate(over="ignore"):
        x = digests.astype(np.uint64) + np.uint64(0x9E3779B97F4A7C15) * np.uint64(seed + 1)
        x = (x ^ (x >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
        x = (x ^ (x >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    mixed: npt.NDArray[np.float64] = (x ^ (x >> np.uint64(31))).astype(np.float64) / 2.0**64
    return mixed


def simulate(
    policy: Policy[int], keys: Sequence[int], sizes: Sequence[int], costs: Sequence[float]
) -> npt.NDArray[np.bool_]:
    """[n] which requests a tier with this policy would miss. The policy keeps what it then holds."""
    missed = bytearray(len(keys))
    touch, offer = policy.touch, policy.offer
    for at, key in enumerate(keys):
        if key in policy:
            touch(key)
        else:
            missed[at] = 1
            offer(key, sizes[key], costs[key])
    return np.frombuffer(missed, bool)


def belady(keys: npt.NDArray[np.int64], sizes: Sequence[int], capacity: int) -> npt.NDArray[np.bool_]:
    """[n] which requests Belady's MIN would miss: with sizes all equal, the fewest that can be."""
    missed = bytearray(len(keys))
    following = next_access(keys).tolist()
    resident: dict[int, int] = {}
    latest: list[tuple[int, int]] = []  # the furthest next request first; outdated ones are passed over
    used = 0
    for at, key in enumerate(keys.tolist()):
        if resident.pop(key, None) is not None:
            used -= sizes[key]
        else:
            missed[at] = 1
        if following[at] < 0 or sizes[key] > capacity:
            continue
        resident[key] = following[at]
        used += sizes[key]
        heappush(latest, (-following[at], key))
        while used > capacity:
            when, furthest = heappop(latest)
            if resident.get(furthest) == -when:
                del resident[furthest]
                used -= sizes[furthest]
    return np.frombuffer(missed, bool)


def curve(sample: Sample, running: str, first_tier: float) -> dict[str, Any]:
    """Hit rates by size in bytes, each by requests, bytes and compute. `first_tier`: bytes of the first tier."""
    keys = sample.keys.tolist()
    even = len(set(sample.sizes)) <= 1
    steps = {sample.all_bytes * 0.5**halving for halving in range(HALVINGS + 1)}
    wanted = {first_tier * times for times in TIMES}
    sizes = sorted(size for size in steps | wanted if 1 <= size <= sample.all_bytes)
    rows = []
    for size in sizes:
        capacity = sample.capacity(size)
        row: dict[str, Any] = {"bytes": round(size), "share": size / sample.all_bytes}
        for name in dict.fromkeys(("lru", running)):
            row[name] = sample.rates(simulate(POLICIES[name](capacity), keys, sample.sizes, sample.costs))
        row["belady"] = sample.rates(belady(sample.keys, sample.sizes, capacity))
        row["bound"] = sample.bounded(size) if not even else row["belady"]
        rows.append(row)
    ceiling = dict(zip(("requests", "bytes", "compute"), sample.ceiling.tolist(), strict=True))
    return {
        "policy": running,
        "even": even,
        "all_bytes": sample.all_bytes,
        "first_tier_bytes": round(first_tier),
        "sample_rate": sample.rate,
        "sample_requests": len(sample),
        "sample_keys": len(sample.sizes),
        "head_bytes": sample.head_bytes,
        "ceiling": ceiling,
        "sample_ceiling": sample.endless(),
        "sizes": rows,
    }
