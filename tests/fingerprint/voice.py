"""Speech-like sound for tests: a buzz through moving formants, in syllables, seeded. Not speech, but shaped like it."""

from __future__ import annotations

import numpy as np
from scipy import signal

from models.utterance import Samples

RATE = 16_000


def say(seed: int, syllables: int = 5) -> Samples:
    """`syllables` of 0.2 s with a quiet tenth of a second around: float32, peak 0.5. Another seed, other words."""
    rng = np.random.default_rng(seed)
    parts = [syllable(rng) for _ in range(syllables)]
    around = np.zeros(RATE // 10)
    return quiet_room(np.concatenate([around, *parts, around]), seed)


def syllable(rng: np.random.Generator) -> np.ndarray:
    n = round(rng.uniform(0.16, 0.24) * RATE)
    t = np.arange(n) / RATE
    pitch = rng.uniform(90, 220) * (1 + 0.1 * np.sin(2 * np.pi * rng.uniform(1, 4) * t))
    source = signal.sawtooth(2 * np.pi * np.cumsum(pitch) / RATE) + 0.1 * rng.normal(size=n)
    voiced = np.zeros(n)
    for low, high in ((280, 900), (900, 2200), (2200, 3400)):
        start, end = rng.uniform(low, high, 2)
        # Two fixed resonances, cross-faded: a formant that moves.
        fade = np.linspace(0, 1, n)
        for centre, weight in ((start, 1 - fade), (end, fade)):
            b, a = signal.iirpeak(centre, 6, fs=RATE)
            voiced += weight * signal.lfilter(b, a, source)
    return voiced * np.sin(np.pi * np.arange(n) / n) ** 0.7


def quiet_room(wave: np.ndarray, seed: int) -> Samples:
    rng = np.random.default_rng(seed + 10_000)
    wave = 0.5 * wave / np.abs(wave).max() + rng.normal(0, 1e-4, len(wave))
    return wave.astype(np.float32)


def splice(first: int, middle: int, last: int) -> Samples:
    """Five syllables of which the third is `middle`'s: a carrier with one word in it."""
    before, after = np.random.default_rng(first), np.random.default_rng(last)
    word = syllable(np.random.default_rng(middle))
    parts = [syllable(before), syllable(before), word, syllable(after), syllable(after)]
    around = np.zeros(RATE // 10)
    return quiet_room(np.concatenate([around, *parts, around]), first)


def hiss(samples: Samples, snr_db: float, seed: int) -> Samples:
    """White noise `snr_db` below the mean power of `samples`."""
    noise = np.random.default_rng(seed).normal(size=len(samples))
    return (samples + noise * np.sqrt(np.mean(samples**2) / 10 ** (snr_db / 10))).astype(np.float32)
