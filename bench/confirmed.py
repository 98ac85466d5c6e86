"""The most of its evidence that any path could confirm of each stored recording: what `align` finds is never more.

`models.evidence.align` looks for the best straight path by some frames and refines it. Here all frames are added up
along every path that it may end with, in compiled code, at some microseconds a recording: so what stays under a limit
here stays under it there. Evidence of a frame is looked up by four bits and their mask at a time.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

import numpy as np
import numpy.typing as npt
from numba import njit

from gateway.fingerprint.bits import Fingerprint
from models.evidence import COIN, FEW_PACES, PACES, SHORT, SLACK, Heard
from models.utterance import Samples

ROUNDING: Final = 1e-3
"""What sums in another order may differ by."""
REFINED: Final = 3
"""Half frames by which `align` moves what it found by some frames."""


class Confirmed:
    """Stored recordings, packed for the compiled code."""

    def __init__(self, stored: Sequence[Fingerprint]) -> None:
        at = [np.flatnonzero(fp.active) for fp in stored]
        self._at = np.concatenate(at)
        self._bits = np.concatenate([fp.bits[a] for fp, a in zip(stored, at, strict=True)])
        self._masks = np.concatenate([fp.mask[a] for fp, a in zip(stored, at, strict=True)])
        self._starts = np.cumsum([0] + [len(a) for a in at])
        self._frames = np.array([len(fp) for fp in stored], np.int64)

    def at_most(self, heard: Heard, places: npt.NDArray[np.int64]) -> npt.NDArray[np.float64]:
        """An upper bound of `Path.confirmed` of each of `places` under `heard`: float64 [places]."""
        table = _table(np.ascontiguousarray(0.5 * heard.log_odds, np.float32))
        slack = SLACK + self._frames // 5
        high = 2 * (np.maximum(0, len(heard) - self._frames) + slack)
        bounds = np.stack([-2 * slack - REFINED, high + REFINED + 1], axis=1)
        paces = np.array(FEW_PACES), np.array(PACES), SHORT
        found = np.zeros(len(places))
        _most(table, self._at, self._bits, self._masks, self._starts, self._frames, bounds, *paces, places, found)
        return found + ROUNDING


def _table(half: Samples) -> Samples:
    """Evidence of four bits and their mask, float32 [8, 256, half frames]; the index is mask << 4 | bits."""
    coin = np.logaddexp(half, -half)
    table = np.zeros((8, 256, len(half)), np.float32)
    index = np.arange(256)
    for group in range(8):
        for bit in range(4):
            column = 4 * group + bit
            kept, set_ = index >> (4 + bit) & 1 == 1, index >> bit & 1 == 1
            sure = (np.float32(COIN) - coin[:, column])[None]
            table[group, kept & set_] += sure + half[None, :, column]
            table[group, kept & ~set_] += sure - half[None, :, column]
    return table


@njit(cache=True, nogil=True, fastmath=True)
def _most(  # type: ignore[no-untyped-def]
    table, at, bits, masks, starts, frames, bounds, few, many, short, places, found
):
    """Sets found[k] for each recording places[k]."""
    length = table.shape[2]
    here = np.zeros(length, np.float32)
    totals = np.zeros((len(many), int(np.max(bounds[:, 1] - bounds[:, 0]))), np.float32)
    for k in range(len(places)):
        i = places[k]
        paces = few if frames[i] <= short else many
        low, high = bounds[i]
        totals[: len(paces), : high - low] = 0.0
        weight = 0
        for a in range(starts[i], starts[i + 1]):
            here[:] = 0.0
            for group in range(8):
                kept = (masks[a] >> np.uint32(4 * group)) & np.uint32(15)
                if kept:
                    row = table[group, (kept << np.uint32(4)) | ((bits[a] >> np.uint32(4 * group)) & np.uint32(15))]
                    for h in range(length):
                        here[h] += row[h]
                    for bit in range(4):
                        weight += (kept >> np.uint32(bit)) & np.uint32(1)
            for p in range(len(paces)):
                place = int(np.rint(2 * paces[p] * at[a]))
                first, last = max(low, -place), min(high, length - place)
                if last > first:
                    into, part = totals[p, first - low : last - low], here[first + place : last + place]
                    for s in range(last - first):
                        into[s] += part[s]
        best = 0.0
        for p in range(len(paces)):
            for s in range(high - low):
                best = max(best, totals[p, s])
        found[k] = best / max(0.6931471805599453 * weight, 0.6931471805599453)
