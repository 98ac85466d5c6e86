"""What happens to a recording on its way to a second microphone: seeded distortions of 16 kHz speech, in memory.

Every function takes and gives float32 [n] within about -1..1. None keeps state; a seed gives the same copy again.
CONDITIONS names them as the figures do, with the recall that is asked for.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from fractions import Fraction
from typing import Final

import numpy as np
import soxr

from bench import codecs, rooms
from bench.codecs import RATE, telephone
from models.utterance import Samples

Random = np.random.Generator
ROOMS: Final = 40
"""Simulated rooms that copies are heard in."""


@dataclass(frozen=True)
class Surroundings:
    """What copies are made in: stretches of noise, and impulse responses of rooms."""

    noises: Sequence[Samples]
    measured: Sequence[Samples] = ()
    simulated: Sequence[Samples] = field(
        default_factory=lambda: [
            rooms.simulated(0.3 + 0.3 * n / (ROOMS - 1), np.random.default_rng([7, n])) for n in range(ROOMS)
        ]
    )

    def noise(self, rng: Random) -> Samples:
        return self.noises[int(rng.integers(len(self.noises)))]


def gain(samples: Samples, db: float) -> Samples:
    return np.asarray(np.clip(samples * np.float32(10 ** (db / 20)), -1.0, 1.0), dtype=np.float32)


def clip(samples: Samples, db: float) -> Samples:
    """Cut at `db` below the peak."""
    limit = float(np.abs(samples).max()) * 10 ** (-db / 20)
    return np.clip(samples, -limit, limit).astype(np.float32)


def shift(samples: Samples, seconds: float, rng: Random) -> Samples:
    """Start `seconds` later, with a quiet room (-70 dB) before and 0.1 s of it after."""
    room = rng.normal(0.0, 10 ** (-70 / 20), round((seconds + 0.1) * RATE)).astype(np.float32)
    cut = round(seconds * RATE)
    return np.concatenate([room[:cut], samples, room[cut:]])


def silence_around(samples: Samples, rng: Random) -> Samples:
    """0.2 to 1 s of digital silence before, and as much again after."""
    before, after = (np.zeros(round(float(rng.uniform(0.2, 1.0)) * RATE), np.float32) for _ in range(2))
    return np.concatenate([before, samples, after])


def speech_power(samples: Samples) -> float:
    """Mean power over the 20 ms frames within 30 dB of the loudest: silence around does not count as speech."""
    frames = samples[: len(samples) // 320 * 320].reshape(-1, 320).astype(np.float64)
    power = np.mean(frames**2, axis=1)
    return float(power[power >= power.max() * 1e-3].mean()) if len(power) else 0.0


def add_noise(samples: Samples, noise: Samples, snr_db: float, rng: Random) -> Samples:
    """Mix in a stretch of `noise`, `snr_db` below the speech; both are counted where they sound."""
    start = int(rng.integers(0, len(noise)))
    stretch = np.resize(np.roll(noise, -start), len(samples)).astype(np.float32)
    loudness = speech_power(stretch)
    if loudness <= 1e-12:
        return samples
    scale = np.sqrt(speech_power(samples) / loudness / 10 ** (snr_db / 10))
    return (samples + np.float32(scale) * stretch).astype(np.float32)


def speed(samples: Samples, percent: float) -> Samples:
    """Played `percent` faster, pitch and all."""
    ratio = Fraction(100 + percent).limit_denominator(1000) / 100
    return np.asarray(soxr.resample(samples, float(ratio.numerator), float(ratio.denominator)), dtype=np.float32)


def late(samples: Samples, rng: Random) -> Samples:
    """No second microphone starts on the first one's frame grid: 0 to 50 ms late, in a quiet room."""
    return shift(samples, float(rng.uniform(0, 0.05)), rng)


Change = Callable[[Samples, Surroundings, Random], Samples]
"""(speech, what is around, random) -> copy."""


def _noisy(snr_db: float) -> Change:
    return lambda x, around, r: add_noise(late(x, r), around.noise(r), snr_db, r)


def _room(x: Samples, responses: Sequence[Samples], r: Random) -> Samples:
    return rooms.heard_in(late(x, r), responses[int(r.integers(len(responses)))])


@dataclass(frozen=True, slots=True)
class Condition:
    """One distortion, and the recall in % that is asked for: of words, and of longer speech."""

    name: str
    change: Change
    floor: tuple[float, float] | None = None
    reach: tuple[float, float] | None = None


EASY: Final = ((93.0, 99.0), (99.0, 99.5))
CODED: Final = ((92.0, 99.0), (98.0, 99.5))
POOR: Final = ((70.0, 85.0), (92.0, 97.0))
LOSSY: Final = ((65.0, 80.0), (85.0, 92.0))
ROOM: Final = ((35.0, 50.0), (70.0, 85.0))

CONDITIONS: Final = {
    condition.name: condition
    for condition in (
        Condition("clean copy", lambda x, around, r: x, *EASY),
        Condition("gain -20 to +6 dB", lambda x, around, r: gain(x, float(r.uniform(-20, 6))), *EASY),
        Condition("clipping 6 dB", lambda x, around, r: clip(x, 6.0), *EASY),
        Condition("shift 0-300 ms", lambda x, around, r: shift(x, float(r.uniform(0, 0.3)), r), *EASY),
        Condition("silence around", lambda x, around, r: silence_around(late(x, r), r), *EASY),
        Condition("noise 20 dB", _noisy(20.0), (90, 99), (98, 99.5)),
        Condition("noise 10 dB", _noisy(10.0), (72, 93), (92, 98)),
        Condition("noise 5 dB", _noisy(5.0), (50, 70), (80, 93)),
        Condition("noise 0 dB", _noisy(0.0)),
        Condition("telephone", lambda x, around, r: telephone(late(x, r)), *CODED),
        Condition("Opus 16k", lambda x, around, r: codecs.opus(late(x, r), 16), *CODED),
        Condition("MP3 32k", lambda x, around, r: codecs.mp3(late(x, r)), *CODED),
        Condition("GSM", lambda x, around, r: codecs.gsm(late(x, r)), *POOR),
        Condition("Opus 8k", lambda x, around, r: codecs.opus(late(x, r), 8), *POOR),
        Condition("Opus 16k, 10 % lost", lambda x, around, r: codecs.opus_lossy(late(x, r), 16, 0.1, r), *LOSSY),
        Condition("10 % zeroed packets", lambda x, around, r: codecs.zeroed(late(x, r), 0.1, r), *LOSSY),
        Condition(
            "telephone + noise 10 dB", lambda x, around, r: telephone(_noisy(10.0)(x, around, r)), (68, 86), (88, 96)
        ),
        Condition("simulated room", lambda x, around, r: _room(x, around.simulated, r), *ROOM),
        Condition("measured room", lambda x, around, r: _room(x, around.measured, r), *ROOM),
        Condition("speed +-1 %", lambda x, around, r: speed(late(x, r), _sign(r)), (70, 80), (90, 90)),
        Condition("speed +-2 %", lambda x, around, r: speed(late(x, r), 2 * _sign(r)), (20, 25), (75, 75)),
    )
}


def _sign(rng: Random) -> float:
    return float(rng.choice([-1.0, 1.0]))


def possible(around: Surroundings) -> list[Condition]:
    """Those that the folders at hand allow."""
    return [c for c in CONDITIONS.values() if around.measured or c.name != "measured room"]


def copy_of(samples: Samples, condition: str, around: Surroundings, rng: Random) -> Samples:
    """`samples` as they are heard a second time."""
    return np.asarray(CONDITIONS[condition].change(samples, around, rng), dtype=np.float32)
