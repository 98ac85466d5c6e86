"""A Bloom filter of many keys at a time: does anything stored have this key? "No" is certain, "yes" nearly.

One cache line a key, and one bit in each of its eight words (a blocked Bloom filter: Putze, Sanders & Singler 2007), so
that a look costs one access to memory where the classic one costs one for every hash function. All in whole arrays:
pybloom-live takes microseconds a key, which is milliseconds for the hundreds of keys of a query.
"""

from __future__ import annotations

from typing import Final

import numpy as np
import numpy.typing as npt

from gateway.fingerprint.rows import Rows

BITS_A_KEY: Final = 24
"""Wrong for about one key in 10,000 when full."""
_WORDS: Final = 8
_FIRST: Final = np.uint64(0xC2B2AE3D27D4EB4F)
_SECOND: Final = np.uint64(0x165667B19E3779F9)
_SHIFTS: Final = np.arange(_WORDS, dtype=np.uint64) * np.uint64(6) + np.uint64(16)
_SIX: Final = np.uint64(63)


class Sieve:
    """For `capacity` keys; more are taken, and make it say yes more often."""

    def __init__(self, capacity: int) -> None:
        self.blocks = max(1, capacity * BITS_A_KEY // (64 * _WORDS) + 1)
        self._rows = Rows(np.uint64, _WORDS, self.blocks)

    @property
    def memory(self) -> int:
        return 8 * _WORDS * self.blocks

    def add(self, hashes: npt.NDArray[np.uint64]) -> None:
        blocks, bits = self._places(hashes)
        rows = self._rows.array
        while len(blocks):
            rows[blocks] = rows.take(blocks, axis=0) | bits
            # Of two keys for one block in one call the last wins: those that lost go again, a few times at most.
            lost = np.flatnonzero(((rows.take(blocks, axis=0) & bits) != bits).view(np.uint64))
            blocks, bits = blocks[lost], bits[lost]
            if len(blocks) > 64:
                order = np.argsort(blocks)
                first = np.flatnonzero(np.diff(blocks[order], prepend=-1))
                blocks, bits = blocks[order[first]], np.bitwise_or.reduceat(bits[order], first, axis=0)

    def has(self, hashes: npt.NDArray[np.uint64]) -> npt.NDArray[np.bool_]:
        """Whether each may have been added: bool [n]."""
        block, mixed = self._blocks(hashes)
        # One of the eight words turns seven strangers of ten away: the others are looked at for what is left.
        first = np.uint64(1) << ((mixed >> _SHIFTS[0]) & _SIX)
        found = (self._rows.array.reshape(-1).take(block * _WORDS) & first) != 0
        left = np.flatnonzero(found)
        bits = np.uint64(1) << ((mixed[left, None] >> _SHIFTS) & _SIX)
        found[left] = ((self._rows.array.take(block[left], axis=0) & bits) == bits).all(axis=1)
        return np.asarray(found)

    def _places(self, hashes: npt.NDArray[np.uint64]) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.uint64]]:
        block, mixed = self._blocks(hashes)
        return block, np.uint64(1) << ((mixed[:, None] >> _SHIFTS) & _SIX)

    def _blocks(self, hashes: npt.NDArray[np.uint64]) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.uint64]]:
        """The block of each, and a number of which six bits at a time say which bit of each word."""
        mixed = hashes * _FIRST
        mixed ^= mixed >> np.uint64(31)
        block = ((mixed >> np.uint64(32)) * np.uint64(self.blocks)) >> np.uint64(32)
        return block.astype(np.int64), mixed * _SECOND
