"""Hit rate by size: the gateway's own policy classes over a trace, the best that any policy could do, and what doubling
the memory buys.

Of a long trace some keys are simulated, with all their requests, in a cache as many times smaller (SHARDS: Waldspurger
et al., "Efficient MRC Construction with SHARDS", FAST 2015). Misses are counted and divided by the share, which is
SHARDS' corrected form. SHARDS draws keys by their hash, for it knows nothing of them; here the whole trace is known, so
of every so many keys that are asked for about as often and weigh about as much one is drawn. A few keys of a speech
trace are asked for so often that luck with them would decide all the same; so the commonest, as long as they fit ten
times into the smallest size looked at, are taken to be there from their first request on, and are not drawn from.

The gateway's own policy adapts: it tries on a thirty-second of the keys what suits. Of a sample that is too few, and
with another exponent it is another policy. So it learns from the requests the trial would see of the whole trace, or of
a million of its requests, and is simulated on the sample with what was learnt.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from bench.report_keys import ByKey
from bench.simulation import POLICIES, Array, belady, most_saved, simulate
from cache_tiers.policy.base import Policy
from cache_tiers.policy.trial import SPREAD, Trial
from cache_tiers.policy.worth import WorthPolicy, shadow
from gateway.stats import BYPASS, HIT_FUZZY

SAMPLE: Final = 50_000
"""Requests that are simulated, some more or fewer; all of a trace that has no more."""
HALVINGS: Final = 7
"""The sizes looked at are all answers' bytes, half of them, and so on."""
TIMES: Final = (1, 2, 4, 8)
"""What if the first tier were so many times larger."""
BLOCK: Final = 1 << 14
"""Requests of which those the trial wants are picked at once."""
GAIN: Final = 0.005
"""A doubling of the size that gains less hits than this share of requests buys nothing."""
ADAPTS: Final = "worth"
"""The policy that learns from what it sees how far frequency is to outweigh recency."""
LEARNT: Final = 1_000_000
"""Requests from which that is learnt, some more or fewer, where those that are simulated are too few for it."""


@dataclass(frozen=True)
class Lesson:
    """Requests, the sample's among them, from which the policy that adapts learns its exponent."""

    keys: npt.NDArray[np.int64]
    """[n]"""
    at: npt.NDArray[np.int64]
    """[n] before which position of the sample each stands."""
    sizes: Array
    """By key."""
    costs: Array
    rate: float
    """Share of the trace's keys."""

    def exponents(self, size: float) -> list[tuple[int, float]]:
        """From which position of the sample on which exponent holds in a cache of `size` bytes of the whole trace."""
        trial = Trial(max(1, round(size * self.rate)), shadow)
        found = [(0, trial.exponent)]
        for begin in range(0, len(self.keys), BLOCK):
            keys = self.keys[begin : begin + BLOCK]
            # `trial.wants` of many at once, in 64 bits, which hold all that the mask looks at.
            mixed = keys.astype(np.uint64) * np.uint64(SPREAD) >> np.uint64(29)
            for index in np.flatnonzero(mixed & np.uint64(trial.mask) == 0).tolist():
                key = int(keys[index])
                if not trial.wants(key):  # it looks at fewer keys by now
                    continue
                exponent = trial.access(key, int(self.sizes[key]), float(self.costs[key]))
                if exponent is not None and exponent != found[-1][1]:
                    found.append((int(self.at[begin + index]), exponent))
        return found


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
    """Share of the keys but for the head that is in the sample."""
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
    lesson: Lesson | None = None
    """None where all requests are in the sample: then the policy learns by itself."""
    _learnt: dict[float, list[tuple[int, float]]] = field(default_factory=dict)
    """By size, what the lesson has taught."""

    def __len__(self) -> int:
        return len(self.keys)

    def capacity(self, size: float) -> int:
        """Of the small cache that stands for one of `size` bytes."""
        return max(1, round((size - self.head_bytes) * self.rate))

    def policy(self, name: str, size: float) -> Policy[int]:
        """That of the small cache that stands for one of `size` bytes."""
        capacity = self.capacity(size)
        if name != ADAPTS or self.lesson is None:
            return POLICIES[name](capacity)
        return WorthPolicy(capacity, exponent=self._exponents(self.lesson, size)[0][1])

    def missed(self, policy: Policy[int], size: float, begin: int = 0, end: int | None = None) -> npt.NDArray[np.bool_]:
        """Which requests of the sample, from `begin` to `end`, a policy of `policy(..., size)` would miss."""
        end = len(self) if end is None else end
        if self.lesson is None or not isinstance(policy, WorthPolicy):
            return simulate(policy, self.keys[begin:end].tolist(), self.sizes, self.costs)
        steps = self._exponents(self.lesson, size)
        missed = []
        for (start, exponent), (stop, _) in zip(steps, [*steps[1:], (len(self), 0.0)], strict=True):
            if start < end and stop > begin:
                policy.become(exponent)
                keys = self.keys[max(start, begin) : min(stop, end)]
                missed.append(simulate(policy, keys.tolist(), self.sizes, self.costs))
        return np.concatenate(missed) if missed else np.empty(0, bool)

    def _exponents(self, lesson: Lesson, size: float) -> list[tuple[int, float]]:
        if size not in self._learnt:
            self._learnt[size] = lesson.exponents(size)
        return self._learnt[size]

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
        sizes, costs = np.array(self.sizes, float)[self.keys], np.array(self.costs)[self.keys]
        worths = [np.ones(len(self.keys)), sizes, costs]
        saved = most_saved(self.keys, sizes, worths, self.capacity(size))
        return self._rates(np.array([worth.sum() for worth in worths]) - saved)


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
        inside = _drawn(asked & ~is_head, counts, by.weights, luck, min(1.0, most / max(rest, 1)))
        share = float(inside.sum() / max(1, (asked & ~is_head).sum()))
        while counts[inside].sum() > 1.5 * most and inside.sum() > 1:  # of one that came so often, next to none missed
            inside[np.argmax(np.where(inside, counts, 0))] = False
    else:
        inside = asked
    taken = inside[key]
    numbers = np.cumsum(inside) - 1
    where = np.cumsum(taken)
    heads = is_head[key]
    lesson = None
    if share < 1:
        part = min(1.0, LEARNT / len(key))
        learnt = np.flatnonzero(luck[key] < part) if part < 1 else np.arange(len(key))
        numbered = np.cumsum(asked) - 1  # as all of them are in a sample of all
        lesson = Lesson(numbered[key[learnt]], where[learnt] - taken[learnt], by.weights[asked], by.costs[asked], part)
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
        lesson=lesson,
    )


