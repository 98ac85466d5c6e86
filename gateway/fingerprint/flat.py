"""The other way to candidates: slide a sketch of the query over every frame stored; nothing escapes, while few are.

A sketch is some frames of the query, in their places: of each the bits that the undistorted recording is surest to
have there, by what is heard (`models.recall`). Cost grows with the seconds stored, so `index` uses this up to two hours
of sound and keys beyond.
"""

from __future__ import annotations

from typing import Final

import numpy as np
import numpy.typing as npt

from gateway.fingerprint.bits import Fingerprint
from models.signs import Words, packed

SKETCH: Final = 12
"""Frames of a sketch."""
BITS: Final = 20
"""Bits of each that count: the surest of 32."""
LONG: Final = 72
"""Frames of speech (1.2 s) from which a sketch is spread over all of it: what plays a little faster or slower is found
by short sketches, what is distorted by long ones, and words by their best frames."""
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
        at, bits, mask = sketch(query)
        relative = at - at[0]
        weight = int(np.bitwise_count(mask).sum())
        row = np.concatenate([self._bits[: self.frames], np.zeros(int(relative[-1]), np.uint32)])
        differ = np.zeros(self.frames, np.uint16)
        for start in range(0, self.frames, _BLOCK):
            end = min(start + _BLOCK, self.frames)
            for ahead, wanted, counts in zip(relative, bits, mask, strict=True):
                part = row[start + ahead : end + ahead] ^ wanted
                differ[start:end] += np.bitwise_count(part & counts)
        least = np.minimum.reduceat(differ, self._starts)
        best = np.argsort(least, kind="stable")[:limit]
        return np.array(self._slots, np.int64)[best], least[best] / max(weight, 1)


def sketch(query: Fingerprint) -> tuple[npt.NDArray[np.int64], Words, Words]:
    """Frames of a query that `listen` made, the bits that they are likely to have in the undistorted recording, and
    which of these count."""
    odds = query.odds[::2]
    size = np.abs(odds)
    surest = size >= np.partition(size, -BITS, axis=1)[:, -BITS, None]
    chance = 1 / (1 + np.exp(-size))
    # What a frame tells: bits, less the entropy of their odds, where there is speech at all.
    known = np.where(surest, 1 + chance * np.log2(chance) + (1 - chance) * np.log2(np.maximum(1 - chance, 1e-9)), 0.0)
    speaks = query.heard.speech[:, 0] if query.heard is not None else query.active.astype(np.float32)
    tells = known.sum(axis=1) * speaks
    spoken = np.flatnonzero(speaks > 0.5)
    if len(spoken) < SKETCH:
        spoken = np.sort(np.argsort(-speaks, kind="stable")[:SKETCH])
    if len(spoken) < LONG:
        at = np.sort(spoken[np.argsort(-tells[spoken], kind="stable")[:SKETCH]])
    else:
        at = np.array([part[tells[part].argmax()] for part in np.array_split(spoken, SKETCH)])
    return at, packed(odds[at] > 0), packed(surest[at])
