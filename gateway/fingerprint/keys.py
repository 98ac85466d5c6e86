"""Keys that two copies of a recording share: 27 exact bits of three instants, and which of them to ask for.

A key is the lowest 9 bits of a frame, of the frame 64 ms later and of the one 128 ms later. The stored side keeps one
for each place that speaks; the asking side knows how likely every frame is speech and every bit is set, asks for the
keys that are likeliest, and for each again with its least certain bits the other way round. After Haitsma & Kalker's
search by exact words with flipped unreliable bits, and the query-directed probes of Lv and others (2007, multi-probe
LSH).
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from itertools import combinations
from typing import Final

import numpy as np
import numpy.typing as npt

from gateway.fingerprint.bits import Fingerprint
from models.signs import Words

Hashes = npt.NDArray[np.uint64]
Ints = npt.NDArray[np.int64]

HASH_BITS: Final = 42
"""Bits of a key's hash: of 40 million one agrees with another key that is asked for in one query of 70."""
PROBES: Final = 1536
"""Keys asked for, at most, for one query."""
FLIPPED: Final = 7
"""Least certain bits of a key that are tried both ways, up to FLIPS at a time."""
FLIPS: Final = 4
SEEDS: Final = 96
"""Keys that are tried with flipped bits: the likeliest."""
RAW: Final = 0.25
"""What the query's raw differences count beside the network's log-odds of what the undistorted recording has: they tell
more of bits that nobody trusts, and less in rooms."""
UNSPOKEN: Final = 0.02
"""Least chance that a frame of the undistorted recording is speech that is reckoned with: the network may be wrong."""
FEW: Final = 48
"""Keys of a recording that are stored, and so many more a second:"""
A_SECOND: Final = 8.0
USUAL: Final = 32
"""Keys of a word of a second: what room is made for."""
_MIX: Final = np.uint64(0x9E3779B97F4A7C15)


@dataclass(frozen=True, slots=True)
class Shape:
    """Of a key: `bits` of each of `frames` frames that lie `gap` apart. At most 53 bits in all."""

    bits: int = 9
    frames: int = 3
    gap: int = 4

    @property
    def span(self) -> int:
        return (self.frames - 1) * self.gap


SHAPE: Final = Shape()


def hashed(keys: Hashes) -> Hashes:
    """Keys as evenly spread numbers below 2 ** HASH_BITS."""
    mixed = keys * _MIX
    mixed = (mixed ^ (mixed >> np.uint64(32))) * _MIX
    return np.asarray((mixed ^ (mixed >> np.uint64(29))) * _MIX >> np.uint64(64 - HASH_BITS))


def stored_keys(
    bits: Words, mask: Words, active: npt.NDArray[np.bool_], lengths: Ints, shape: Shape = SHAPE
) -> tuple[Hashes, Ints, Ints]:
    """Keys of recordings whose frames lie behind each other, `lengths` of each: hash, which recording, first frame.

    A recording of many seconds keeps the keys whose bits it trusts most.
    """
    places = max(0, len(bits) - shape.span)
    owner = np.repeat(np.arange(len(lengths)), lengths)
    usable = owner[:places] == owner[shape.span :]
    for step in range(shape.frames):
        usable &= active[step * shape.gap :][:places]
    at = np.flatnonzero(usable)
    part = bits & np.uint32((1 << shape.bits) - 1)
    keys = np.zeros(len(at), np.uint64)
    trusted = np.zeros(len(at), np.uint8)
    trust = np.bitwise_count(mask & np.uint32((1 << shape.bits) - 1))
    for step in range(shape.frames):
        keys |= part[at + step * shape.gap].astype(np.uint64) << np.uint64(step * shape.bits)
        trusted += trust[at + step * shape.gap]
    owner = owner[at]
    frames = at - (np.cumsum(lengths) - lengths)[owner]
    hashes = hashed(keys)
    room = (FEW + A_SECOND * lengths * 0.016).astype(np.int64)
    many = np.bincount(owner, minlength=len(lengths)) > room
    if many.any():
        # Of those with too many the most trusted; among equals the hash decides, which is chance, so that they spread.
        long = np.flatnonzero(many[owner])
        order = long[np.lexsort((hashes[long], -trusted[long].astype(np.int64), owner[long]))]
        first = np.flatnonzero(np.diff(owner[order], prepend=-1))
        rank = np.arange(len(order)) - np.repeat(first, np.diff(first, append=len(order)))
        kept = ~many[owner]
        kept[order[rank < room[owner[order]]]] = True
        return hashes[kept], owner[kept], frames[kept]
    return hashes, owner, frames


def probes(query: Fingerprint, budget: int = PROBES, shape: Shape = SHAPE) -> tuple[Hashes, Ints]:
    """The likeliest keys to ask for, `budget` at most, in any order, and where they begin in the query, in half frames:
    uint64 [n], int64 [n]. ValueError where `query` was not heard."""
    if query.heard is None or query.strength is None:
        raise ValueError("the query must come from gateway.fingerprint.listen.listen")
    steps = 2 * shape.gap * np.arange(shape.frames)
    room = len(query.strength) - 2 * shape.span
    if room <= 0:
        return np.zeros(0, np.uint64), np.zeros(0, np.int64)
    odds = query.heard.log_odds[:, : shape.bits] + np.float32(RAW) * query.strength[:, : shape.bits]
    sure = np.abs(odds)
    # Less the log of the chance that a half frame is speech and has all its bits right.
    speech = np.maximum(query.heard.speech[:, 0], np.float32(UNSPOKEN))
    cost = np.log((1 + np.exp(-sure)).prod(axis=1) / np.repeat(speech, 2))
    costs = np.add.reduce([cost[step : step + room] for step in steps.tolist()])
    at = _least(costs, SEEDS)
    frames = at[:, None] + steps
    doubt = sure[frames].reshape(len(at), -1)
    least = doubt.argsort(axis=1)[:, :FLIPPED]
    flips = _flips(least.shape[1])
    total = costs[at, None] + np.take_along_axis(doubt, least, axis=1) @ flips.T
    best = _least(total.ravel(), budget)
    # Sums of different powers of two below 2 ** 53 are exact in float64, whose products are the fast ones.
    own = (odds[frames].reshape(len(at), -1) > 0) @ np.exp2(np.arange(doubt.shape[1]))
    changed = np.exp2(least) @ flips.T.astype(np.float64)
    row = best // len(flips)
    return hashed(own.astype(np.uint64)[row] ^ changed.ravel()[best].astype(np.uint64)), at[row]


def _least(values: npt.NDArray[np.floating], n: int) -> Ints:
    """Where the `n` least are, in any order. `argpartition` takes three times as long."""
    if n >= len(values):
        return np.arange(len(values))
    return np.flatnonzero(values <= np.partition(values, n - 1)[n - 1])[:n]


@lru_cache(maxsize=1)
def _flips(bits: int) -> npt.NDArray[np.float32]:
    """Which of a key's least certain bits to flip: float32 [ways, bits] of 0 and 1, none first."""
    ways = [way for size in range(FLIPS + 1) for way in combinations(range(bits), size) if sum(way) < 2 * bits]
    table = np.zeros((len(ways), bits), np.float32)
    for number, way in enumerate(ways):
        table[number, list(way)] = 1
    return table
