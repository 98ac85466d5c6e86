"""Where the measuring meets what is measured: who makes a query, who judges it, and what its scores mean."""

from __future__ import annotations

from functools import lru_cache

import numpy as np

from gateway.fingerprint.bits import Fingerprint
from gateway.fingerprint.listen import listen
from gateway.fingerprint.verify import MAX_DISTANCE, Verdict, shifts_of, verify
from models.bands import HOP_S, band_energies, to_telephone_rate
from models.signs import levels
from models.utterance import Samples

Query = Fingerprint
"""What is made of a recording heard just now; it has all that a Fingerprint has."""


def hear(samples: Samples) -> Query | None:
    """The query of 16 kHz samples; None for what is matched exactly only."""
    return listen(samples)


def kept(query: Query) -> Fingerprint:
    """What is left of it once it was stored and read back."""
    return Fingerprint.from_bytes(query.to_bytes())


def judge(query: Query, stored: Fingerprint) -> Verdict:
    """The whole verdict."""
    return verify(query, stored)


def score(verdict: Verdict) -> float:
    """How unlike the two are, for the curve of errors: smaller is more alike, infinite where it was not looked at."""
    return -verdict.score


def first_limit(stored: Fingerprint) -> float:
    """The distance over the trusted bits of `stored` beyond which `judge` refuses, whatever else it tests."""
    return MAX_DISTANCE


@lru_cache(maxsize=1 << 16)
def first_shifts(query_frames: int, stored_frames: int) -> range:
    """The shifts that this distance is the least of."""
    return shifts_of(query_frames, stored_frames)


def speech_seconds(samples: Samples) -> float:
    """Seconds within 30 dB of the loudest frame, as fingerprints count them, of too short a recording too."""
    return float(np.count_nonzero(levels(band_energies(to_telephone_rate(samples)))) * HOP_S)
