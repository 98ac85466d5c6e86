"""Is this the recording heard before? The last word on a candidate: global distance, worst window, coverage both ways.

One distance over the whole utterance cannot tell "turn it on" from "turn it off", so a quarter of a second in which two
recordings disagree is enough to refuse, and speech of either that the other does not have is too.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import numpy as np
import numpy.typing as npt

from gateway.fingerprint.bits import Fingerprint, Words
from gateway.fingerprint.mel import HOP_S

Counts = npt.NDArray[np.int64]

WINDOW: Final = 15
"""Frames of the worst-window test: 240 ms, shorter than a one-syllable word and longer than one noisy phone."""
WINDOW_STRONG: Final = 8
"""Strong stored frames without which a window says nothing: in its weak frames noise and another word look alike."""
SLACK: Final = 12
"""Frames that an alignment may go beyond what coverage allows."""
HOPELESS: Final = 0.4
"""A distance that half a frame of shift does not bring under MAX_GLOBAL."""
STORED_COVERAGE: Final = 0.80
"""Least share of the stored active frames that must lie inside the query."""
QUERY_COVERAGE: Final = 0.85
"""Least share of the query's loud frames inside the stored recording ("yes" is not "yes that is right")."""
WINDOW_LOUD: Final = 5
"""Loud query frames without which a window of the query says nothing: fewer are a click."""

# Thresholds: development data only (docs/recall.md, "Where the thresholds come from"), then frozen.
MAX_WORST: Final = 0.155
"""Of the stored recording's worst window: just under the nearest one-word swap of the first half of the speakers."""
MAX_QUERY_WORST: Final = 0.4
"""Of the query's: speech that the stored recording does not have differs by a half, speech under noise by less."""
MAX_GLOBAL: Final = 0.39
EVIDENCE: Final = 2.0
"""Taken off MAX_GLOBAL, over the root of how often stored bits change: one vowel agrees with others by chance."""


@dataclass(frozen=True, slots=True)
class Verdict:
    """Why a candidate was taken for the same recording, or not."""

    accepted: bool
    distance: float
    """Share of the stored trusted bits that differ: 0 same, near 0.5 unrelated. Uncovered ones count half."""
    worst: float
    """The same over the strong frames of the worst 240 ms."""
    query_worst: float
    """Share of the query's trusted bits that differ, over its loud frames, in its worst 240 ms."""
    stored_coverage: float
    query_coverage: float
    offset_s: float
    """Seconds by which the query has the same sound later than the stored recording does."""
    similarity: float
    """1 - 2 * distance, 0..1: 1 is an identical copy, 0 what unrelated speech has."""
    reason: str
    """"same", or the first test that failed."""


REFUSED: Final = Verdict(False, 0.5, 0.5, 0.5, 0.0, 0.0, 0.0, 0.0, "no overlap")


def verify(query: Fingerprint, stored: Fingerprint, min_similarity: float | None = None) -> Verdict:
    """Judge `stored` as the source of `query`. `min_similarity` (0..1) may only tighten what the thresholds allow."""
    active = stored.active
    trusted = np.where(active, stored.mask, np.uint32(0))
    shifts = _shifts(len(query), len(stored))
    if not trusted.any():
        return REFUSED
    grids = [(query.bits, query.mask)]
    found = [_best_shift(query.bits, stored.bits, trusted, shifts)]
    if query.between is not None and found[0][0] < HOPELESS:
        grids.append(query.between)
        found.append(_best_shift(query.between[0], stored.bits, trusted, shifts))
    at = min(range(len(found)), key=lambda grid: found[grid][0])
    distance, shift = found[at]
    bits, mask = grids[at]
    strong = np.where(stored.strong, stored.mask, np.uint32(0))
    worst = _worst_window(stored.bits, strong, WINDOW_STRONG, bits, shift, distance)
    loudest = np.where(query.loud, mask, np.uint32(0))
    query_worst = _worst_window(bits, loudest, WINDOW_LOUD, stored.bits, -shift, distance)
    place = np.flatnonzero(active) + shift
    stored_coverage = float(np.mean((place >= 0) & (place < len(query))))
    loud = np.flatnonzero(query.loud) - shift
    query_coverage = float(np.mean((loud >= 0) & (loud < len(stored)))) if len(loud) else 0.0
    similarity = max(0.0, 1.0 - 2.0 * distance)
    reason = "same"
    if stored_coverage < STORED_COVERAGE:
        reason = "the stored recording has more speech"
    elif query_coverage < QUERY_COVERAGE or query_worst > MAX_QUERY_WORST:
        reason = "the query has more speech"
    elif distance > global_limit(stored):
        reason = "distance"
    elif worst > MAX_WORST:
        reason = "worst window"
    elif min_similarity is not None and similarity < min_similarity:
        reason = "min_similarity"
    offset = shift * HOP_S + (HOP_S / 2 if at else 0.0)
    return Verdict(
        reason == "same", distance, worst, query_worst, stored_coverage, query_coverage, offset, similarity, reason
    )


