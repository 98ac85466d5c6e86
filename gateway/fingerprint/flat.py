"""The other way to candidates: slide a sketch of the query over every frame stored; nothing escapes, while few are.

A sketch is some frames of the query, spread over its speech, in their places. Cost grows with the seconds stored, so
`index` uses this up to two hours of sound and keys beyond.
"""

from __future__ import annotations

from typing import Final

import numpy as np
import numpy.typing as npt

from gateway.fingerprint.bits import Fingerprint
from models.signs import Words

SKETCH: Final = 12
"""Frames of a sketch."""
_BLOCK: Final = 16_384
"""Places judged at a time: what fits a core's cache."""


class FlatTable:
    """All stored frames in one row, and where each recording begins."""

    def __init__(self) -> None:
        self._bits = np.zeros(4096, np.uint32)
        self._starts: list[int] = []
        self._slots: list[int] = []
        self.frames = 0

    @property
    def memory(self) -> int:
        return self._bits.nbytes + 16 * len(self._starts)

    def add(self, slot: int, bits: Words) -> None:
        end = self.frames + len(bits)
        if end > len(self._bits):
            grown = np.zeros(max(end, 2 * len(self._bits)), np.uint32)
            grown[: self.frames] = self._bits[: self.frames]
            self._bits = grown
        self._bits[self.frames : end] = bits
        self._starts.append(self.frames)
        self._slots.append(slot)
        self.frames = end

    def nearest(self, query: Fingerprint, limit: int) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.float64]]:
        """Slots of the recordings nearest to a sketch of `query`, best first, and their distances 0..1."""
        if not self._starts:
            return np.zeros(0, np.int64), np.zeros(0)
        at = _sketch_frames(query)
        relative = at - at[0]
        weight = int(np.bitwise_count(query.mask[at]).sum())
        row = np.concatenate([self._bits[: self.frames], np.zeros(int(relative[-1]), np.uint32)])
        differ = np.zeros(self.frames, np.uint16)
        for start in range(0, self.frames, _BLOCK):
            end = min(start + _BLOCK, self.frames)
            for frame, ahead in zip(at, relative, strict=True):
                part = row[start + ahead : end + ahead] ^ query.bits[frame]
                differ[start:end] += np.bitwise_count(part & query.mask[frame])
        least = np.minimum.reduceat(differ, self._starts)
        best = np.argsort(least, kind="stable")[:limit]
        return np.array(self._slots, np.int64)[best], least[best] / max(weight, 1)


def _sketch_frames(query: Fingerprint) -> npt.NDArray[np.int64]:
    """Frames spread over the loud part of the query, at least three apart where there is room."""
    loud = np.flatnonzero(query.loud)
    if len(loud) < SKETCH:
        loud = np.flatnonzero(query.active)
    picks = np.linspace(0, len(loud) - 1, min(SKETCH, len(loud))).round().astype(np.int64)
    return np.asarray(loud[picks], dtype=np.int64)
