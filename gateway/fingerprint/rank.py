"""Which of the places that keys point at may be the query's source: more and more is compared, of fewer and fewer.

A place is a recording, a frame of it, and the half frame of the query that has the same key. First the frames about the
key are compared, which lie in a few cache lines; of the nearest, frames spread over the whole recording, also a little
faster and slower; of a dozen that are left, by how likely the query makes each of their bits, which is what `verify`
asks too, so that it need not look at what it would refuse.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import numpy as np
import numpy.typing as npt

from gateway.fingerprint.bits import Fingerprint
from gateway.fingerprint.keys import Ints
from gateway.fingerprint.store import Store
from models.evidence import COIN
from models.signs import packed, unpacked

SURE: Final = 0.5
"""Log-odds from which a query's bit counts when it is compared."""
ABOUT: Final = np.arange(-7, 16, 3)
"""Frames about a key's first that are compared first: a key spans nine."""
FINE: Final = 64
"""Places, the nearest by that (99 of 100 right ones are among the first seven, by 100,000 recordings), of which the
whole recording is compared,"""
SPREAD: Final = 24
"""in so many frames."""
LONG: Final = 80
"""Frames from which a recording can be heard faster or slower by enough to tell."""
PACES: Final = np.array([1.0, 0.985, 1.015])
UNLIKE: Final = 0.45
"""A recording farther than this is another one: `verify` would need 0.36 or less over all frames."""
CLOSE: Final = 8
"""Recordings, the nearest by that (the right one is among the first 5), whose bits are weighed one by one,"""
WEIGHED: Final = 32
"""in so many frames;"""
NUDGES: Final = np.arange(-2, 3)
"""and half frames that each may be moved by first."""
LEAST: Final = 0.2
"""Share of all the evidence there could be under which nothing is looked at more closely, and that of recordings of
under LONG frames: of 375 copies that `verify` accepted the least had 0.29 and 0.39. It asks for 0.25 and 0.35 of what
it weighs in all frames, along the best path."""
LEAST_SHORT: Final = 0.28

Floats = npt.NDArray[np.float64]
_HIGH: Final = np.uint64(32)
"""From a pair of words to the second, on the little-endian machines that this runs on."""


@dataclass(frozen=True, slots=True)
class Places:
    """Of each place, int64 [n]: the recording's slot, a frame of it, and the query's half frame that sounds alike."""

    slots: Ints
    frames: Ints
    at: Ints

    def __len__(self) -> int:
        return len(self.slots)

    def __getitem__(self, which: Ints | npt.NDArray[np.bool_]) -> Places:
        return Places(self.slots[which], self.frames[which], self.at[which])

    def once(self) -> Places:
        """Of those with one slot and one shift the first, 65,536 places at most; in order of slots."""
        shift = self.at - 2 * self.frames + (1 << 15)
        order = np.sort((self.slots << 32) + (shift << 16) + np.arange(len(self)))
        return self[order[np.diff(order >> 16, prepend=-1) != 0] & 0xFFFF]


@dataclass(frozen=True, slots=True)
class Asked:
    """A query's likely bits by half frame, uint64 [2 T + 2] as `Store.pairs` has them: bits, and which of them it is
    sure of. One before and one after stand for all that is outside."""

    pairs: npt.NDArray[np.uint64]

    @classmethod
    def of(cls, query: Fingerprint) -> Asked:
        odds = query.odds
        words = np.zeros((len(odds) + 2, 2), np.uint32)
        words[1:-1, 0] = packed(odds > 0)
        words[1:-1, 1] = packed(np.abs(odds) > SURE)
        return cls(words.view(np.uint64)[:, 0])


def ranked(
    store: Store, query: Fingerprint, places: Places, limit: int, hopeless: bool = False
) -> list[tuple[int, float]]:
    """At most `limit` recordings that may be the source, `hopeless` ones only if asked for: slot, and the share of all
    possible evidence that a part of it gives, most first; 1 for an identical copy, about 0 for another recording."""
    asked = Asked.of(query)
    if len(places) > FINE:
        near = _apart(store, asked, places, places.frames + ABOUT[:, None])
        places = places[np.argpartition(near, FINE)[:FINE]]
    paces = np.repeat(PACES if len(query) > LONG else PACES[:1], len(places))
    places = places[np.arange(len(paces)) % max(1, len(places))]
    far = _apart(store, asked, places, _spread(store, places, SPREAD), paces)
    nearest = _nearest_of_each(places, far, CLOSE)
    nearest = nearest[far[nearest] <= UNLIKE]
    if not len(nearest):
        return []
    places, paces = places[nearest], paces[nearest]
    places = _nudged(store, asked, places, paces)
    shares = _evidence(store, query, places, paces)
    least = np.where(store.length.array[places.slots] < LONG, LEAST_SHORT, LEAST)
    best = [n for n in np.argsort(-shares, kind="stable") if hopeless or shares[n] >= least[n]]
    return [(int(places.slots[n]), float(shares[n])) for n in best[:limit]]


