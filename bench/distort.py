"""What happens to a recording on its way to a second microphone: seeded distortions of 16 kHz speech, in memory.

Every function takes and gives float32 [n] within about -1..1. None keeps state; a seed gives the same copy again.
"""

from __future__ import annotations

import io
from collections.abc import Callable
from fractions import Fraction
from typing import Final

import numpy as np
import soundfile
import soxr
from scipy import signal

from models.utterance import Samples

RATE: Final = 16_000
Random = np.random.Generator


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


def telephone(samples: Samples) -> Samples:
    """300 to 3400 Hz and 8-bit mu-law (G.711) at 8 kHz."""
    narrow = soxr.resample(samples, RATE, 8000)
    narrow = signal.sosfilt(signal.butter(4, [300, 3400], "bandpass", fs=8000, output="sos"), narrow)
    narrow = np.clip(narrow, -1.0, 1.0)
    compressed = np.round(np.sign(narrow) * np.log1p(255 * np.abs(narrow)) / np.log(256) * 127) / 127
    expanded = np.sign(compressed) * (256 ** np.abs(compressed) - 1) / 255
    return np.asarray(soxr.resample(expanded.astype(np.float32), 8000, RATE), dtype=np.float32)


def opus(samples: Samples, compression: float = 0.95) -> Samples:
    """Through Ogg Opus and back. libsndfile maps `compression` 0..1 onto 256..6 kbit/s."""
    buffer = io.BytesIO()
    peak = max(1.0, float(np.abs(samples).max()))
    soundfile.write(buffer, samples / peak, RATE, format="OGG", subtype="OPUS", compression_level=compression)
    buffer.seek(0)
    decoded, rate = soundfile.read(buffer, dtype="float32")
    return np.asarray(decoded if rate == RATE else soxr.resample(decoded, rate, RATE), dtype=np.float32)


def room(samples: Samples, rt60: float, rng: Random) -> Samples:
    """A synthetic room: direct sound, then noise, 3 dB stronger in all, that decays by 60 dB in `rt60` seconds."""
    n = round(rt60 * RATE)
    tail = rng.normal(size=n) * 10 ** (-3 * np.arange(n) / n)
    tail[: round(0.002 * RATE)] = 0.0
    impulse = tail / np.sqrt(np.sum(tail**2)) * 10 ** (3 / 20)
    impulse[0] = 1.0
    wet = signal.fftconvolve(samples, impulse)[: len(samples) + n // 2]
    return np.asarray(wet * (np.abs(samples).max() / max(np.abs(wet).max(), 1e-9)), dtype=np.float32)


def speed(samples: Samples, percent: float) -> Samples:
    """Played `percent` faster, pitch and all."""
    ratio = Fraction(100 + percent).limit_denominator(1000) / 100
    return np.asarray(soxr.resample(samples, float(ratio.numerator), float(ratio.denominator)), dtype=np.float32)


Distortion = Callable[[Samples, Samples, Random], Samples]
"""(speech, noise clip, random) -> copy."""

DISTORTIONS: Final[dict[str, Distortion]] = {
    "clean": lambda x, noise, r: x,
    "gain -20 to +6 dB": lambda x, noise, r: gain(x, float(r.uniform(-20, 6))),
    "clip 6 dB": lambda x, noise, r: clip(x, 6.0),
    "shift 0-300 ms": lambda x, noise, r: shift(x, float(r.uniform(0, 0.3)), r),
    "noise 20 dB": lambda x, noise, r: add_noise(_late(x, r), noise, 20.0, r),
    "noise 10 dB": lambda x, noise, r: add_noise(_late(x, r), noise, 10.0, r),
    "noise 5 dB": lambda x, noise, r: add_noise(_late(x, r), noise, 5.0, r),
    "telephone": lambda x, noise, r: telephone(_late(x, r)),
    "opus 16k": lambda x, noise, r: opus(_late(x, r)),
    "telephone + noise 10 dB": lambda x, noise, r: telephone(add_noise(_late(x, r), noise, 10.0, r)),
    "room 0.3-0.6 s": lambda x, noise, r: room(_late(x, r), float(r.uniform(0.3, 0.6)), r),
    "speed +-1 %": lambda x, noise, r: speed(_late(x, r), float(r.choice([-1.0, 1.0]))),
}


def _late(samples: Samples, rng: Random) -> Samples:
    """No second microphone starts on the first one's frame grid: 0 to 50 ms late, in a quiet room."""
    return shift(samples, float(rng.uniform(0, 0.05)), rng)
