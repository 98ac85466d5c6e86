"""Speech said again with more or less arousal: the same words by the same throat at another pitch, effort and pace.

Nobody acted for the data that may be trained on, so arousal is put into plain speech the way it is known to show there
(Banse and Scherer 1996, Traunmüller and Eriksson 2000, Juslin and Laukka 2003): pitch mean and range, a flatter or
steeper spectrum, a weaker or stronger fundamental, a higher first formant, pace, dynamics, breath. Pitch and pace
change by overlapping grains of two periods (TD-PSOLA, Moulines and Charpentier 1990), the rest in the spectrum.
"""

from __future__ import annotations

from dataclasses import astuple, dataclass, fields

import numpy as np
from numpy.random import Generator
from scipy import fft

from models.mel import frames_of, hann
from models.prosody import HOP, Track
from models.utterance import RECOGNIZER_RATE, Samples

_SIZE, _STEP = 512, 128
_LIFTER = 28
"""Cepstral coefficients of the envelope: below the period of any voice here."""


@dataclass(frozen=True, slots=True)
class Change:
    """What is done to a recording; zeros change nothing."""

    pitch: float = 0.0
    """Semitones."""
    span: float = 0.0
    """Natural log of the factor of the pitch's movement in semitones."""
    tilt: float = 0.0
    """dB per octave from 500 Hz to 4 kHz."""
    first: float = 0.0
    """dB of the fundamental."""
    formant: float = 0.0
    """Natural log of the factor of the frequencies below 1 kHz of the envelope."""
    pace: float = 0.0
    """Natural log of the factor of the rate."""
    dynamics: float = 0.0
    """Natural log of the factor of level differences in dB."""
    breath: float = 0.0
    """Share of the band above 1.5 kHz whose phases are lost, 0 to 1."""


CUES = tuple(field.name for field in fields(Change))
SCALES = (5.0, 0.4, 2.5, 4.0, 0.1, 0.15, 0.25, 0.5)
"""Sizes by which the cues are divided to be learned together."""


def scaled(change: Change) -> Samples:
    """The cues of a change as targets of about unit size: float32 [8]."""
    return np.asarray(np.array(astuple(change)) / np.array(SCALES), np.float32)


def draw(arousal: float, rng: Generator) -> Change:
    """A change of that arousal, -1 to 1. Each cue takes part to a random degree, so that none can be relied upon."""

    def cue(least: float, most: float, least_calm: float, most_calm: float, stray: float) -> float:
        bounds = (least, most) if arousal >= 0 else (least_calm, most_calm)
        return float(arousal * rng.uniform(*bounds) + rng.normal(0.0, stray))

    return Change(
        pitch=cue(1.5, 10.0, 0.0, 3.5, 0.7),
        span=cue(-0.1, 0.6, 0.0, 0.7, 0.1),
        tilt=cue(0.5, 4.5, 0.5, 3.5, 0.4),
        first=-cue(0.0, 8.0, 0.0, 4.0, 0.7),
        formant=cue(0.0, 0.2, 0.0, 0.05, 0.01),
        pace=cue(-0.15, 0.25, -0.05, 0.25, 0.08),
        dynamics=cue(-0.1, 0.45, 0.0, 0.35, 0.06),
        breath=float(np.clip(-arousal * rng.uniform(0.0, 0.8), 0.0, 0.8)),
    )


def alter(samples: Samples, heard: Track, change: Change, rng: Generator) -> Samples:
    """`samples` (16 kHz, with their `track`) changed: float32 of another length where the pace changes."""
    said, f0, voiced = _grains(samples, heard, change)
    return _coloured(said, f0, voiced, change, rng)


