"""Which sign bits a frame of band energies has, which to trust, and how loud it is: what fingerprints are made of.

After Haitsma & Kalker (2002): bit b of frame t is the sign of the energy difference between bands b and b + 1, less the
same difference 64 ms earlier. Two things are unlike theirs, and measured to matter on speech: power is kept linear, so
loud partials and not the noise between them decide, and each frame says which of its bits stood far from zero.
"""

from __future__ import annotations

from typing import Final

import numpy as np
import numpy.typing as npt

from models.bands import BANDS
from models.utterance import Samples

Words = npt.NDArray[np.uint32]
Levels = npt.NDArray[np.uint8]
Flags = npt.NDArray[np.bool_]

LAG: Final = 4
"""Frames between the two differences: 64 ms, about half a phone."""
KEPT: Final = 14
"""Bits of 32 that a frame's mask trusts: those of largest magnitude."""
ACTIVE_DB: Final = 30.0
"""A frame is speech when within this of the loudest frame."""
STRONG_DB: Final = 20.0
"""A frame is strong when within this of the loudest: it outlives noise, so its bits must agree."""
LOUD_DB: Final = 12.0
"""A frame is loud when within this of the loudest: speech, whatever the noise, that a match has to explain."""


def levels(energies: Samples) -> Levels:
    """uint8 [frames] of band energies, float32 [frames, 33]: 0 silence, 1 active, 2 strong, 3 loud."""
    loudness = energies.sum(axis=1)
    peak = float(loudness.max(initial=0.0))
    level = np.zeros(len(loudness), np.uint8)
    for db in (ACTIVE_DB, STRONG_DB, LOUD_DB):
        level += loudness > peak * 10 ** (-db / 10)
    return level


def signs(energies: Samples) -> tuple[Words, Words]:
    """Bits and mask, uint32 [frames] each, of band energies, float32 [frames, 33]."""
    return signs_of(*changes(energies))


def changes(energies: Samples, lag: int = LAG) -> tuple[Samples, Samples]:
    """The differences that bits are signs of, float32 [frames, 32], and what the mask asks for, float32 [frames, 1].
    Of half frames, `lag` is twice as many."""
    slope = energies[:, : BANDS - 1] - energies[:, 1:]
    change = slope.copy()
    change[lag:] -= slope[:-lag]
    floor = np.partition(np.abs(change), BANDS - 1 - KEPT, axis=1)[:, BANDS - 1 - KEPT, None]
    # Digital silence has no strong bits at all: the tiny floor keeps exact zeros out of the mask.
    return change, np.maximum(floor, np.float32(1e-30))


def signs_of(change: Samples, floor: Samples) -> tuple[Words, Words]:
    return packed(change > 0), packed(np.abs(change) >= floor)


def strength(change: Samples, floor: Samples) -> Samples:
    return np.asarray(np.clip(change / floor, -6, 6), dtype=np.float32)


def packed(flags: Flags) -> Words:
    """bool [frames, 32] as uint32 [frames], band 0 in the lowest bit."""
    return np.packbits(flags, bitorder="little").view("<u4").astype(np.uint32, copy=False)


def unpacked(words: Words) -> Flags:
    """The inverse of `packed`."""
    as_bytes = np.ascontiguousarray(words.astype("<u4")).view(np.uint8).reshape(-1, 4)
    return np.unpackbits(as_bytes, axis=1, bitorder="little").astype(np.bool_)
