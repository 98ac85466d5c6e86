"""A policy over a list of requests, as the device tier would tell it of them, and what none can beat.

For answers of one size that is Belady's MIN, which drops what is asked for again last, and takes nothing in that would
be it. For sizes that differ MIN is no bound; that is PFOO-L (Berger, Beckmann, Harchol-Balter, "Practical bounds on
optimal caching with variable object sizes", SIGMETRICS 2018): of all waits between two requests for a key those that
take the least room and time for what they are worth, as many as the room of the whole trace holds.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from heapq import heappop, heappush
from typing import Any, Final, Protocol

import numpy as np
import numpy.typing as npt

from bench.trace_frames import next_access
from cache_tiers.policy import named
from cache_tiers.policy.base import Policy
from gateway.settings import Device

POLICIES: Final[dict[str, Callable[[int], Policy[int]]]] = {**named.POLICIES}
"""By their names in the settings; made with a capacity in bytes."""
DEFAULT: Final[str] = Device.model_fields["policy"].default
"""What a gateway has unless its settings name another."""
Array = npt.NDArray[Any]


class Simulated(Protocol):
    """What a simulation asks of a policy."""

    def touch(self, key: int) -> object: ...
    def offer(self, key: int, weight: int, cost_ms: float) -> object: ...
    def __contains__(self, key: object) -> bool: ...


def missed_by(
    policy: Simulated, keys: Sequence[int], sizes: Iterable[int], costs: Iterable[float]
) -> npt.NDArray[np.bool_]:
    """[n] which requests a tier with this policy would miss, each with its size and cost. The policy keeps what it then
    holds."""
    missed = bytearray(len(keys))
    touch, offer = policy.touch, policy.offer
    for at, (key, size, cost) in enumerate(zip(keys, sizes, costs, strict=True)):
        if key in policy:
            touch(key)
        else:
            missed[at] = 1
            offer(key, size, cost)
    return np.frombuffer(missed, bool)


def simulate(
    policy: Simulated, keys: Sequence[int], sizes: Sequence[int], costs: Sequence[float]
) -> npt.NDArray[np.bool_]:
    """As `missed_by`, with sizes and costs by key."""
    return missed_by(policy, keys, map(sizes.__getitem__, keys), map(costs.__getitem__, keys))


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


def most_saved(
    keys: npt.NDArray[np.int64], sizes: Array, worths: Sequence[Array], capacity: float
) -> npt.NDArray[np.float64]:
    """Bounds by PFOO-L of what hits in a cache of `capacity` bytes can save, one for each of `worths`, each by itself.
    All arrays are [n], by request."""
    following = next_access(keys)
    again = np.flatnonzero(following >= 0)
    later = following[again]
    room = sizes[later] * (later - again)
    budget = float(capacity) * len(keys)
    saved = []
    for worth in worths:
        mine = worth[later]
        order = np.argsort(room / np.maximum(mine, 1e-9), kind="stable")
        spent = np.cumsum(room[order])
        whole = int(np.searchsorted(spent, budget, side="right"))
        total = float(mine[order[:whole]].sum())
        if whole < len(order):  # the next one fits in part
            before = float(spent[whole - 1]) if whole else 0.0
            total += float(mine[order[whole]]) * (budget - before) / float(room[order[whole]])
        saved.append(total)
    return np.array(saved)
