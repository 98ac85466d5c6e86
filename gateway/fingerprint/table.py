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


class KeyTable:
    """Keys of slots. `alive` (bool [slots], of the owner) says which slots count. Not safe for several threads."""

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

    def add(self, hashes: Hashes, slots: Ints, frames: Ints, alive: npt.NDArray[np.bool_]) -> None:
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
        rows = self._rows.array[self._row_of(hashes)]
        which, place = np.nonzero(((rows & _TAG) == (hashes & _TAG)[:, None]) & (rows != _NONE))
        found = rows[which, place] >> _TAG_BITS
        slots = (found >> _FRAME_BITS).astype(np.int64) - 1
        return which, slots, (found & np.uint64((1 << 11) - 1)).astype(np.int64)

    def start_walk(self, growth: float = 0.0) -> None:
        """Grow by `growth`, or with 0 only sweep out what was removed."""
        self._next = self._length + int(self._length * growth)
        self._frontier = self._length
        self._rows.reserve(self._next)
        self._sieve_next = Sieve(int(self._next * FULL * (1 + GROWTH)))

    def walk(self, rows: int, alive: npt.NDArray[np.bool_]) -> None:
        """Move the next `rows` rows, the last ones first."""
        if self._sieve_next is None:
            return
        end, start = self._frontier, max(0, self._frontier - rows)
        row, place = np.nonzero(self._rows.array[start:end])
        entries = self._rows.array[start:end][row, place]
        hashes = self._hash_of(row + start, entries)
        slots = (entries >> (_TAG_BITS + _FRAME_BITS)).astype(np.int64) - 1
        stays = alive[slots]
        self._rows.array[start:end] = _NONE
        self._frontier = start
        self._sieve_next.add(hashes[stays])
        self.count -= len(entries) - self._put(self._row_of(hashes[stays]), entries[stays], alive)
        if start == 0:
            self._length, self._sieve, self._sieve_next = self._next, self._sieve_next, None
            self.walks += 1

    def _put(self, rows: Ints, entries: Hashes, alive: npt.NDArray[np.bool_]) -> int:
        """Write entries into places of their rows that are empty or a removed recording's, but where too many have the
        same key; by how many the table holds more."""
        if not len(rows):
            return 0
        held = self._rows.array[rows]
        empty = held == _NONE
        free = empty | ~alive[(held >> (_TAG_BITS + _FRAME_BITS)).astype(np.int64) - 1]
        same = np.count_nonzero(~free & ((held & _TAG) == (entries & _TAG)[:, None]), axis=1)
        rare = np.flatnonzero(same < SAME)
        order = rare[np.argsort(rows[rare], kind="stable")]
        rows, entries, free, empty = rows[order], entries[order], free[order], empty[order]
        first = np.flatnonzero(np.diff(rows, prepend=-1))
        rank = np.arange(len(rows)) - np.repeat(first, np.diff(first, append=len(rows)))
        # The place of the entry is the free one that has `rank` free ones before it.
        nth = np.cumsum(free, axis=1, dtype=np.uint8) == np.minimum(rank + 1, 255)[:, None].astype(np.uint8)
        nth &= free
        place = np.argmax(nth, axis=1)
        number = np.arange(len(rows))
        fits = nth[number, place]
        self._rows.array[rows[fits], place[fits]] = entries[fits]
        return int(np.count_nonzero(empty[number, place] & fits))

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
