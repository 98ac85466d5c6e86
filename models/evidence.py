"""What a new recording says about the bits of an old one, moment by moment, and where the two lie over each other.

From a query's band energies a small network gives, for every frame and half frame, the log-odds of each of the 32 sign
bits that the undistorted recording would have there: near zero where noise covers them. The evidence that a stored
frame was heard at some moment is the log-likelihood of its trusted bits under those odds, less that of a coin's: so
many nats for "the same" where bits agree that the query is sure of, many more against where they do not, none where it
cannot know. A straight path through the matrix of all such pairs aligns two recordings, also one played up to 2 %
faster or slower. Features of both along that path are what the judge of `models.recall` looks at.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Final

import numpy as np
import numpy.typing as npt

from models.signs import Levels, Words, unpacked
from models.utterance import Samples

Places = npt.NDArray[np.int64]

BITS: Final = 32
COIN: Final = math.log(2.0)
PACES: Final = (1.0, 0.995, 1.005, 0.99, 1.01, 0.985, 1.015, 0.98, 1.02)
"""Query frames to a stored frame."""
FEW_PACES: Final = (1.0, 0.985, 1.015)
"""For what is too short to drift."""
SHORT: Final = 80
"""Frames (1.3 s) up to which a recording is short."""
SLACK: Final = 12
"""Frames by which either may begin or end outside the other, beyond a fifth of the stored one."""
COARSE: Final = 48
"""Active frames that find the place; all of them then refine it."""
NEAR: Final = 3
"""Half frames to either side of that place that are tried with all of them."""
FEATURES: Final = 15
"""Rows of a timeline that the judge sees."""
ROWS: Final = 17
"""And all of them."""
_LEVELS: Final = np.array([[1], [2], [3]], np.uint8)


@dataclass(frozen=True, slots=True)
class Heard:
    """What the network made of a query of T frames."""

    log_odds: Samples
    """float32 [2 T, 32], for each half frame in turn: of bit b being set in the undistorted recording."""
    speech: Samples
    """float32 [T, 3]: chance that the undistorted frame is active, strong, loud (`gateway.fingerprint.bits`)."""
    bits: Words
    """uint32 [2 T]: the query's own bits, for each half frame in turn."""
    level: Levels
    """uint8 [T]: the query's own levels, noise and all."""
    half: Samples = field(init=False, repr=False)
    """Half of `log_odds`,"""
    coin: Samples = field(init=False, repr=False)
    """and the log of the sum of their exponentials: what every candidate is compared by, so made once."""

    def __post_init__(self) -> None:
        half = 0.5 * self.log_odds
        size = np.abs(half)  # np.logaddexp takes ten times as long
        object.__setattr__(self, "half", half)
        object.__setattr__(self, "coin", size + np.log1p(np.exp(-2 * size)))

    def __len__(self) -> int:
        return len(self.speech)


@dataclass(frozen=True, slots=True)
class Stored:
    """A remembered recording's active frames as numbers, made from its fingerprint for each comparison."""

    frames: int
    at: Places
    """int64 [A]: where the active frames are."""
    signs: Samples
    """float32 [A, 32]: +1 and -1 for trusted bits, 0 for the others."""
    bits: Words
    """uint32 [A]."""
    mask: Words
    """uint32 [A]: the trusted ones."""
    level: Levels
    """uint8 [frames]: 0 silence, 1 active, 2 strong, 3 loud."""

    @classmethod
    def of(cls, bits: Words, mask: Words, level: Levels) -> Stored:
        at = np.flatnonzero(level)
        kept = unpacked(mask[at]).astype(np.float32)
        return cls(len(level), at, (2 * unpacked(bits[at]).astype(np.float32) - 1) * kept, bits[at], mask[at], level)


@dataclass(frozen=True, slots=True)
class Path:
    """Where each active frame of a stored recording lies in the query, and what the query says of it there."""

    evidence: Samples
    """float32 [A], nats: log-likelihood of the frame's trusted bits less that of a coin's; 0 outside the query."""
    known: Samples
    """float32 [A], nats: what evidence a same frame would give on average, that is what the query is sure of."""
    place: Places
    """int64 [A]: the half frame of the query where each lies; may be outside it."""
    pace: float
    start: float
    """Half frame of the query at which the stored recording's frame 0 lies; may be negative."""
    inside: float
    """Share of the active frames that lie within the query."""
    bits: int
    """Trusted bits in all."""

    @property
    def first(self) -> int:
        """Frame of the stored recording's time where either begins: 0, or less where the query does."""
        return min(0, math.floor(-self.start / (2 * self.pace)))

    def heard_at(self, time: Places) -> Places:
        """The query's frames that lie at frames of the stored recording's time; may be outside the query."""
        return np.rint((2 * self.pace * time + self.start) / 2).astype(np.int64)

    @property
    def confirmed(self) -> float:
        """Share of all the evidence there could be: 1 an identical copy, about 0 another recording."""
        return float(self.evidence.sum()) / max(COIN * self.bits, COIN)


