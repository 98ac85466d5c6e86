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
WEIGHT: Final = 2
"""Added weight of a bit that the query trusts too: noise flips weak bits, another word strong ones."""
SLACK: Final = 12
"""Frames that an alignment may go beyond what coverage allows."""
STORED_COVERAGE: Final = 0.80
"""Least share of the stored active frames that must lie inside the query."""
QUERY_COVERAGE: Final = 0.85
"""Least share of the query's loud frames inside the stored recording ("yes" is not "yes that is right")."""
MAX_GLOBAL: Final = 0.11
MAX_WORST: Final = 0.30


@dataclass(frozen=True, slots=True)
class Verdict:
    """Why a candidate was taken for the same recording, or not."""

    accepted: bool
    distance: float
    """Share of trusted stored bits that differ, weighted; 0 same, near 0.5 unrelated. Uncovered frames count a half."""
    worst: float
    """The same over the worst 240 ms of the stored recording."""
    stored_coverage: float
    query_coverage: float
    offset_s: float
    """Seconds by which the query has the same sound later than the stored recording does."""
    similarity: float
    """1 is an identical copy, 0 a distance at the threshold or beyond."""
    reason: str
    """"same", or the first test that failed."""


REFUSED: Final = Verdict(False, 0.5, 0.5, 0.0, 0.0, 0.0, 0.0, "no overlap")


def verify(query: Fingerprint, stored: Fingerprint, min_similarity: float | None = None) -> Verdict:
    """Judge `stored` as the source of `query`. `min_similarity` (0..1) may only tighten what the thresholds allow."""
    trusted = np.where(stored.active, stored.mask, np.uint32(0))
    grids = [(query.bits, query.mask)] + ([query.between] if query.between is not None else [])
    shifts = _shifts(len(query), len(stored))
    if not len(shifts) or not trusted.any():
        return REFUSED
    found = [(*_best_shift(bits, mask, stored.bits, trusted, shifts), bits, mask) for bits, mask in grids]
    at = min(range(len(found)), key=lambda i: found[i][0])
    distance, shift, bits, mask = found[at]
    differ, weigh = _by_frame(bits, mask, stored.bits, trusted, shift)
    worst = _worst_window(differ, weigh, distance)
    inside = np.arange(len(stored)) + shift
    stored_coverage = float(np.mean(((inside >= 0) & (inside < len(query)))[stored.active]))
    loud = np.flatnonzero(query.loud) - shift
    query_coverage = float(np.mean((loud >= 0) & (loud < len(stored)))) if len(loud) else 0.0
    similarity = max(0.0, 1.0 - 2.0 * distance)
    reason = "same"
    if stored_coverage < STORED_COVERAGE:
        reason = "the stored recording has more speech"
    elif query_coverage < QUERY_COVERAGE:
        reason = "the query has more speech"
    elif distance > MAX_GLOBAL:
        reason = "distance"
    elif worst > MAX_WORST:
        reason = "worst window"
    elif min_similarity is not None and similarity < min_similarity:
        reason = "min_similarity"
    offset = shift * HOP_S + (HOP_S / 2 if at else 0.0)
    return Verdict(reason == "same", distance, worst, stored_coverage, query_coverage, offset, similarity, reason)


def _shifts(query_frames: int, stored_frames: int) -> range:
    """Frames by which the stored recording may sit later in the query without losing coverage either way."""
    slack = SLACK + int((1 - STORED_COVERAGE) * stored_frames)
    return range(-slack, max(0, query_frames - stored_frames) + slack + 1)


def _best_shift(bits: Words, mask: Words, stored: Words, trusted: Words, shifts: range) -> tuple[float, int]:
    """The least distance over all `shifts`, and where.

    Long recordings are first aligned on every n-th frame: neighbouring frames overlap by seven eighths and say the
    same, so about sixty of them find the place, and all of them then judge it.
    """
    stride = max(1, len(stored) // 64)
    distances = _distances(bits, mask, stored, trusted, shifts, stride)
    if stride > 1:
        best = int(np.argmin(distances))
        shifts = shifts[max(0, best - 3) : best + 4]
        distances = _distances(bits, mask, stored, trusted, shifts, 1)
    best = int(np.argmin(distances))
    return float(distances[best]), shifts[best]


def _distances(
    bits: Words, mask: Words, stored: Words, trusted: Words, shifts: range, stride: int
) -> npt.NDArray[np.float64]:
    """Weighted share of `trusted` bits that differ, for each shift: float64 [shifts]."""
    n = len(stored)
    before = max(0, -shifts[0])
    after = max(0, shifts[-1] + n - len(bits))
    start = shifts[0] + before

    def windows(values: Words, fill: int) -> Words:
        padded = np.pad(values, (before, after), constant_values=fill)
        return np.lib.stride_tricks.sliding_window_view(padded[start:], n)[: len(shifts), ::stride]

    stored, trusted = stored[::stride], trusted[::stride]
    covered = windows(np.full(len(bits), 0xFFFFFFFF, np.uint32), 0) & trusted
    differ = (windows(bits, 0) ^ stored) & covered
    both = windows(mask, 0)
    weak = _ones(differ)
    strong = _ones(differ & both)
    weigh = _ones(covered)
    weigh_both = _ones(covered & both)
    missing = int(np.bitwise_count(trusted).sum()) - weigh
    total = weigh + WEIGHT * weigh_both + missing
    return np.asarray((weak + WEIGHT * strong + 0.5 * missing) / np.maximum(total, 1))


def _ones(words: Words) -> Counts:
    """Bits set in each row: [rows, frames] -> int64 [rows]."""
    return np.asarray(np.bitwise_count(words).sum(axis=1, dtype=np.int64))


def _by_frame(bits: Words, mask: Words, stored: Words, trusted: Words, shift: int) -> tuple[Counts, Counts]:
    """Twice the weighted disagreement, and twice the weight, of each stored frame: int64 [frames] each."""
    place = np.arange(len(stored)) + shift
    inside = (place >= 0) & (place < len(bits))
    place = np.clip(place, 0, len(bits) - 1)
    differ = (bits[place] ^ stored) & trusted
    weigh = np.bitwise_count(trusted).astype(np.int64)
    both = np.bitwise_count(trusted & mask[place]).astype(np.int64)
    counted = np.bitwise_count(differ).astype(np.int64) + WEIGHT * np.bitwise_count(differ & mask[place])
    return np.where(inside, 2 * counted, weigh), 2 * np.where(inside, weigh + WEIGHT * both, weigh)


def _worst_window(differ: Counts, weigh: Counts, distance: float) -> float:
    """The largest distance over any 240 ms that is at least half speech; `distance` where none is."""
    if len(differ) < WINDOW:
        return distance
    sums = [np.concatenate([[0], np.cumsum(values)]) for values in (differ, weigh)]
    window_differ, window_weigh = (total[WINDOW:] - total[:-WINDOW] for total in sums)
    spoken = window_weigh >= window_weigh.max() / 2
    return float((window_differ[spoken] / np.maximum(window_weigh[spoken], 1)).max()) if spoken.any() else distance
