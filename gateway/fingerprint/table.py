"""The table of keys: hash -> (slot, frame), thirteen to eighteen bytes a key, that grows without stopping the world.

Rows of sixteen places, in order of the hash, so that a row's number says most of the hash and a place holds the rest.
To grow by two fifths, rows move towards the end, last first and a few with every insert; those not moved yet are found
by the old length, the others by the new one. The same walk leaves behind what was removed and writes the next
generation of the Bloom filter, which thereby forgets.
"""

from __future__ import annotations

from typing import Final

import numpy as np
import numpy.typing as npt

from gateway.fingerprint.keys import HASH_BITS, Hashes, Ints
from gateway.fingerprint.rows import Rows
from gateway.fingerprint.sieve import Sieve

PLACES: Final = 16
"""Keys of one row: two cache lines, read together."""
FULL: Final = 10.0
"""Keys a row, on average, at which the table grows. One in forty finds its row full and is left out."""
SAME: Final = 8
"""Of one key that are kept, about: what more recordings share finds none of them, and would push rarer keys out."""
GROWTH: Final = 0.4
FIRST_ROWS: Final = 8192
"""So few that what a place holds (29 bits) still completes the hash."""
MAX_SLOTS: Final = 1 << 24
_FRAME_BITS: Final = np.uint64(11)
_SLOT_BITS: Final = np.uint64(24)
_TAG_BITS: Final = np.uint64(29)
_TAG: Final = np.uint64((1 << 29) - 1)
_LOW: Final = np.uint64(HASH_BITS - 32)
_NONE: Final = np.uint64(0)
Alive = npt.NDArray[np.bool_]


