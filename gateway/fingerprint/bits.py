"""A recording's fingerprint: its sign bits (`models.signs`), a mask of those to trust, and how loud each frame is."""

from __future__ import annotations

import struct
from dataclasses import dataclass
from typing import Final

import numpy as np
import numpy.typing as npt

from models.bands import HOP_S, RATE, band_energies, half_frame_energies, to_telephone_rate
from models.evidence import Heard
from models.signs import LAG, Flags, Levels, Words, changes, levels, signs_of, strength
from models.utterance import Samples

MIN_ACTIVE_S: Final = 0.3
"""Less speech than this is matched exactly only."""
MAX_S: Final = 30.0
"""More than this is matched exactly only: no cached command is that long, and cost grows with length."""
MIN_POWER: Final = 5e-8
"""Mean power (-73 dBFS) under which a recording is silence: only what the device itself hums would be compared, and
that is the same in recordings of different speech."""

_MOST_FRAMES: Final = int(MAX_S / HOP_S) + 1
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
    heard: Heard | None = None
    """What a network hears in it (`gateway.fingerprint.listen`): only in what was heard just now, never stored."""
    strength: Samples | None = None
    """float32 [2 frames, 32], for each half frame in turn: how far each difference stands from zero, to what the mask
    asks for, within -6..6; only in what was heard just now, never stored."""

    def __len__(self) -> int:
        return len(self.bits)

    @property
    def odds(self) -> Samples:
        """Of each bit being set in the undistorted recording: float32 [2 frames, 32], for each half frame in turn."""
        if self.heard is None or self.strength is None:
            raise ValueError("the query must come from gateway.fingerprint.listen.listen")
        # The network is surer of what noise covers, the raw difference of bits that it was not trained on: the sum
        # finds more than either (docs/index.md).
        return self.heard.log_odds + self.strength

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
        """The inverse of `to_bytes`; ValueError on anything else, so that a reader can count it as a miss.

        Also on what no recording has, more frames than 30 s or less speech than 0.3 s: an index relies on both.
        """
        if len(data) < _HEADER.size:
            raise ValueError("fingerprint: too short")
        version, frames, seconds = _HEADER.unpack_from(data)
        flag_bytes = (frames + 7) // 8
        if version != _VERSION or frames > _MOST_FRAMES or len(data) != _HEADER.size + 8 * frames + 2 * flag_bytes:
            raise ValueError(f"fingerprint: version {version}, {frames} frames in {len(data)} bytes")
        words = np.frombuffer(data, "<u4", 2 * frames, _HEADER.size).astype(np.uint32)
        flags = np.unpackbits(np.frombuffer(data, np.uint8, 2 * flag_bytes, _HEADER.size + 8 * frames))
        level = (flags[:frames] | (flags[8 * flag_bytes :][:frames] << 1)).astype(np.uint8)
        if not _speaks(level) or not 0 < seconds <= MAX_S:  # NaN too
            raise ValueError(f"fingerprint: {np.count_nonzero(level)} frames of speech in {seconds} s")
        return cls(words[:frames], words[frames:], level, float(seconds))


def fingerprint(samples: Samples) -> Fingerprint | None:
    """What to store of 16 kHz `samples`, float32 [n]; None for under 0.3 s of speech, over 30 s, or silence.

    What looks for it is made by `gateway.fingerprint.listen`, at twice the cost.
    """
    narrow = _telephone(samples)
    if narrow is None:
        return None
    energies = band_energies(narrow)
    level = levels(energies)
    if not _speaks(level):
        return None
    return Fingerprint(*signs_of(*changes(energies)), level, len(samples) / (2 * RATE))


def on_both_grids(samples: Samples) -> tuple[Fingerprint, Samples, Words] | None:
    """As `fingerprint`, with `between` and `strength`; and what a network hears it by, for each half frame in turn:
    band energies, linear power, float32 [2 frames, 33], and bits, uint32 [2 frames]."""
    narrow = _telephone(samples)
    if narrow is None:
        return None
    energies = half_frame_energies(narrow)
    level = levels(energies[::2])
    if not _speaks(level):
        return None
    now = changes(energies, 2 * LAG)
    bits, mask = signs_of(*now)
    code = Fingerprint(
        bits=bits[::2].copy(),
        mask=mask[::2].copy(),
        level=level,
        seconds=len(samples) / (2 * RATE),
        between=(bits[1::2].copy(), mask[1::2].copy()),
        strength=strength(*now),
    )
    return code, energies, bits


def _telephone(samples: Samples) -> Samples | None:
    """`samples` at 8 kHz, or None where there can be no fingerprint."""
    if not MIN_ACTIVE_S * 2 * RATE <= len(samples) <= MAX_S * 2 * RATE:
        return None
    power = float(np.dot(samples, samples)) / len(samples)
    if not MIN_POWER <= power < np.inf:  # NaN too
        return None
    return to_telephone_rate(samples)


def _speaks(level: Levels) -> bool:
    return bool(np.count_nonzero(level) * HOP_S >= MIN_ACTIVE_S)
