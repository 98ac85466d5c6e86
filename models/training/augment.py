"""What a microphone, a room, a line and a throat do to speech: cheap random changes for the recognizer's training.

Changes of pace, room, level, noise and companding are made on samples; those of vocal-tract length, equalisation,
telephone band and masks on the spectrum, where they cost next to nothing.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from numpy.random import Generator
from scipy import signal

from models.hearing import BANDS, MARGIN, N_FFT, filterbank, log_bands, power_frames
from models.utterance import RECOGNIZER_RATE, Samples


@dataclass(frozen=True, slots=True)
class Chances:
    """How likely each change is, per utterance."""

    pace: float = 0.6
    room: float = 0.15
    noise: float = 0.6
    companding: float = 0.08
    throat: float = 0.5
    colour: float = 0.4
    telephone: float = 0.12
    masks: float = 0.8


def hear(samples: Samples, rng: Generator, noise: Callable[[int], Samples], chances: Chances) -> Samples:
    """The features [T, 80] of one altered hearing of `samples` (16 kHz). `noise(n)` gives n samples of any level."""
    if rng.random() < chances.pace:
        samples = change_pace(samples, rng.uniform(0.88, 1.14))
    if rng.random() < chances.room:
        samples = in_a_room(samples, rng)
    samples = samples * (10 ** (rng.uniform(-28.0, -1.0) / 20) / max(float(np.abs(samples).max(initial=0.0)), 1e-4))
    if rng.random() < chances.noise:
        samples = add_noise(samples, noise(len(samples)), rng.uniform(0.0, 25.0))
    else:
        samples = samples + rng.standard_normal(len(samples), np.float32) * 10 ** rng.uniform(-5.5, -3.3)
    if rng.random() < chances.companding:
        samples = companded(samples)
    power = power_frames(np.pad(samples.astype(np.float32, copy=False), MARGIN))
    throat = round(rng.uniform(-0.13, 0.13), 2) if rng.random() < chances.throat else 0.0
    if rng.random() < chances.colour:
        power = power * coloured(rng)
    if rng.random() < chances.telephone:
        power = power * telephone(rng)
    heard = log_bands(power, warped_bank(throat))
    return masked(heard, rng) if rng.random() < chances.masks else heard


def change_pace(samples: Samples, factor: float) -> Samples:
    """Faster and higher by `factor`, by linear interpolation (as a tape that runs fast)."""
    places = np.arange(0.0, len(samples) - 1.001, factor)
    left = places.astype(np.int32)
    part = (places - left).astype(np.float32)
    return np.asarray(samples[left] * (1 - part) + samples[left + 1] * part, np.float32)


def in_a_room(samples: Samples, rng: Generator) -> Samples:
    """Convolved with decaying noise after a direct path: 0.1 to 0.5 s until 60 dB down."""
    decay = rng.uniform(0.1, 0.5)
    length = int(decay * RECOGNIZER_RATE)
    tail = rng.standard_normal(length, np.float32) * np.exp(np.linspace(0.0, -6.9, length, dtype=np.float32))
    tail[: int(rng.uniform(0.001, 0.01) * RECOGNIZER_RATE)] = 0.0
    tail *= rng.uniform(0.2, 0.9) / np.sqrt(float(np.square(tail).sum()) + 1e-9)
    tail[0] = 1.0
    return np.asarray(signal.fftconvolve(samples, tail)[: len(samples)], np.float32)


def add_noise(samples: Samples, noise: Samples, snr: float) -> Samples:
    """`noise` added at `snr` dB below the mean power of the whole of `samples`."""
    speech_power = float(np.square(samples).mean()) + 1e-10
    noise_power = float(np.square(noise).mean()) + 1e-10
    return np.asarray(samples + noise * np.sqrt(speech_power / noise_power / 10 ** (snr / 10)), np.float32)


def companded(samples: Samples) -> Samples:
    """Through 8-bit mu-law and back."""
    clipped = np.clip(samples, -1.0, 1.0)
    code = np.round(np.sign(clipped) * np.log1p(255 * np.abs(clipped)) / np.log(256) * 127)
    return np.asarray(np.sign(code) * np.expm1(np.abs(code) / 127 * np.log(256)) / 255, np.float32)


@lru_cache(maxsize=64)
def warped_bank(warp: float) -> Samples:
    """The filterbank of a throat longer or shorter by `warp`: float32 [80, 257]."""
    bank = filterbank()
    if warp == 0.0:
        return bank
    bins = np.arange(bank.shape[1]) * (1.0 + warp)
    return np.stack([np.interp(bins, np.arange(bank.shape[1]), row) for row in bank]).astype(np.float32)


def coloured(rng: Generator) -> Samples:
    """A smooth random equalisation of up to about 12 dB: power gains [257]."""
    knots = rng.normal(0.0, 4.0, 6)
    decibels = np.interp(np.linspace(0, 5, N_FFT // 2 + 1), np.arange(6), knots)
    return np.asarray(10 ** (decibels / 10), np.float32)


def telephone(rng: Generator) -> Samples:
    """About 300 to 3400 Hz (or only the upper limit, as of 8 kHz recordings): power gains [257]."""
    hertz = np.linspace(0, RECOGNIZER_RATE / 2, N_FFT // 2 + 1)
    low = 300.0 if rng.random() < 0.6 else 0.0
    high = rng.uniform(3300.0, 4000.0)
    octaves = np.maximum(0.0, np.log2(np.maximum(low, 1.0) / np.maximum(hertz, 10.0))) if low else 0.0 * hertz
    return np.asarray(10 ** -(octaves * 1.8 + np.clip((hertz - high) / 60.0, 0.0, 7.0)), np.float32)


def masked(heard: Samples, rng: Generator) -> Samples:
    """SpecAugment (arXiv 1904.08779): up to two bands of up to 14 and two stretches of up to 0.15 s set to the mean."""
    heard = heard.copy()
    mean = heard.mean()
    for _ in range(rng.integers(0, 3)):
        width = int(rng.integers(1, 15))
        start = int(rng.integers(0, BANDS - width))
        heard[:, start : start + width] = mean
    for _ in range(rng.integers(0, 3)):
        width = int(rng.integers(1, 16))
        if len(heard) > 4 * width:
            start = int(rng.integers(0, len(heard) - width))
            heard[start : start + width] = mean
    return heard
