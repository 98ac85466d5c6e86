"""What the recognizer hears: log-mel features of 16 kHz speech, the same code in training and in service."""

from __future__ import annotations

import math

import numpy as np
from scipy import fft

from models.mel import frames_of, hann, mel_filterbank
from models.utterance import RECOGNIZER_RATE, Samples

BANDS = 80
WINDOW = 400
HOP = 160
N_FFT = 512
MARGIN = (WINDOW - HOP) // 2
"""Samples a feature frame reads on each side of its own 10 ms."""
FLOOR = 1e-7
CENTRE, SPREAD = -9.0, 4.0
"""Fixed, not measured per recording, so that a frame's features do not depend on what is said a minute later."""

SILENCE = (math.log(FLOOR) - CENTRE) / SPREAD
"""The feature of no sound at all."""

BLOCK = 2000
"""Frames whose spectra are held at once."""

STRIDE = 4
"""Feature frames a step of the network: its first layers halve the rate twice."""
STEP = STRIDE * HOP
STEP_SECONDS = STEP / RECOGNIZER_RATE


def power_frames(samples: Samples) -> Samples:
    """Power spectra of a 16 kHz wave with `MARGIN` samples of context already on each side: float32 [T, 257]."""
    spectrum = fft.rfft(frames_of(samples, WINDOW, HOP) * hann(WINDOW), n=N_FFT, axis=1)
    return np.asarray(np.square(spectrum.real) + np.square(spectrum.imag), np.float32)


def log_bands(power: Samples, bank: Samples) -> Samples:
    """Scaled log energies of power spectra under a filterbank [80, 257]: float32 [T, 80], about -1 to 2."""
    return np.asarray((np.log(power @ bank.T + FLOOR) - CENTRE) / SPREAD, np.float32)


def filterbank() -> Samples:
    """The recognizer's mel bands, 20 Hz to 7600 Hz: float32 [80, 257]."""
    return mel_filterbank(RECOGNIZER_RATE, N_FFT, BANDS, 20.0, 7600.0)


def features(samples: Samples) -> Samples:
    """What the network hears of a whole 16 kHz wave: float32 [n // 160, 80]; silence is taken to surround it."""
    padded = np.pad(samples.astype(np.float32, copy=False), MARGIN)
    frames, bank = len(samples) // HOP, filterbank()
    heard = np.zeros((frames, BANDS), np.float32)
    for first in range(0, frames, BLOCK):  # spectra of a long recording at once would take hundreds of megabytes
        last = min(first + BLOCK, frames)
        heard[first:last] = log_bands(power_frames(padded[first * HOP : last * HOP + 2 * MARGIN]), bank)
    return heard