def align(stored: Stored, heard: Heard) -> Path:
    """The straight path of most evidence. `stored` must have an active frame, `heard` a frame."""
    half, coin = heard.half, heard.coin
    kept = np.abs(stored.signs)
    pace, near = _coarse(stored, kept, half, coin, len(heard))
    starts = np.arange(near - NEAR, near + NEAR + 1)
    place = starts[:, None] + np.rint(2 * pace * stored.at).astype(np.int64)
    at = np.minimum(np.maximum(place, 0), len(half) - 1)
    against_coin = half[at]
    against_coin *= stored.signs
    against_coin -= kept * coin[at]
    inside = at == place
    possible = np.float32(COIN) * kept.sum(axis=1)
    evidence = np.where(inside, against_coin.sum(axis=2) + possible, np.float32(0.0))
    best = int(evidence.sum(axis=1).argmax())
    at, inside = at[best], inside[best]
    # Certainty: a coin's entropy less that of the bit's own distribution.
    sure = half[at]
    certain = COIN - coin[at] + sure * np.tanh(sure)
    known = np.where(inside, (kept * certain).sum(axis=1), np.float32(0.0))
    start, bits = float(starts[best]), int(kept.sum())
    return Path(evidence[best], known, place[best], pace, start, float(inside.mean()), bits)


def _coarse(stored: Stored, kept: Samples, half: Samples, coin: Samples, frames: int) -> tuple[float, int]:
    """Pace and start of the best path by some of the stored frames."""
    slack = 2 * (SLACK + stored.frames // 5)
    starts = np.arange(-slack, 2 * max(0, frames - stored.frames) + slack + 1)
    some = slice(None, None, max(1, len(stored.at) // COARSE))
    signs, kept, at = stored.signs[some], kept[some], stored.at[some]
    pairs = signs @ half.T - kept @ coin.T + np.float32(COIN) * kept.sum(axis=1)[:, None]
    margin = slack + math.ceil(0.05 * stored.frames) + 8
    beyond = max(0, 2 * stored.frames + margin + int(starts[-1]) - pairs.shape[1])
    width = margin + pairs.shape[1] + beyond
    padded = np.zeros((len(at), width), np.float32)
    padded[:, margin : margin + pairs.shape[1]] = pairs
    paces = np.array(FEW_PACES if stored.frames <= SHORT else PACES)
    places = np.arange(len(at)) * width + np.rint(2 * paces[:, None] * at).astype(np.int64) + margin + int(starts[0])
    windows = np.lib.stride_tricks.sliding_window_view(padded.ravel(), len(starts))
    # One pace at a time, or what is gathered would be megabytes for a long query.
    totals = np.array([windows[at_pace].sum(axis=0) for at_pace in places])
    pace, start = np.unravel_index(int(totals.argmax()), totals.shape)
    return float(paces[pace]), int(starts[start])


def certainty(heard: Heard, frames: Places) -> Samples:
    """What the query is sure of in some of its frames: float32 [n], nats a bit, 0 nothing to 0.69 all. A coin's entropy
    less that of the bits' own odds."""
    half, coin = heard.half[2 * frames], heard.coin[2 * frames]
    return np.asarray((COIN - coin + half * np.tanh(half)).mean(axis=1), np.float32)


def timeline(stored: Stored, heard: Heard, path: Path) -> Samples:
    """Both recordings along `path`, frame by frame of the stored one's time, from the first frame of either to the
    last of either: float32 [17, frames].

    Rows: evidence and known, in sevens of nats; stored level at least active, strong, loud; the query's chances of the
    same three; the query's own level at least those three; share of the trusted, and of all, bits
    that differ from the query's own; stored and active, but outside the query; and, the same in every frame, how far
    the pace is from 1. Two more are for the eye: inside the stored recording; inside the query.
    """
    first = path.first
    last = max(stored.frames, math.ceil((2 * len(heard) - 1 - path.start) / (2 * path.pace)) + 1)
    time = np.arange(first, last)
    query = path.heard_at(time)
    within = (query >= 0) & (query < len(heard))
    query = np.clip(query, 0, len(heard) - 1)
    rows = np.zeros((ROWS, len(time)), np.float32)
    known, own = stored.at - first, slice(-first, stored.frames - first)
    rows[0, known] = path.evidence / 7
    rows[1, known] = path.known / 7
    rows[2:5, own] = stored.level >= _LEVELS
    rows[5:8] = np.where(within, heard.speech[query].T, 0.0)
    rows[8:11] = within & (heard.level[query] >= _LEVELS)
    there = (path.place >= 0) & (path.place < len(heard.bits))
    differ = stored.bits ^ heard.bits[np.clip(path.place, 0, len(heard.bits) - 1)]
    trusted = np.bitwise_count(differ & stored.mask) / np.maximum(np.bitwise_count(stored.mask), 1)
    rows[11, known] = np.where(there, trusted, 0.5)
    rows[12, known] = np.where(there, np.bitwise_count(differ) / BITS, 0.5)
    rows[13, known] = ~there
    rows[14] = 50 * abs(path.pace - 1)
    rows[15, own] = 1.0
    rows[16] = within
    return rows
