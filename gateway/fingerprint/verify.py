"""Is this the recording heard before? The last word on a candidate.

One distance over the whole utterance cannot tell "turn it on" from "turn it off". So the query is first read as what
the undistorted recording's bits are likely to be, with how sure that is (`models.recall`); what those odds say for and
against the stored bits is laid out along time, and a small network looks for a moment in which the two differ: another
sound in the place of one, speech of either that the other does not have. Where noise covers everything it hears nothing
for and nothing against, and refuses.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import numpy as np
import numpy.typing as npt

from gateway.fingerprint.bits import Fingerprint
from models.added import silence
from models.bands import HOP_S
from models.evidence import ROWS, SLACK, Stored, align, timeline
from models.recall import embedded
from models.utterance import Samples

# Chosen on development speakers, noise and words that trained neither network (docs/recall.md), then frozen; so is the
# score from which the judge accepts, an option of its manifest.
MAX_DISTANCE: Final = 0.36
"""Share of the stored trusted bits that may differ at the best shift before anything else is looked at: of other
speech most is beyond it, and nothing that the rest would accept."""
LEAST_CONFIRMED: Final = 0.25
"""Least share of all the evidence there could be that has to speak for the candidate;"""
LEAST_CONFIRMED_SHORT: Final = 0.35
SHORT: Final = 80
"""and that where under 80 frames (1.3 s) of speech are stored."""
STORED_COVERAGE: Final = 0.80
"""Least share of the stored active frames that must lie inside the query."""
WHOLE: Final = ((28, 60.0, 58.1), (45, 32.0, 33.2), (None, 24.0, 26.4))
"""The judge looks for one bad moment. Another recording may have none that is bad enough, but agrees less as a whole.
Where less than so many frames of speech are stored (or however many): so many times the share of what the query is sure
of that agrees, and the judge's score, must reach so much. Short words of others are alike by chance."""


@dataclass(frozen=True, slots=True)
class Verdict:
    """Why a candidate was taken for the same recording, or not."""

    accepted: bool
    reason: str
    """"same", or what speaks against it."""
    similarity: float
    """Share of what the stored bits could confirm that the query does: 0 other speech, near 1 an identical copy."""
    distance: float
    """Share of the stored trusted bits that differ at the best shift, of raw bits: 0 same, near 0.5 unrelated."""
    score: float
    """The judge's score less the threshold: from 0 on it does not refuse."""
    offset_s: float
    """Seconds by which the query has the same sound later than the stored recording does."""
    pace: float
    """Seconds of the query to one of the stored recording, 0.98 to 1.02."""
    worst_s: float
    """Where most speaks against it, in seconds of the stored recording; outside of it for what only the query has."""
    lines: Samples
    """float32 [17, frames]: both recordings along time (`models.evidence.timeline`); empty where not looked at."""
    against: Samples
    """float32 [frames]: how much each frame speaks against it."""
    first: int
    """The stored recording's frame that is the first of `lines`: 0 or less."""


def verify(query: Fingerprint, stored: Fingerprint, min_similarity: float | None = None) -> Verdict:
    """Judge `stored` as the source of `query`, which `listen` made. `min_similarity` (0..1) may only tighten."""
    if query.heard is None:
        raise ValueError("the query must come from gateway.fingerprint.listen.listen")
    distance = nearest(query, stored)
    if distance > MAX_DISTANCE or not len(query.heard):
        return _refused("distance", distance)
    old = Stored.of(stored.bits, stored.mask, stored.level)
    path = align(old, query.heard)
    lines = timeline(old, query.heard, path)
    nets = embedded()
    # Where enough speech is stored, what is heard in its silence is judged apart (`models.added`).
    silent = silence(lines) if len(old.at) >= SHORT else np.zeros(lines.shape[1], np.bool_)
    odds, against = nets.judge(lines, silent)
    score = odds - nets.threshold
    worst = int(np.argmax(against)) + path.first
    similarity = min(max(path.confirmed, 0.0), 1.0)
    weight, least = of_the_whole(len(old.at))
    reason = "same"
    if path.inside < STORED_COVERAGE:
        reason = "the stored recording has more speech"
    elif path.confirmed < (LEAST_CONFIRMED_SHORT if len(old.at) < SHORT else LEAST_CONFIRMED):
        reason = "another recording"
    elif not score >= 0:  # NaN too
        reason = "another sound" if 0 <= worst < len(stored) else "the query has more speech"
    elif odds + weight * agreement(lines) < least:
        reason = "another recording"
    elif silent.any() and not nets.additions.score(lines, query.heard, path) < 0:
        reason = "the query has more speech"
        worst = int(np.where(silent, lines[5:8].sum(axis=0), -1.0).argmax()) + path.first
    elif min_similarity is not None and similarity < min_similarity:
        reason = "min_similarity"
    offset = path.start / 2 * HOP_S
    return Verdict(
        reason == "same",
        reason,
        similarity,
        distance,
        score,
        offset,
        path.pace,
        worst * HOP_S,
        lines,
        against,
        path.first,
    )