def _nearest_of_each(places: Places, far: Floats, limit: int) -> Ints:
    """The nearest place of each of the `limit` nearest recordings, nearest first."""
    first: dict[int, int] = {}
    order = np.argsort(far, kind="stable")
    for place, slot in zip(order.tolist(), places.slots[order].tolist(), strict=True):
        if len(first) == limit:
            break
        first.setdefault(slot, place)
    return np.array(list(first.values()), np.int64)


def _nudged(store: Store, asked: Asked, places: Places, paces: Floats) -> Places:
    """Each place where it is nearest when moved by one of NUDGES."""
    ways = len(NUDGES)
    moved = Places(np.tile(places.slots, ways), np.tile(places.frames, ways), np.add.outer(NUDGES, places.at).ravel())
    far = _apart(store, asked, moved, _spread(store, moved, SPREAD), np.tile(paces, ways))
    best = far.reshape(ways, len(places)).argmin(axis=0)
    return Places(places.slots, places.frames, places.at + NUDGES[best])


def _spread(store: Store, places: Places, count: int) -> Ints:
    """`count` frames over the whole of each recording: int64 [count, n]."""
    return np.asarray((2 * np.arange(count)[:, None] + 1) * store.length.array[places.slots] // (2 * count))


def _heard(places: Places, frames: Ints, paces: Floats | None) -> Ints:
    """The query's half frames that are to sound like `frames`, int64 [frames, n]."""
    since = 2 * (frames - places.frames)
    return places.at + (since if paces is None else np.rint(paces * since).astype(np.int64))


def _apart(store: Store, asked: Asked, places: Places, frames: Ints, paces: Floats | None = None) -> Floats:
    """How far the query is from `frames`, int64 [frames, n], of stored recordings, by the bits that these trust:
    float64 [n], 0 same, 0.5 not. What the query does not cover, or is not sure of, counts half. Without `paces`
    silence is not told from speech."""
    frames = np.minimum(np.maximum(frames, 0), store.length.array[places.slots] - np.int64(1))
    at = frames + store.start.array[places.slots]
    heard = asked.pairs.take(_heard(places, frames, paces) + 1, mode="clip")
    stored = store.pairs.take(at)
    trusted = stored >> _HIGH
    if paces is not None:
        trusted *= store.level.array.take(at) > 0
    known = (heard >> _HIGH) & trusted
    wrong = np.bitwise_count((stored ^ heard) & known).sum(axis=0, dtype=np.int32)
    weigh = np.bitwise_count(trusted).sum(axis=0, dtype=np.int32)
    unknown = weigh - np.bitwise_count(known).sum(axis=0, dtype=np.int32)
    return np.asarray((2 * wrong + unknown) / np.maximum(1, 2 * weigh))


def _evidence(store: Store, query: Fingerprint, places: Places, paces: Floats) -> Floats:
    """`models.evidence.Path.confirmed`, of some frames of each place."""
    assert query.heard is not None
    frames = _spread(store, places, WEIGHED)
    at = frames + store.start.array[places.slots]
    stored = store.pairs.take(at)
    trusted = (stored >> _HIGH) * (store.level.array.take(at) > 0)
    possible = np.float32(COIN) * np.bitwise_count(trusted).sum(axis=0, dtype=np.int32)
    heard = _heard(places, frames, paces)
    inside = np.minimum(np.maximum(heard, 0), len(query.heard.half) - 1)
    trusted *= inside == heard
    kept = unpacked(trusted.astype(np.uint32).ravel())
    agrees = np.where(unpacked(stored.astype(np.uint32).ravel()), kept.view(np.int8), -kept.view(np.int8))
    half, coin = query.heard.half[inside.ravel()], query.heard.coin[inside.ravel()]
    gain = np.einsum("fb,fb->f", half, agrees.astype(np.float32)) - np.einsum("fb,fb->f", coin, kept.astype(np.float32))
    gain += np.float32(COIN) * np.bitwise_count(trusted).ravel()
    return np.asarray(gain.reshape(frames.shape).sum(axis=0) / np.maximum(possible, np.float32(COIN)))
