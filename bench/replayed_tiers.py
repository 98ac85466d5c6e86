"""What two tiers would have made of a trace that a gateway recorded, offline, beside what they did.

The first tier is the policy class that the gateway runs, told of the same keys in the same order. It is offered every
answer that it lacked, wherever that came from, so it does not depend on what is behind it. Behind it an LFU that counts
every use: Redis looks at a sample of its keys and counts by chance, so it forgets nearly the same. That tier sees what
the first one lacks, and every ten seconds which keys the first one was asked for.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from bench.simulation import belady, missed_by, most_saved
from bench.trace_frames import NAMES, Rows
from cache_tiers.entry import CacheKey, Entry
from cache_tiers.policy.base import Policy
from cache_tiers.policy.lfu import LfuPolicy
from cache_tiers.policy.worth import WorthPolicy
from gateway.app import HEAT_EVERY_S, _number
from gateway.stats import BYPASS, COALESCED, HIT_EXACT, MISS

WRAPPING: Final = Entry((b"",), 0.0, 0.0).weight
"""Bytes that an answer of one message weighs beside the message."""
Missed = npt.NDArray[np.bool_]
"""[n] whether a tier would lack what each request asks for."""


@dataclass(frozen=True)
class Recorded:
    """A trace as tiers see it."""

    rows: Rows
    keys: npt.NDArray[np.int64]
    """[n] numbered by first appearance."""
    weights: list[int]
    """[k] bytes"""
    costs: list[float]
    """[n] ms that the answer had taken."""

    @property
    def weight_of_all(self) -> int:
        return sum(self.weights)

    def hits(self, *tiers: str) -> float:
        """Share of requests that these tiers answered."""
        codes = [NAMES["tier"][tier] for tier in tiers]
        return float(np.mean((self.rows["status"] == HIT_EXACT) & np.isin(self.rows["tier"], codes)))


def recorded(rows: Rows) -> Recorded:
    """Raises ValueError for a trace in which something is asked for that was never stored: its weight isn't known."""
    digests, first, inverse = np.unique(rows["digest"], return_index=True, return_inverse=True)
    order = np.argsort(np.argsort(first))
    weights = np.zeros(len(digests), np.int64)
    computed = rows["status"] == MISS
    weights[order[inverse[computed]]] = rows["bytes_out"][computed] + WRAPPING
    if not weights.all():
        raise ValueError(f"{int((weights == 0).sum())} of {len(digests)} keys were answered but never computed")
    return Recorded(rows, order[inverse].astype(np.int64), weights.tolist(), rows["cost_ms"].tolist())


def simulated(trace: Recorded, numbers: Sequence[int], capacity: int) -> Missed:
    """What the first tier would lack. `numbers`: [k] by which the policy knows each key. Where they are `numbers_of`
    the gateway's own keys, it is told all that the gateway was told."""
    keys = trace.keys.tolist()
    policy: Policy[int] = WorthPolicy(capacity, number=numbers.__getitem__)
    return missed_by(policy, keys, map(trace.weights.__getitem__, keys), trace.costs)


def numbers_of(entry_ids: Iterable[str]) -> list[int]:
    """The numbers that the gateway's policy has of keys, from CacheInfo.entry_id of exact answers."""
    return [_number(CacheKey("", bytes.fromhex(entry_id.removeprefix("e")))) for entry_id in entry_ids]


def by_trace_alone(trace: Recorded, capacity: int, namings: int) -> list[Missed]:
    """The same where the keys' numbers are not known, as a trace doesn't tell them: the policy samples requests by
    them, so it is simulated with so many random ones. How far these differ is luck."""
    draws = (np.random.default_rng(seed) for seed in range(namings))
    return [simulated(trace, rng.integers(1 << 63, size=len(trace.weights)).tolist(), capacity) for rng in draws]


def behind(trace: Recorded, missed: Missed, capacity: int) -> Missed:
    """What both tiers would lack, where the first one lacks `missed` and the second holds so many bytes."""
    second: LfuPolicy[int] = LfuPolicy(capacity)
    hot: dict[int, None] = {}
    lacking = np.zeros(len(trace.keys), bool)
    told_us = int(trace.rows["time_us"][0])
    columns = zip(trace.keys.tolist(), missed.tolist(), trace.rows["time_us"].tolist(), strict=True)
    for at, (key, lacks, now_us) in enumerate(columns):
        if now_us - told_us >= HEAT_EVERY_S * 1e6:
            told_us = now_us
            for one in hot:
                if one in second:
                    second.touch(one)
            hot.clear()
        if not lacks:
            hot[key] = None
        elif key in second:
            second.touch(key)
        else:
            lacking[at] = True
            second.offer(key, trace.weights[key], 0.0)
    return lacking


def bounds(trace: Recorded, capacity: int) -> tuple[float, float]:
    """Shares of hits in this many bytes: by Belady's MIN, which is no bound where sizes differ, and by PFOO-L, which no
    policy can pass."""
    each = np.ones(len(trace.keys))
    sizes = np.array(trace.weights, float)[trace.keys]
    most = most_saved(trace.keys, sizes, [each], capacity)[0] / len(each)
    return 1 - float(belady(trace.keys, trace.weights, capacity).mean()), float(most)


def saved_share(rows: Rows, cost_of: dict[int, float]) -> float:
    """The compute-weighted hit rate: of what the answers cost when they are computed, what was not. `cost_of` each
    digest; an answer that another request's computation brought was not computed again either."""
    costs = np.array([cost_of[digest] for digest in rows["digest"].tolist()])
    return float(costs[np.isin(rows["status"], (HIT_EXACT, COALESCED))].sum() / costs.sum())


def costs_past(rows: Rows) -> dict[int, float]:
    """Mean milliseconds of compute by digest, where the cache was passed by."""
    past = rows[rows["status"] == BYPASS]
    digests, inverse = np.unique(past["digest"], return_inverse=True)
    sums: Any = np.bincount(inverse, past["cost_ms"]) / np.bincount(inverse)
    return dict(zip(digests.tolist(), sums.tolist(), strict=True))