def of_the_whole(active: int) -> tuple[float, float]:
    """What agreement counts beside the judge's score, and what both must reach, by the stored frames of speech."""
    return next((weight, least) for frames, weight, least in WHOLE if frames is None or active < frames)


def agreement(lines: Samples) -> float:
    """Evidence as a share of what the query is sure of, over all of the stored recording; 1.2 at most. A little is
    added to the latter, for what is hardly sure says little."""
    return min(float(lines[0].sum() / (lines[1].sum() + 10)), 1.2)


def _refused(reason: str, distance: float) -> Verdict:
    lines, against = np.zeros((ROWS, 0), np.float32), np.zeros(0, np.float32)
    return Verdict(False, reason, 0.0, distance, -np.inf, 0.0, 1.0, 0.0, lines, against, 0)


def nearest(query: Fingerprint, stored: Fingerprint) -> float:
    """The least share of the stored trusted bits that differ, over all shifts on both of the query's grids. What a
    shift leaves outside the query counts half."""
    trusted = np.where(stored.active, stored.mask, np.uint32(0))
    if not trusted.any():
        return 1.0
    n, heard = len(stored), len(query)
    shifts, stride = shifts_of(heard, n), stride_of(n)
    grids = [query.bits] + ([query.between[0]] if query.between is not None else [])
    before, after = max(0, -shifts[0]), max(0, shifts[-1] + n - heard)
    row = np.zeros((len(grids), before + heard + after), np.uint32)
    row[:, before : before + heard] = grids
    windows = np.lib.stride_tricks.sliding_window_view(row[:, shifts[0] + before :], n, axis=1)
    trusted, wanted = trusted[::stride], (stored.bits & trusted)[::stride]
    weights = np.bitwise_count(trusted).astype(np.int64)
    differ = np.bitwise_count((windows[:, : len(shifts), ::stride] & trusted) ^ wanted).sum(axis=2, dtype=np.int64)
    # Twice what differs: outside, where `row` has zeros, the bits that are wanted were counted, and half of all should.
    outside = weights - 2 * np.bitwise_count(wanted)
    until = np.concatenate([[0], np.cumsum(outside)])
    starts = np.arange(shifts.start, shifts.stop)
    first, last = (_within(edge, n, stride) for edge in (-starts, heard - starts))
    twice = 2 * differ.min(axis=0) + until[-1] - (until[last] - until[first])
    return 0.5 * int(twice.min()) / max(int(weights.sum()), 1)


def _within(edge: npt.NDArray[np.int64], n: int, stride: int) -> npt.NDArray[np.int64]:
    """How many of the first n frames, taking every `stride`-th, lie before `edge`."""
    return (np.minimum(np.maximum(edge, 0), n) + stride - 1) // stride


def shifts_of(query_frames: int, stored_frames: int) -> range:
    """Frames by which the stored recording may sit later in the query without losing coverage either way."""
    slack = SLACK + stored_frames // 5
    return range(-slack, max(0, query_frames - stored_frames) + slack + 1)


def stride_of(stored_frames: int) -> int:
    """Of how many stored frames one counts in the first test: neighbours overlap by seven eighths and say the same."""
    return max(1, stored_frames // 64)