def _grains(samples: Samples, heard: Track, change: Change) -> tuple[Samples, Samples, Samples]:
    """Pitch and pace: the new wave, and its F0 in Hz and voicing at its frames of 10 ms."""
    marks, periods = _marks(samples, heard)
    frame = np.minimum(marks // HOP, len(heard.f0) - 1)
    octave = np.log2(heard.f0)
    middle = float(octave[heard.voiced].mean()) if heard.voiced.any() else 0.0
    wanted = np.exp2(middle + (octave - middle) * np.exp(change.span) + change.pitch / 12)
    wanted = np.clip(wanted, 55.0, 650.0)
    rate = float(np.exp(change.pace))
    length = int(len(samples) / rate)
    wave = np.zeros(length + 2 * RECOGNIZER_RATE, np.float64)
    padded = np.pad(samples, RECOGNIZER_RATE // 4)
    at, here = 0.0, 0
    while at < length:
        source = at * rate
        while here + 1 < len(marks) and abs(marks[here + 1] - source) <= abs(marks[here] - source):
            here += 1
        half = int(periods[here])
        step = RECOGNIZER_RATE / float(wanted[frame[here]]) if heard.voiced[frame[here]] else half
        middle_of = marks[here] + RECOGNIZER_RATE // 4
        grain = padded[middle_of - half : middle_of + half] * hann(2 * half)
        start = round(at) + RECOGNIZER_RATE // 4 - half
        # Grains that come closer together or further apart keep the power, not the sum.
        wave[start : start + 2 * half] += grain * np.sqrt(step / half)
        at += step
    said = wave[RECOGNIZER_RATE // 4 : RECOGNIZER_RATE // 4 + length].astype(np.float32)
    places = np.minimum((np.arange(max(1, length // HOP)) * rate).astype(np.int64), len(wanted) - 1)
    return said, wanted[places].astype(np.float32), heard.voiced[places].astype(np.float32)


def _marks(samples: Samples, heard: Track) -> tuple[np.ndarray, np.ndarray]:
    """Sample numbers of one mark a period (each 5 ms where unvoiced), on peaks of the low-passed wave; and periods."""
    low = np.convolve(samples, hann(24) / hann(24).sum(), mode="same")
    marks: list[int] = []
    periods: list[int] = []
    at = 0
    while at < len(samples):
        frame = min(at // HOP, len(heard.f0) - 1)
        if heard.voiced[frame]:
            period = round(RECOGNIZER_RATE / float(heard.f0[frame]))
            reach = period // 4 if marks else period // 2
            first = max(at - reach, 0)
            found = first + int(np.argmax(low[first : at + reach + 1]))
            at = found if not marks or found > marks[-1] else at
        else:
            period = 80
        marks.append(at)
        periods.append(period)
        at += period
    return np.array(marks), np.array(periods)


def _coloured(said: Samples, f0: Samples, voiced: Samples, change: Change, rng: Generator) -> Samples:
    """The spectral part of a change, frame by frame of 32 ms."""
    padded = np.pad(said, _SIZE)
    window = np.sqrt(hann(_SIZE))
    spectrum = fft.rfft(frames_of(padded, _SIZE, _STEP) * window, axis=1)
    hertz = np.arange(_SIZE // 2 + 1) * (RECOGNIZER_RATE / _SIZE)
    place = np.clip((np.arange(len(spectrum)) * _STEP - _SIZE // 2) // HOP, 0, len(f0) - 1)
    f0, voiced = f0[place][:, None], voiced[place][:, None]
    magnitude = np.abs(spectrum) + 1e-6
    gain = np.broadcast_to(change.tilt * np.log2(np.clip(hertz, 500.0, 4000.0) / 500.0), magnitude.shape).copy()
    gain += change.first * voiced / (1.0 + (hertz / (1.4 * f0)) ** 8)
    gain += _moved_formant(magnitude, hertz, change.formant) * voiced
    level = 10 * np.log10(np.square(magnitude).sum(axis=1))
    smooth = np.convolve(np.pad(level, 4, mode="edge"), np.ones(9) / 9, mode="valid")
    top = np.percentile(smooth, 90)
    gain += ((np.exp(change.dynamics) - 1.0) * np.clip(smooth - top, -30.0, 6.0))[:, None]
    spectrum = spectrum * 10 ** (np.clip(gain, -40.0, 40.0) / 20)
    if change.breath > 0:
        share = change.breath * np.clip((hertz - 1000.0) / 1000.0, 0.0, 1.0)
        noise = np.exp(2j * np.pi * rng.random(spectrum.shape))
        spectrum = np.sqrt(1.0 - share) * spectrum + np.sqrt(share) * np.abs(spectrum) * noise
    grains = fft.irfft(spectrum, axis=1) * window
    wave = np.zeros(len(padded))
    for n in range(_SIZE // _STEP):  # grains n, n + 4, n + 8, ... lie end to end
        row = grains[n :: _SIZE // _STEP].reshape(-1)
        wave[n * _STEP : n * _STEP + len(row)] += row
    return np.asarray(wave[_SIZE : _SIZE + len(said)] / 2.0, np.float32)


def _moved_formant(magnitude: np.ndarray, hertz: np.ndarray, formant: float) -> np.ndarray:
    """dB by which the envelope below 1 kHz moves up by exp(formant), easing off to nothing at 2 kHz: [T, 257]."""
    if abs(formant) < 1e-4:
        return np.zeros_like(magnitude)
    cepstrum = fft.irfft(np.log(magnitude), axis=1)
    cepstrum[:, _LIFTER : _SIZE - _LIFTER + 1] = 0.0
    envelope = fft.rfft(cepstrum, axis=1).real * (20 / np.log(10))
    ease = np.clip((2000.0 - hertz) / 1000.0, 0.0, 1.0)
    places = hertz * np.exp(-formant * ease) * (_SIZE / RECOGNIZER_RATE)
    below = np.clip(places.astype(np.int64), 0, len(hertz) - 2)
    part = places - below
    return np.asarray(envelope[:, below] * (1 - part) + envelope[:, below + 1] * part - envelope)
