"""Sign bits of mel differences and a mask of those worth trusting: what a recording keeps through another microphone.

After Haitsma & Kalker (2002): bit b of frame t is the sign of the energy difference between bands b and b + 1, less the
same difference 64 ms earlier. Two things are unlike theirs, and measured to matter on speech: power is kept linear, so
loud partials and not the noise between them decide, and each frame says which of its bits stood far from zero.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass
from typing import Final

import numpy as np
import numpy.typing as npt

from gateway.fingerprint.mel import BANDS, HOP, HOP_S, RATE, band_energies, to_telephone_rate
from models.utterance import Samples

Words = npt.NDArray[np.uint32]
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
MIN_ACTIVE_S: Final = 0.3
"""Less speech than this is matched exactly only."""
MAX_S: Final = 30.0
"""More than this is matched exactly only: no cached command is that long, and cost grows with length."""
MIN_POWER: Final = 1e-9
"""Mean power (-90 dBFS) under which a recording is silence: only dither would be compared."""

_HEADER: Final = struct.Struct("<BIf")
_VERSION: Final = 1


@dataclass(frozen=True, slots=True)
class Fingerprint:
    """One recording. All arrays have one value a frame of 16 ms; about 516 bytes a second when serialised."""

    bits: Words
    """uint32 [frames]: bit b is the sign of difference b."""
    mask: Words
    """uint32 [frames]: the 14 bits of each frame that stood furthest from zero."""
    level: npt.NDArray[np.uint8]
    """uint8 [frames]: 0 silence, 1 active (within 30 dB of the loudest frame), 2 strong (20 dB), 3 loud (12 dB)."""
    seconds: float
    between: tuple[Words, Words] | None = None
    """`bits` and `mask` of the same recording half a frame later: only in what was heard just now, never stored.
    Two recordings share no frame grid; with these a query is at most 4 ms off instead of 8."""

    def __len__(self) -> int:
        return len(self.bits)

    @property
    def active(self) -> Flags:
        return self.level >= 1

    @property
    def strong(self) -> Flags:
        return self.level >= 2

    @property
    def loud(self) -> Flags:
        return self.level >= 3

    def to_bytes(self) -> bytes:
        return b"".join(
            (
                _HEADER.pack(_VERSION, len(self.bits), self.seconds),
                self.bits.astype("<u4").tobytes(),
                self.mask.astype("<u4").tobytes(),
                np.packbits(self.level & 1).tobytes(),
                np.packbits(self.level >> 1).tobytes(),
            )
        )

    @classmethod
    def from_bytes(cls, data: bytes) -> Fingerprint:
        """The inverse of `to_bytes`; ValueError on anything else, so that a reader can count it as a miss."""
        if len(data) < _HEADER.size:
            raise ValueError("fingerprint: too short")
        version, frames, seconds = _HEADER.unpack_from(data)
        flag_bytes = (frames + 7) // 8
        if version != _VERSION or len(data) != _HEADER.size + 8 * frames + 2 * flag_bytes:
            raise ValueError(f"fingerprint: version {version}, {frames} frames in {len(data)} bytes")
        words = np.frombuffer(data, "<u4", 2 * frames, _HEADER.size).astype(np.uint32)
        flags = np.frombuffer(data, np.uint8, 2 * flag_bytes, _HEADER.size + 8 * frames)
        low, high = (np.unpackbits(part, count=frames) for part in np.split(flags, 2))
        return cls(words[:frames], words[frames:], (low | (high << 1)).astype(np.uint8), float(seconds))


def fingerprint(samples: Samples) -> Fingerprint | None:
    """The fingerprint of 16 kHz `samples`, float32 [n]; None for under 0.3 s of speech, over 30 s, or silence."""
    if len(samples) < MIN_ACTIVE_S * 2 * RATE:
        return None
    power = float(np.dot(samples, samples)) / len(samples)
    if not MIN_POWER <= power < np.inf:  # NaN too
        return None
    seconds = len(samples) / (2 * RATE)
    if seconds > MAX_S:
        return None
    narrow = to_telephone_rate(samples)
    return from_energies(band_energies(narrow), band_energies(narrow, HOP // 2), seconds)


def from_energies(energies: Samples, energies_between: Samples, seconds: float) -> Fingerprint | None:
    """The fingerprint of band energies (float32 [frames, 33], linear power), on the grid and half a frame later."""
    loudness = energies.sum(axis=1)
    peak = float(loudness.max(initial=0.0))
    level = np.zeros(len(loudness), np.uint8)
    for db in (ACTIVE_DB, STRONG_DB, LOUD_DB):
        level += loudness > peak * 10 ** (-db / 10)
    if np.count_nonzero(level) * HOP_S < MIN_ACTIVE_S:
        return None
    bits, mask = signs(energies)
    return Fingerprint(
        bits=bits,
        mask=mask,
        level=level,
        seconds=seconds,
        between=signs(energies_between),
    )


def signs(energies: Samples) -> tuple[Words, Words]:
    """Bits and mask, uint32 [frames] each, of band energies, float32 [frames, 33]."""
    slope = energies[:, : BANDS - 1] - energies[:, 1:]
    change = slope.copy()
    change[LAG:] -= slope[:-LAG]
    strength = np.abs(change)
    floor = np.partition(strength, BANDS - 1 - KEPT, axis=1)[:, BANDS - 1 - KEPT, None]
    # Digital silence has no strong bits at all: the tiny floor keeps exact zeros out of the mask.
    return _pack(change > 0), _pack(strength >= np.maximum(floor, np.float32(1e-30)))


def _pack(flags: Flags) -> Words:
    """bool [frames, 32] as uint32 [frames], band 0 in the lowest bit."""
    return np.ascontiguousarray(np.packbits(flags, axis=1, bitorder="little")).view("<u4")[:, 0].astype(np.uint32)