class KeyTable:
    """Keys of slots. `alive` (bool [slots], of the owner) says which slots count, None that all do, which is faster.
    Not safe for several threads."""

    def __init__(self, capacity: int = 0) -> None:
        self.count = 0
        """Keys held, those of removed slots among them until the walk has met them."""
        self.walks = 0
        """How often the table has been walked through: grown, or swept."""
        self._length = max(FIRST_ROWS, int(capacity / FULL * 1.1))
        self._next = self._length
        self._frontier = 0
        """While walking: rows from here on have moved to where `_next` wants them."""
        self._rows = Rows(np.uint64, PLACES, self._length)
        self._sieve = Sieve(int(self._length * FULL * (1 + GROWTH)))
        self._sieve_next: Sieve | None = None

    @property
    def memory(self) -> int:
        """Bytes in use when every row has been written."""
        filters = self._sieve.memory + (self._sieve_next.memory if self._sieve_next is not None else 0)
        return 8 * PLACES * self._next + filters

    @property
    def walking(self) -> bool:
        return self._sieve_next is not None

    def has(self, hashes: Hashes) -> npt.NDArray[np.bool_]:
        """What the Bloom filter says: False is certain."""
        return self._sieve.has(hashes)

    def add(self, hashes: Hashes, slots: Ints, frames: Ints, alive: Alive | None) -> None:
        self._sieve.add(hashes)
        if self._sieve_next is not None:
            self._sieve_next.add(hashes)
        places = (slots.astype(np.uint64) + np.uint64(1)) << _FRAME_BITS | frames.astype(np.uint64)
        self.count += self._put(self._row_of(hashes), places << _TAG_BITS | (hashes & _TAG), alive)
        if self.count > FULL * self._length and not self.walking:
            self.start_walk(GROWTH)
        if self.walking:
            # Fast enough to be through before a third of the room that is being made is filled.
            self.walk(1 + int(len(hashes) * 3 / (GROWTH * FULL)), alive)

    def find(self, hashes: Hashes) -> tuple[Ints, Ints, Ints]:
        """Who has these keys: index of the hash, slot, frame, int64 [hits] each; removed slots among them."""
        rows = self._rows.array.take(self._row_of(hashes), axis=0)
        which, place = np.nonzero((rows & _TAG) == (hashes & _TAG)[:, None])
        found = rows[which, place]
        if not found.all():  # an empty place looks like a key that ends in nothing but zeros
            which, found = which[found != _NONE], found[found != _NONE]
        found >>= _TAG_BITS
        slots = (found >> _FRAME_BITS).astype(np.int64) - 1
        return which, slots, (found & np.uint64((1 << 11) - 1)).astype(np.int64)

    def start_walk(self, growth: float = 0.0) -> None:
        """Grow by `growth`, or with 0 only sweep out what was removed."""
        self._next = self._length + int(self._length * growth)
        self._frontier = self._length
        self._rows.reserve(self._next)
        self._sieve_next = Sieve(int(self._next * FULL * (1 + GROWTH)))

    def walk(self, rows: int, alive: Alive | None) -> None:
        """Move the next `rows` rows, the last ones first."""
        if self._sieve_next is None:
            return
        end, start = self._frontier, max(0, self._frontier - rows)
        row, place = np.nonzero(self._rows.array[start:end])
        entries = self._rows.array[start:end][row, place]
        hashes = self._hash_of(row + start, entries)
        found = len(entries)
        if alive is not None:
            stays = alive[(entries >> (_TAG_BITS + _FRAME_BITS)).astype(np.int64) - 1]
            hashes, entries = hashes[stays], entries[stays]
        self._rows.array[start:end] = _NONE
        self._frontier = start
        self._sieve_next.add(hashes)
        self.count -= found - self._put(self._row_of(hashes), entries, alive)
        if start == 0:
            self._length, self._sieve, self._sieve_next = self._next, self._sieve_next, None
            self.walks += 1

    def _put(self, rows: Ints, entries: Hashes, alive: Alive | None) -> int:
        """Write entries into places of their rows that are empty or a removed recording's, but where too many have the
        same key; by how many the table holds more."""
        if not len(rows):
            return 0
        order = np.argsort(rows, kind="stable")
        rows, entries = rows[order], entries[order]
        held = self._rows.array.take(rows, axis=0)
        same = (held & _TAG) == (entries & _TAG)[:, None]
        free = held == _NONE
        if alive is not None:
            free |= ~alive[(held >> (_TAG_BITS + _FRAME_BITS)).astype(np.int64) - 1]
            same &= ~free
        rare = np.flatnonzero(_how_many(same) < SAME)
        if len(rare) < len(rows):
            rows, entries, held, free = rows[rare], entries[rare], held[rare], free[rare]
        if not len(rows):
            return 0
        first = np.flatnonzero(np.diff(rows, prepend=-1))
        rank = np.arange(len(rows)) - np.repeat(first, np.diff(first, append=len(rows)))
        room = _how_many(free)
        fits = np.flatnonzero(rank < room)
        if alive is None:  # a row fills up from its start
            place = PLACES - room[fits] + rank[fits]
            taken = len(fits)
        else:  # the free one that has `rank` free ones before it
            place = (np.cumsum(free[fits], axis=1, dtype=np.uint8) > rank[fits, None].astype(np.uint8)).argmax(axis=1)
            taken = int(np.count_nonzero(held[fits, place] == _NONE))
        self._rows.array[rows[fits], place] = entries[fits]
        return taken

    def _row_of(self, hashes: Hashes) -> Ints:
        high = hashes >> _LOW
        rows = (high * np.uint64(self._length)) >> np.uint64(32)
        if self.walking:
            moved = (high * np.uint64(self._next)) >> np.uint64(32)
            rows = np.where(rows >= np.uint64(self._frontier), moved, rows)
        return rows.astype(np.int64)

    def _hash_of(self, rows: Ints, entries: Hashes) -> Hashes:
        """The whole hash of entries in rows of the old length: the one in the row's range that ends in the tag."""
        length = np.uint64(self._length)
        lowest = ((rows.astype(np.uint64) << np.uint64(32)) + length - np.uint64(1)) // length << _LOW
        return np.asarray(lowest + (((entries & _TAG) - lowest) & _TAG))


def _how_many(flags: npt.NDArray[np.bool_]) -> Ints:
    """Of each row's sixteen how many are set. `count_nonzero` takes six times as long."""
    eight = np.bitwise_count(flags.view(np.uint64))
    return (eight[:, 0] + eight[:, 1]).astype(np.int64)
