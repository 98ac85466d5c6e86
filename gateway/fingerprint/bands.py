"""Band keys and the tables that find them: which recordings share a short patch of exact bits with this one.

A band key is 16 neighbouring bits of one frame and of the frame 96 ms later. A noisy copy keeps some of them whole in
the moments when speech is louder than the noise, and one is enough to be looked at. After Haitsma & Kalker's lookup of
exact 32-bit words, with two instants in a word because neighbouring bands of one instant mostly say the same.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

import numpy as np
import numpy.typing as npt

from gateway.fingerprint.bits import Fingerprint, Words

Postings = npt.NDArray[np.uint64]

BAND_SHIFTS: Final = (0, 8)
"""First bit of each band: low ones carry most voiced speech, the middle ones what a low rumble leaves."""
BAND_BITS: Final = 16
BAND_GAP: Final = 6
"""Frames between the two halves of a key: 96 ms, where the windows of 128 ms hardly overlap."""
COMMON: Final = 64
"""A key that more places share than this says nothing (a hum, a breath), and is passed over."""
_BUFFER: Final = 4096
_FRAME_BITS: Final = np.uint64(16)


def band_keys(bits: Words, active: npt.NDArray[np.bool_], shift: int) -> tuple[Words, npt.NDArray[np.int64]]:
    """Keys of one band and the frames they start at, where speech is active: uint32 [n], int64 [n]."""
    places = max(0, len(bits) - BAND_GAP)
    part = (bits >> np.uint32(shift)) & np.uint32((1 << BAND_BITS) - 1)
    frames = np.flatnonzero(active[:places] & active[BAND_GAP : BAND_GAP + places])
    return part[frames] | (part[frames + BAND_GAP] << np.uint32(BAND_BITS)), frames


def probe_keys(query: Fingerprint, shift: int) -> tuple[Words, npt.NDArray[np.int64]]:
    """`band_keys` of a query, on both its frame grids."""
    keys, frames = band_keys(query.bits, query.active, shift)
    if query.between is None:
        return keys, frames
    more, at = band_keys(query.between[0], query.active, shift)
    return np.concatenate([keys, more]), np.concatenate([frames, at])


class BandTable:
    """key -> (slot, frame) for one band: sorted runs of doubling size, 12 bytes a key, where a dict takes over 100.

    New keys wait in a small unsorted buffer; a full one becomes a run, and runs of like size merge, so that an insert
    costs a few microseconds on average and a lookup a binary search a run.
    """

    def __init__(self) -> None:
        self._runs: list[tuple[Words, Postings]] = []
        self._buffer: list[tuple[Words, Postings]] = []
        self._buffered = 0

    def __len__(self) -> int:
        return self._buffered + sum(len(keys) for keys, _ in self._runs)

    @property
    def memory(self) -> int:
        return 12 * len(self)

    def add(self, keys: Words, slot: int, frames: npt.NDArray[np.int64]) -> None:
        postings = (np.uint64(slot) << _FRAME_BITS) | frames.astype(np.uint64)
        self._buffer.append((keys, postings))
        self._buffered += len(keys)
        if self._buffered >= _BUFFER:
            self._flush()

    def find(self, probes: Words) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64], npt.NDArray[np.int64]]:
        """Who shares a key with `probes`: index of the probe, slot and frame, int64 [hits] each."""
        which: list[npt.NDArray[np.int64]] = []
        found: list[Postings] = []
        if self._buffer:
            # An eighth-full buffer is cheaper to sort once, on the next look, than to search unsorted at each.
            self._buffer = [_sorted(self._buffer)]
        for keys, postings in [*self._runs, *self._buffer]:
            left = np.searchsorted(keys, probes, "left")
            count = np.searchsorted(keys, probes, "right") - left
            count[count > COMMON] = 0
            if not count.any():
                continue
            hit = np.repeat(np.arange(len(probes)), count)
            within = np.arange(len(hit)) - np.repeat(np.cumsum(count) - count, count)
            which.append(hit)
            found.append(postings[np.repeat(left, count) + within])
        if not found:
            none = np.zeros(0, np.int64)
            return none, none, none
        posting = np.concatenate(found)
        frames = posting & np.uint64(0xFFFF)
        return np.concatenate(which), (posting >> _FRAME_BITS).astype(np.int64), frames.astype(np.int64)

    def keep(self, alive: Callable[[npt.NDArray[np.int64]], npt.NDArray[np.bool_]]) -> None:
        """Drop what belongs to slots that are no more: `alive` maps slots, int64 [n], to bool [n]."""
        self._flush()
        kept = []
        for keys, postings in self._runs:
            stays = alive((postings >> _FRAME_BITS).astype(np.int64))
            kept.append((keys[stays], postings[stays]))
        self._runs = kept

    def _flush(self) -> None:
        if not self._buffer:
            return
        self._runs.append(_sorted(self._buffer))
        self._buffer, self._buffered = [], 0
        while len(self._runs) > 1 and len(self._runs[-2][0]) < 2 * len(self._runs[-1][0]):
            last = self._runs.pop()
            self._runs[-1] = _sorted([self._runs[-1], last])


def _sorted(parts: list[tuple[Words, Postings]]) -> tuple[Words, Postings]:
    keys = np.concatenate([keys for keys, _ in parts])
    order = np.argsort(keys, kind="stable")
    return keys[order], np.concatenate([postings for _, postings in parts])[order]
