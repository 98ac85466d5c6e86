"""How something is said, whatever is said: pitch, voice quality, rhythm and dynamics of 16 kHz speech as numbers.

The measures are those known to follow arousal and vocal effort (eGeMAPS, Eyben et al. 2016; Traunmüller and Eriksson
2000): pitch and its movement, the balance of low and high bands, the first harmonic against the formants, harmonicity,
level dynamics and pace. None depends on the recording's level. The same code runs in training and in service.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from scipy import fft

from models.mel import frames_of, hann, mel_filterbank
from models.utterance import RECOGNIZER_RATE, Samples

HOP = 160
WINDOW = 768
"""48 ms: long enough to part the harmonics of a low voice."""
N_FFT = 2048
F0_MIN, F0_MAX = 60.0, 700.0
MAX_SECONDS = 30.0
"""Longer recordings are measured by their first 30 s."""
ACTIVE_DB = 30.0
"""Frames within this of the loudest twentieth count as speech."""
LEAST_VOICED = 12
"""Voiced frames (0.12 s) without which there is nothing to measure."""
BANDS, CEPSTRA = 40, 12

FEATURES = (
    *("f0_low", "f0_median", "f0_high", "f0_loud", "f0_deviation", "f0_slope", "f0_by_level"),
    *("harmonicity", "harmonicity_deviation", "alpha", "alpha_deviation", "alpha_by_level", "hammarberg"),
    *("balance_low", "balance_mid", "balance_high", "h1_h2", "h1_a1", "h1_a3", "centroid_low", "centroid_high"),
    *("level_deviation", "level_range", "level_slope", "nuclei", "voiced", "voiced_run", "pauses", "flux"),
    *(f"cepstrum_{n}" for n in range(1, CEPSTRA + 1)),
)
"""Names of what `prosody` gives, in its order."""

Flags = npt.NDArray[np.bool_]

_LAGS = np.arange(int(RECOGNIZER_RATE / F0_MAX), int(RECOGNIZER_RATE / F0_MIN) + 2)
_CANDIDATES = 4
_HERTZ = np.arange(N_FFT // 2 + 1) * (RECOGNIZER_RATE / N_FFT)
_PITCH_BAND = 1.0 / (1.0 + (_HERTZ / 1200.0) ** 6) / (1.0 + (75.0 / np.maximum(_HERTZ, 1.0)) ** 12)
"""Power gains: rumble and hum sit below the band, hiss and most formants above it."""
_VOICED_DB = 24.0
"""Frames are voiced only within this of the loudest twentieth, measured in the band: hiss may be as loud as vowels."""


@dataclass(frozen=True, slots=True)
class Track:
    """Pitch by frame of 10 ms. `f0` float32 [T] in Hz, interpolated where unvoiced; `voiced` [T]; `strength` float32
    [T], the normalised autocorrelation at the period, 0 to 1; `level` float32 [T] in dB; `power` float32 [T, 1025].
    """

    f0: Samples
    voiced: Flags
    strength: Samples
    level: Samples
    power: Samples


def track(samples: Samples) -> Track:
    """Pitch of a 16 kHz wave of at least one frame, n // 160 frames: autocorrelation under a Hann window divided by
    the window's own (Boersma 1993), candidates joined by dynamic programming."""
    frames = max(1, len(samples) // HOP)
    before = WINDOW // 2 - HOP // 2
    padded = np.pad(samples.astype(np.float32, copy=False), (before, WINDOW))
    stretches = frames_of(padded, WINDOW, HOP)[:frames]
    spectrum = fft.rfft(stretches * hann(WINDOW), N_FFT, axis=1)
    power = np.asarray(np.square(spectrum.real) + np.square(spectrum.imag), np.float32)
    level = np.asarray(10 * np.log10(power[:, 8:].sum(axis=1) + 1e-9), np.float32)
    window = fft.irfft(np.square(np.abs(fft.rfft(hann(WINDOW), N_FFT))))
    own = fft.irfft(power * _PITCH_BAND, axis=1)[:, : _LAGS[-1] + 2]
    correlation = own / (own[:, :1] + 1e-9) * (window[0] / window[: own.shape[1]])
    low = 10 * np.log10(own[:, 0] + 1e-9)
    quiet = low < np.percentile(low, 95) - _VOICED_DB
    f0, voiced, strength = _join(*_candidates(correlation, quiet))
    return Track(f0, voiced, strength, level, power)


def _candidates(correlation: Samples, quiet: Flags) -> tuple[Samples, Samples]:
    """Lags in samples and heights of the highest peaks, [T, 4]; height -1 where there is none."""
    inner = correlation[:, _LAGS]
    left, right = correlation[:, _LAGS - 1], correlation[:, _LAGS + 1]
    peak = (inner > left) & (inner >= right) & (inner > 0.3) & ~quiet[:, None]
    # A slight favour for short periods, or twice the period would do as well as the period.
    ranked = np.where(peak, inner - 0.03 * np.log2(_LAGS / _LAGS[0]), -1.0)
    best = np.argsort(-ranked, axis=1)[:, :_CANDIDATES]
    rows = np.arange(len(inner))[:, None]
    a, b, c = left[rows, best], inner[rows, best], right[rows, best]
    curve = np.minimum(a - 2 * b + c, -1e-6)
    lags = _LAGS[best] + np.clip(0.5 * (a - c) / curve, -0.5, 0.5)
    return np.asarray(lags, np.float32), np.asarray(ranked[rows, best], np.float32)


def _join(lags: Samples, heights: Samples) -> tuple[Samples, Flags, Samples]:
    """The likeliest path through candidates and an unvoiced state: f0 in Hz, voiced, strength, each [T]."""
    frames, states = len(lags), lags.shape[1] + 1
    octave = np.log2(RECOGNIZER_RATE / lags).astype(np.float64)
    # Candidates that are not there cost 2; the unvoiced state costs what a peak of 0.55 would.
    cost = np.concatenate([1.0 - heights, np.full((frames, 1), 0.45, np.float32)], axis=1).astype(np.float64)
    step = np.full((frames, states, states), 0.14)
    step[1:, :-1, :-1] = np.minimum(0.9 * np.abs(octave[:-1, :, None] - octave[1:, None, :]), 0.8)
    step[:, -1, -1] = 0.0
    back = np.zeros((frames, states), np.int64)
    total = cost[0]
    for t in range(1, frames):
        reach = total[:, None] + step[t]
        back[t] = reach.argmin(axis=0)
        total = reach.min(axis=0) + cost[t]
    path = np.zeros(frames, np.int64)
    path[-1] = int(total.argmin())
    for t in range(frames - 1, 0, -1):
        path[t - 1] = back[t, path[t]]
    rows = np.arange(frames)
    voiced = (path < states - 1) & (cost[rows, path] < 1.9)
    if not voiced.any():
        return np.full(frames, 150.0, np.float32), voiced, np.zeros(frames, np.float32)
    found = octave[rows, np.minimum(path, states - 2)]
    lower, upper = np.percentile(found[voiced], [25, 75])
    # Hirst's second pass: what lies far outside the bulk of the recording's pitch is rumble, hiss or a wrong octave.
    voiced &= (found > lower - 0.55) & (found < upper + 1.1)
    at = np.flatnonzero(voiced)
    f0 = np.exp2(np.interp(rows, at, found[at])).astype(np.float32)
    strength = np.where(voiced, np.clip(1.0 - cost[rows, path], 0.0, 0.999), 0.0)
    return f0, voiced, strength.astype(np.float32)


def prosody(samples: Samples) -> Samples:
    """The measures named by `FEATURES` of a 16 kHz wave: float32 [41]. Semitones are above 100 Hz, levels in dB, times
    in seconds. Raises `ValueError` where less than 0.12 s is voiced."""
    heard = track(samples[: int(MAX_SECONDS * RECOGNIZER_RATE)])
    active = heard.level > np.percentile(heard.level, 95) - ACTIVE_DB
    voiced = heard.voiced & active
    if int(voiced.sum()) < LEAST_VOICED:
        raise ValueError(f"samples: {0.01 * int(voiced.sum()):.2f} s is voiced speech, but at least 0.12 s is needed")
    level = heard.level[voiced].astype(np.float64)
    semitones = 12 * np.log2(heard.f0[voiced].astype(np.float64) / 100.0)
    values = [
        *_pitch(semitones, level, voiced),
        *_quality(heard, voiced, semitones, level),
        *_rhythm(heard, active, voiced),
        *_envelope(heard.power[voiced]),
    ]
    return np.array(values, np.float32)


def _pitch(semitones: npt.NDArray[np.float64], level: npt.NDArray[np.float64], voiced: Flags) -> list[float]:
    loud = level >= np.percentile(level, 67)
    joined = np.diff(np.flatnonzero(voiced)) == 1
    steps = np.clip(np.abs(np.diff(semitones)), 0.0, 2.0)[joined]
    low, median, high = np.percentile(semitones, [10, 50, 90])
    slope = 100.0 * float(steps.mean()) if len(steps) else 0.0
    return [low, median, high, float(semitones[loud].mean()), float(semitones.std()), slope, _lean(semitones, level)]


def _lean(values: npt.NDArray[np.float64], level: npt.NDArray[np.float64]) -> float:
    """How `values` rise with the level inside this recording, per dB: no channel can change that."""
    away = level - level.mean()
    return float((away * (values - values.mean())).mean() / (np.square(away).mean() + 4.0))


def _quality(
    heard: Track, voiced: Flags, semitones: npt.NDArray[np.float64], level: npt.NDArray[np.float64]
) -> list[float]:
    power, f0 = heard.power[voiced], heard.f0[voiced]
    strength = heard.strength[voiced].astype(np.float64)
    harmonicity = 10 * np.log10((strength + 1e-3) / (1.001 - strength))
    alpha = _band(power, 1000, 5000) - _band(power, 50, 1000)
    hammarberg = _peak(power, 50, 2000) - _peak(power, 2000, 5000)
    first, second = _harmonic(power, f0, 1), _harmonic(power, f0, 2)
    return [
        float(harmonicity.mean()),
        float(harmonicity.std()),
        float(alpha.mean()),
        float(alpha.std()),
        _lean(alpha, level),
        float(hammarberg.mean()),
        float((_band(power, 500, 1500) - _band(power, 60, 500)).mean()),
        float((_band(power, 1500, 4000) - _band(power, 500, 1500)).mean()),
        float((_band(power, 4000, 7600) - _band(power, 1500, 4000)).mean()),
        float((first - second).mean()),
        float((first - _peak(power, 300, 1000)).mean()),
        float((first - _peak(power, 2200, 3600)).mean()),
        _centroid(power, 200, 1100),
        _centroid(power, 1100, 4000),
    ]


def _band(power: Samples, low: float, high: float) -> npt.NDArray[np.float64]:
    """dB in a band, by frame."""
    inside = (low <= _HERTZ) & (high > _HERTZ)
    return np.asarray(10 * np.log10(power[:, inside].sum(axis=1, dtype=np.float64) + 1e-9))


def _peak(power: Samples, low: float, high: float) -> npt.NDArray[np.float64]:
    """dB of a band's strongest bin, by frame."""
    inside = (low <= _HERTZ) & (high > _HERTZ)
    return np.asarray(10 * np.log10(power[:, inside].max(axis=1).astype(np.float64) + 1e-9))


def _harmonic(power: Samples, f0: Samples, number: int) -> npt.NDArray[np.float64]:
    """dB of a harmonic, by frame: the strongest of the bins around it."""
    middle = np.round(f0 * number * (N_FFT / RECOGNIZER_RATE)).astype(np.int64)
    around = np.clip(middle[:, None] + np.arange(-2, 3), 0, power.shape[1] - 1)
    strongest = power[np.arange(len(power))[:, None], around].max(axis=1).astype(np.float64)
    return np.asarray(10 * np.log10(strongest + 1e-9))


def _centroid(power: Samples, low: float, high: float) -> float:
    """Mean over frames of a band's centre of gravity (of magnitudes), in octaves above its lower edge."""
    inside = (low <= _HERTZ) & (high > _HERTZ)
    weights = np.sqrt(power[:, inside].astype(np.float64)) + 1e-9
    return float(np.mean(weights @ np.log2(_HERTZ[inside] / low) / weights.sum(axis=1)))


def _rhythm(heard: Track, active: Flags, voiced: Flags) -> list[float]:
    first, last = np.flatnonzero(active)[[0, -1]]
    floor = float(np.percentile(heard.level, 95)) - ACTIVE_DB
    level = np.maximum(heard.level[first : last + 1].astype(np.float64), floor)
    smooth = np.convolve(np.pad(level, 3, mode="edge"), np.ones(7) / 7, mode="valid")
    talk = heard.level[active].astype(np.float64)
    seconds = 0.01 * len(level)
    runs = np.diff(np.flatnonzero(np.diff(np.pad(voiced.astype(np.int8), 1))))[::2]
    mel = np.log(heard.power[first : last + 1] @ mel_filterbank(RECOGNIZER_RATE, N_FFT, BANDS, 60.0, 7600.0).T + 1e-9)
    shape = mel - mel.mean(axis=1, keepdims=True)
    both = (active[first:last] & active[first + 1 : last + 1]) if last > first else np.zeros(0, np.bool_)
    flux = np.abs(np.diff(shape, axis=0)).mean(axis=1)[both]
    return [
        float(talk.std()),
        float(np.subtract(*np.percentile(talk, [90, 10]))),
        100.0 * float(np.abs(np.diff(smooth)).mean()) if len(smooth) > 1 else 0.0,
        _nuclei(smooth, heard.voiced[first : last + 1]) / seconds,
        float(voiced.sum() / active.sum()),
        0.01 * float(runs.mean()),
        1.0 - float(active.sum()) / len(level),
        float(flux.mean()) if len(flux) else 0.0,
    ]


def _nuclei(smooth: npt.NDArray[np.float64], voiced: Flags) -> int:
    """Syllable nuclei: voiced peaks of the level with a dip of 2 dB before them (de Jong and Wempe 2009)."""
    count, dip, top = 0, -np.inf, -np.inf
    rising = False
    for value, is_voiced in zip(smooth, voiced, strict=True):
        if rising:
            if value > top:
                top = value
            elif value < top - 2.0:
                rising, dip = False, value
        elif value < dip:
            dip = value
        elif value > dip + 2.0 and is_voiced:
            rising, top = True, value
            count += 1
    return count


def _envelope(power: Samples) -> list[float]:
    """Cepstra 1 to 12 of the mean log-mel of voiced frames: whose throat this is, by and large."""
    bank = mel_filterbank(RECOGNIZER_RATE, N_FFT, BANDS, 60.0, 7600.0)
    mean = np.log(power @ bank.T + 1e-9).mean(axis=0)
    return [float(value) for value in fft.dct(mean, norm="ortho")[1 : CEPSTRA + 1]]