def global_limit(stored: Fingerprint) -> float:
    """The distance that a copy of `stored` may have: more where its trusted bits change more often from frame to frame.

    Neighbouring frames and bands mostly repeat each other, so changes, not bits, tell how much there is to agree upon.
    """
    active = stored.active
    columns, trusted = (
        np.unpackbits(words[active].astype("<u4").view(np.uint8).reshape(-1, 4), axis=1, bitorder="little").T
        for words in (stored.bits, stored.mask)
    )
    row, frame = np.nonzero(trusted)
    value = columns[row, frame]
    changes = int(np.count_nonzero((value[1:] != value[:-1]) & (row[1:] == row[:-1])))
    return float(MAX_GLOBAL - EVIDENCE / np.sqrt(max(1, changes)))


def _shifts(query_frames: int, stored_frames: int) -> range:
    """Frames by which the stored recording may sit later in the query without losing coverage either way."""
    slack = SLACK + int((1 - STORED_COVERAGE) * stored_frames)
    return range(-slack, max(0, query_frames - stored_frames) + slack + 1)


def _best_shift(bits: Words, stored: Words, trusted: Words, shifts: range) -> tuple[float, int]:
    """The least distance over all `shifts`, and where.

    Long recordings are first aligned on every n-th frame: neighbouring frames overlap by seven eighths and say the
    same, so some sixty of them find the place, and all of them then judge it.
    """
    stride = max(1, len(stored) // 64)
    distances = _distances(bits, stored, trusted, shifts, stride)
    if stride > 1:
        best = int(np.argmin(distances))
        shifts = shifts[max(0, best - 3) : best + 4]
        distances = _distances(bits, stored, trusted, shifts, 1)
    best = int(np.argmin(distances))
    return float(distances[best]), shifts[best]


def _distances(bits: Words, stored: Words, trusted: Words, shifts: range, stride: int) -> npt.NDArray[np.float64]:
    """Share of `trusted` bits that differ, for each shift, those outside the query by half: float64 [shifts]."""
    n = len(stored)
    before = max(0, -shifts[0])
    after = max(0, shifts[-1] + n - len(bits))
    start = shifts[0] + before

    def windows(values: Words) -> Words:
        padded = np.pad(values, (before, after))
        return np.lib.stride_tricks.sliding_window_view(padded[start:], n)[: len(shifts), ::stride]

    stored, trusted = stored[::stride], trusted[::stride]
    covered = windows(np.full(len(bits), 0xFFFFFFFF, np.uint32)) & trusted
    differ = _ones((windows(bits) ^ stored) & covered)
    total = int(np.bitwise_count(trusted).sum())
    return np.asarray((differ + 0.5 * (total - _ones(covered))) / max(total, 1))


def _ones(words: Words) -> Counts:
    """Bits set in each row: [rows, frames] -> int64 [rows]."""
    return np.asarray(np.bitwise_count(words).sum(axis=1, dtype=np.int64))


def _worst_window(bits: Words, trusted: Words, least: int, other: Words, shift: int, distance: float) -> float:
    """The largest share of `trusted` bits that `other`, `shift` frames on, has differently in any 240 ms.

    Counted in windows with at least `least` frames that trust any bit; `distance` where there is none. What `other`
    does not cover counts half.
    """
    place = np.arange(len(bits)) + shift
    inside = (place >= 0) & (place < len(other))
    weigh = np.bitwise_count(trusted).astype(np.int64)
    differ = np.bitwise_count((other[np.clip(place, 0, len(other) - 1)] ^ bits) & trusted)
    halves = np.where(inside, 2 * differ.astype(np.int64), weigh)
    sums = [np.cumsum(np.pad(values, (WINDOW, WINDOW - 1))) for values in (halves, 2 * weigh, weigh > 0)]
    window_differ, window_weigh, frames = (total[WINDOW:] - total[:-WINDOW] for total in sums)
    judged = frames >= least
    return float((window_differ[judged] / window_weigh[judged]).max()) if judged.any() else distance