def _drawn(
    some: npt.NDArray[np.bool_], counts: Array, weights: Array, luck: npt.NDArray[np.float64], share: float
) -> npt.NDArray[np.bool_]:
    """A share of some keys: of every so many that are asked for about as often and weigh about as much, one by luck."""
    keys = np.flatnonzero(some)
    often = np.floor(2 * np.log2(counts[keys]))
    keys = keys[np.lexsort((luck[keys], weights[keys], often))]
    group = np.floor(np.arange(len(keys)) * share)
    ranked = keys[np.lexsort((luck[keys], group))]
    drawn = np.zeros(len(some), bool)
    drawn[ranked[np.flatnonzero(np.diff(group, prepend=-1))]] = True
    return drawn


def _mixed(digests: Array, seed: int) -> npt.NDArray[np.float64]:
    """A number in 0..1 for each digest, by SplitMix64: digests of other programs may be numbers from 1 on."""
    with np.errstate(over="ignore"):
        x = digests.astype(np.uint64) + np.uint64(0x9E3779B97F4A7C15) * np.uint64(seed + 1)
        x = (x ^ (x >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
        x = (x ^ (x >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    mixed: npt.NDArray[np.float64] = (x ^ (x >> np.uint64(31))).astype(np.float64) / 2.0**64
    return mixed


def curve(sample: Sample, running: str, first_tier: float) -> dict[str, Any]:
    """Hit rates by size in bytes, each by requests, bytes and compute. `first_tier`: bytes of the first tier."""
    even = len(set(sample.sizes)) <= 1
    steps = {sample.all_bytes * 0.5**halving for halving in range(HALVINGS + 1)}
    wanted = {first_tier * times for times in TIMES}
    sizes = sorted(size for size in steps | wanted if 1 <= size <= sample.all_bytes)
    rows = []
    for size in sizes:
        capacity = sample.capacity(size)
        row: dict[str, Any] = {"bytes": round(size), "share": size / sample.all_bytes}
        for name in dict.fromkeys(("lru", running)):
            row[name] = sample.rates(sample.missed(sample.policy(name, size), size))
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
