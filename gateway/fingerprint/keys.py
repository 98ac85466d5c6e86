"""Keys that two copies of a recording share: 33 exact bits of three instants, and which of them to ask for first.

A key is the lowest 11 bits of a frame, of the frame 64 ms later and of the one 128 ms later. The stored side keeps one
for each place that speaks; the asking side knows how sure it is of every bit, asks for the keys it is surest of, and
asks for each again with its least certain bits the other way round. After Haitsma & Kalker's search by exact words with
flipped unreliable bits, and the query-directed probes of Lv and others (2007, multi-probe LSH).
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
"""Bits that are left of a key: two of 40 million agree with one of 512 probes by chance in one query of 200."""
PROBES: Final = 2048
"""Keys asked for, at most, for one query."""
FLIPPED: Final = 8
"""Least certain bits of a key that are tried both ways, up to FLIPS at a time."""
FLIPS: Final = 5
SEEDS: Final = 128
"""Keys that are tried with flipped bits: the surest."""
SPOKEN: Final = 0.5
"""Chance that a frame of the undistorted recording is speech, from which its keys are asked for: in noise and rooms the
query's own levels say little."""
FEW: Final = 48
"""Keys of a recording that are stored, and so many more a second:"""
A_SECOND: Final = 8.0
USUAL: Final = 32
"""Keys of a word of a second: what room is made for."""
_MIX: Final = np.uint64(0x9E3779B97F4A7C15)


@dataclass(frozen=True, slots=True)
class Shape:
    """Of a key: `bits` of each of `frames` frames that lie `gap` apart. At most 64 bits in all."""

    bits: int = 11
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
    counts = np.bincount(owner, minlength=len(lengths))
    if (counts > room).any():
        # The most trusted first; among equals the hash decides, which is chance, so that they spread.
        order = np.lexsort((hashes, -trusted.astype(np.int64), owner))
        rank = np.arange(len(order)) - np.repeat(np.cumsum(counts) - counts, counts)
        kept = np.sort(order[rank < room[owner[order]]])
        return hashes[kept], owner[kept], frames[kept]
    return hashes, owner, frames


def probes(query: Fingerprint, budget: int = PROBES, shape: Shape = SHAPE) -> tuple[Hashes, Ints]:
    """Keys to ask for, likeliest first, and where they begin in the query, in half frames: uint64 [n], int64 [n]."""
    odds = query.odds[:, : shape.bits]
    speaks = np.repeat(query.active if query.heard is None else query.heard.speech[:, 0] > SPOKEN, 2)
    steps = np.arange(shape.frames) * 2 * shape.gap
    usable = speaks[: max(0, len(odds) - 2 * shape.span)].copy()
    for step in steps[1:].tolist():
        usable &= speaks[step:][: len(usable)]
    at = np.flatnonzero(usable)
    if not len(at):
        return np.zeros(0, np.uint64), np.zeros(0, np.int64)
    sure = np.abs(odds)
    cost = np.log(np.prod(1 + np.exp(-sure), axis=1))  # of any of the frame's bits being wrong
    costs = cost[at[:, None] + steps].sum(axis=1)
    seeds = _least(costs, SEEDS)
    costs, at = costs[seeds], at[seeds]
    frames = at[:, None] + steps
    set_bits = (odds[frames] > 0).reshape(len(at), -1)
    keys = (set_bits @ (np.uint64(1) << np.arange(shape.bits * shape.frames, dtype=np.uint64))).astype(np.uint64)
    doubt = sure[frames].reshape(len(at), -1)
    least = np.argsort(doubt, axis=1)[:, :FLIPPED]
    flips = _flips(least.shape[1])
    total = costs[:, None] + np.take_along_axis(doubt, least, axis=1) @ flips.T
    best = _least(total.ravel(), budget)
    row, flip = np.divmod(best, len(flips))
    changed = (np.uint64(1) << least.astype(np.uint64))[row] * flips[flip].astype(np.uint64)
    return hashed(keys[row] ^ changed.sum(axis=1, dtype=np.uint64)), at[row]


def _least(values: npt.NDArray[np.floating], n: int) -> Ints:
    """Where the `n` least are, least first."""
    some = np.argpartition(values, n)[:n] if n < len(values) else np.arange(len(values))
    return np.asarray(some[np.argsort(values[some])])


@lru_cache(maxsize=1)
def _flips(bits: int) -> npt.NDArray[np.float32]:
    """Which of a key's least certain bits to flip: float32 [ways, bits] of 0 and 1, none first."""
    ways = [way for size in range(FLIPS + 1) for way in combinations(range(bits), size) if sum(way) < 2 * bits]
    table = np.zeros((len(ways), bits), np.float32)
    for number, way in enumerate(ways):
        table[number, list(way)] = 1
    return table
