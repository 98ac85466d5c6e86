"""What a room adds on the way to the microphone: impulse responses, simulated from a shoebox or measured, at 16 kHz.

The simulated ones follow Allen and Berkley (1979, JASA 65): each echo of flat walls is the voice of an image of the
speaker behind them. Images are moved by some centimetres at random, as real walls do, or the echoes of a
regular box ring in step.
"""

from __future__ import annotations

from pathlib import Path
from typing import Final

import numpy as np
import soundfile
import soxr
from scipy import signal

from models.utterance import Samples

RATE: Final = 16_000
SOUND: Final = 343.0
"""Metres a second."""
SMALLEST: Final = np.array([3.0, 2.5, 2.4])
LARGEST: Final = np.array([7.0, 5.5, 3.2])
"""Metres: bedrooms to meeting rooms."""
NEAR: Final = 0.5
FAR: Final = 2.0
"""Metres from mouth to microphone: a telephone on the table, an assistant on the shelf."""
DIRECT_S: Final = 0.0025
"""What comes within this of the direct sound counts as direct."""
MEASURED_RT60: Final = (0.25, 0.7)
"""Seconds: measured rooms outside this are told apart from those that were asked for, and left out."""


def simulated(rt60: float, rng: np.random.Generator) -> Samples:
    """The impulse response of a room of random size that decays by 60 dB in about `rt60` seconds: float32 [n].

    The direct sound has amplitude 1. Walls reflect alike at all frequencies, as much as Eyring's formula asks for.
    """
    size = rng.uniform(SMALLEST, LARGEST)
    volume, area = float(np.prod(size)), 2 * float(size[0] * size[1] + size[0] * size[2] + size[1] * size[2])
    reflects = float(np.exp(-12 * np.log(10) * volume / (SOUND * area * rt60)))  # = sqrt(1 - Eyring's absorption)
    mouth, ear, distance = _placed(size, rng)
    reach = SOUND * rt60
    axes = []  # per axis: where the images stand, and how often each was reflected
    for side, from_, to in zip(size, mouth, ear, strict=True):
        order = np.arange(-int(reach / (2 * side)) - 1, int(reach / (2 * side)) + 2)
        places = np.concatenate([from_ + 2 * side * order, -from_ + 2 * side * order]) - to
        bounces = np.concatenate([np.abs(2 * order), np.abs(2 * order - 1)])
        axes.append((places, bounces))
    response = np.zeros(round((distance / SOUND + rt60) * RATE) + 2)
    (x, x_bounces), (y, y_bounces), (z, z_bounces) = axes
    for across, hits in zip(x, x_bounces, strict=True):
        away = np.sqrt(across**2 + y[:, None] ** 2 + z[None] ** 2)
        bounces = hits + y_bounces[:, None] + z_bounces[None]
        away = np.abs(away + np.where(bounces > 0, rng.uniform(-0.08, 0.08, away.shape), 0.0))
        late = away / SOUND * RATE
        near = late < len(response) - 1
        whole = late[near].astype(np.int64)
        loud = distance * reflects ** bounces[near] / np.maximum(away[near], 0.1)
        part = late[near] - whole
        response += np.bincount(whole, loud * (1 - part), len(response))
        response += np.bincount(whole + 1, loud * part, len(response))
    # Images only ever add pressure; real rooms carry nothing that slow (Allen and Berkley filter there too).
    response = signal.sosfilt(signal.butter(2, 80, "highpass", fs=RATE, output="sos"), response)
    # Sound that runs along a long room meets fewer walls than Eyring thinks: the rest of the decay is put on.
    missing = max(0.0, 3 / rt60 - 3 / max(decay_time(response), 0.05))
    at = np.maximum(0, np.arange(len(response)) / RATE - distance / SOUND)
    return np.asarray(response * 10 ** (-missing * at), np.float32)


def _placed(
    size: np.ndarray[tuple[int], np.dtype[np.float64]], rng: np.random.Generator
) -> tuple[np.ndarray[tuple[int], np.dtype[np.float64]], np.ndarray[tuple[int], np.dtype[np.float64]], float]:
    """Mouth and microphone at least 30 cm from every wall, NEAR to FAR of each other, and how far that is."""
    while True:
        mouth, ear = rng.uniform(0.3, size - 0.3), rng.uniform(0.3, size - 0.3)
        distance = float(np.linalg.norm(mouth - ear))
        if NEAR <= distance <= FAR:
            return mouth, ear, distance


def measured(folder: Path) -> list[Samples]:
    """Impulse responses of a folder's WAV and FLAC files, mono at 16 kHz, from some 3 ms before the direct sound.

    Only those whose RT60 lies within MEASURED_RT60; ValueError where there is none.
    """
    found = []
    paths = sorted(path for path in folder.rglob("*") if path.suffix.lower() in (".wav", ".flac"))
    for path in paths:
        samples, rate = soundfile.read(path, dtype="float32", always_2d=True)
        response = np.asarray(soxr.resample(samples[:, 0], rate, RATE), np.float32)
        if not np.abs(response).max(initial=0.0) > 0:
            continue
        start = max(0, int(np.argmax(np.abs(response))) - 48)
        response = response[start:] / np.abs(response).max()
        if MEASURED_RT60[0] <= decay_time(response) <= MEASURED_RT60[1]:
            found.append(response)
    if not found:
        low, high = MEASURED_RT60
        raise ValueError(f"--rir {folder}: {len(paths)} WAV or FLAC files, none with an RT60 of {low} to {high} s")
    return found


def decay_time(response: Samples) -> float:
    """RT60 in seconds by Schroeder's backward integral: three times what it takes from -5 to -25 dB."""
    left = np.cumsum(response[::-1].astype(np.float64) ** 2)[::-1]
    level = 10 * np.log10(np.maximum(left / max(left[0], 1e-30), 1e-12))
    first, last = int(np.argmax(level <= -5)), int(np.argmax(level <= -25))
    return 3 * (last - first) / RATE


def direct_to_reverberant(response: Samples) -> float:
    """dB between the direct sound (within 2.5 ms of the loudest sample) and all that follows."""
    end = int(np.argmax(np.abs(response))) + round(DIRECT_S * RATE)
    direct, rest = float(np.sum(response[:end] ** 2)), float(np.sum(response[end:] ** 2))
    return 10 * float(np.log10(max(direct, 1e-30) / max(rest, 1e-30)))


def heard_in(samples: Samples, response: Samples) -> Samples:
    """`samples` as the microphone hears them in that room, at the same peak; half a second of decay at most."""
    wet = signal.fftconvolve(samples, response)[: len(samples) + min(len(response), RATE // 2)]
    return np.asarray(wet * (np.abs(samples).max() / max(float(np.abs(wet).max()), 1e-9)), dtype=np.float32)
