"""Pitch labels for the vocoder: fundamental frequency, voicing and the fundamental's phase of recorded speech.

The vocoder's harmonic source runs on a phase that it integrates from a pitch it reads off the mel. In training the
source must stand where the recorded voice stood, or no loss could compare phases; so the recorded fundamental's own
phase is measured here. Pitch: YIN (de Cheveigné and Kawahara, 2002) candidates joined by dynamic programming.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from scipy import fft, signal

from models.mel import N_FFT, frames_of, hann
from models.utterance import MEL_HOP, MEL_RATE, Samples

F0_MIN, F0_MAX = 65.0, 500.0
_LAG_MIN, _LAG_MAX = int(MEL_RATE / F0_MAX), int(MEL_RATE / F0_MIN)
_WINDOW = 512
_CANDIDATES = 5
_UNVOICED_COST = 0.38
_SWITCH_COST = 0.12
_JUMP_COST = 2.5
_CHUNK = 4096


@dataclass(frozen=True, slots=True)
class Pitch:
    """One value a mel frame, frame t centred on sample 256 t + 128.

    `f0`: float32 [T] in Hz, interpolated where unvoiced; `voiced`: bool [T]; `phase`: float64 [T], the fundamental's
    phase in cycles, unwrapped, such that a cosine of it follows the recorded fundamental.
    """

    f0: Samples
    voiced: npt.NDArray[np.bool_]
    phase: npt.NDArray[np.float64]


def track(samples: Samples) -> Pitch:
    """Pitch of a 22,050 Hz wave, for its n // 256 mel frames. Needs at least one frame."""
    frames = len(samples) // MEL_HOP
    # Mains hum sits below the band, formants that make octave errors above it.
    band = signal.butter(3, (65.0, 1000.0), "bandpass", fs=MEL_RATE, output="sos")
    low = signal.sosfiltfilt(band, samples).astype(np.float32)
    lags, costs = _candidates(low, frames)
    f0, voiced = _join(lags, costs)
    return Pitch(f0, voiced, _fundamental_phase(samples, f0, voiced))


def _centred(samples: Samples, frames: int, width: int) -> Samples:
    """Stretches of `width` samples around the mel frames' centres, zeros outside: [frames, width]."""
    before = width // 2 - MEL_HOP // 2
    return frames_of(np.pad(samples, (before, width)), width, MEL_HOP)[:frames]


def _candidates(low: Samples, frames: int) -> tuple[Samples, Samples]:
    """The best YIN minima of each frame: lags in samples and costs, [frames, 5] (cost 9 where there is none)."""
    lags = np.full((frames, _CANDIDATES), float(_LAG_MAX), np.float32)
    costs = np.full((frames, _CANDIDATES), 9.0, np.float32)
    stretches = _centred(low, frames, _WINDOW + _LAG_MAX + 1)
    level = np.sqrt(np.mean(np.square(stretches), axis=1))
    too_quiet = level < max(3e-4, 0.03 * float(np.quantile(level, 0.95)))
    for at in range(0, frames, _CHUNK):
        x = np.ascontiguousarray(stretches[at : at + _CHUNK])
        difference = _normalised_difference(x)
        inner = difference[:, 1:-1]
        minimum = (inner < difference[:, :-2]) & (inner <= difference[:, 2:])
        minimum[:, : _LAG_MIN - 1] = False
        ranked = np.where(minimum, inner + 0.02 * np.log2(np.arange(1, inner.shape[1] + 1) / _LAG_MIN), 9.0)
        best = np.argsort(ranked, axis=1)[:, :_CANDIDATES]
        rows = np.arange(len(x))[:, None]
        left, mid, right = difference[rows, best], difference[rows, best + 1], difference[rows, best + 2]
        curve = left - 2 * mid + right
        shift = np.where(np.abs(curve) > 1e-9, 0.5 * (left - right) / np.where(curve == 0, 1, curve), 0.0)
        quiet = too_quiet[at : at + _CHUNK]
        lags[at : at + _CHUNK] = best + 1 + np.clip(shift, -0.5, 0.5)
        costs[at : at + _CHUNK] = np.where(quiet[:, None], 9.0, ranked[rows, best])
    return lags, costs


def _normalised_difference(x: Samples) -> npt.NDArray[np.float64]:
    """YIN's cumulative-mean-normalised difference function of each row, [rows, lags 0..max]."""
    size = 2048
    spectrum = fft.rfft(x, size, axis=1)
    head = fft.rfft(x[:, :_WINDOW], size, axis=1)
    correlation = fft.irfft(np.conj(head) * spectrum, size, axis=1)[:, : _LAG_MAX + 1]
    energy = np.cumsum(np.pad(np.square(x.astype(np.float64)), ((0, 0), (1, 0))), axis=1)
    moving = energy[:, _WINDOW : _WINDOW + _LAG_MAX + 1] - energy[:, : _LAG_MAX + 1]
    difference = np.maximum(energy[:, _WINDOW : _WINDOW + 1] + moving - 2 * correlation, 0.0)
    mean = np.cumsum(difference, axis=1) / np.maximum(np.arange(_LAG_MAX + 1), 1)
    return np.where(np.arange(_LAG_MAX + 1) == 0, 1.0, difference / np.maximum(mean, 1e-12))


def _join(lags: Samples, costs: Samples) -> tuple[Samples, npt.NDArray[np.bool_]]:
    """The cheapest path through the candidates and an unvoiced state: f0 [T] (interpolated) and voiced [T]."""
    frames = len(lags)
    octave = np.log2(MEL_RATE / lags).astype(np.float64)
    local = np.concatenate([costs, np.full((frames, 1), _UNVOICED_COST, np.float32)], axis=1)
    states = local.shape[1]
    back = np.zeros((frames, states), np.int64)
    total = local[0].astype(np.float64)
    step = np.full((states, states), _SWITCH_COST)
    step[-1, -1] = 0.0
    for t in range(1, frames):
        step[:-1, :-1] = np.minimum(_JUMP_COST * np.abs(octave[t - 1][:, None] - octave[t][None, :]), 1.5)
        reach = total[:, None] + step
        back[t] = np.argmin(reach, axis=0)
        total = reach[back[t], np.arange(states)] + local[t]
    path = np.zeros(frames, np.int64)
    path[-1] = int(np.argmin(total))
    for t in range(frames - 1, 0, -1):
        path[t - 1] = back[t, path[t]]
    voiced = path < states - 1
    if not voiced.any():
        return np.full(frames, 150.0, np.float32), voiced
    at = np.flatnonzero(voiced)
    known = octave[at, path[at]]
    return np.exp2(np.interp(np.arange(frames), at, known)).astype(np.float32), voiced


def _fundamental_phase(samples: Samples, f0: Samples, voiced: npt.NDArray[np.bool_]) -> npt.NDArray[np.float64]:
    """Unwrapped phase of the fundamental at each frame's centre, in cycles; carried on through what is unvoiced."""
    frames = len(f0)
    offset = np.arange(N_FFT) - N_FFT // 2
    measured = np.zeros(frames)
    stretches = _centred(samples, frames, N_FFT)
    for at in range(0, frames, _CHUNK):
        turn = np.exp(-2j * np.pi / MEL_RATE * f0[at : at + _CHUNK, None] * offset)
        measured[at : at + _CHUNK] = np.angle(np.sum(stretches[at : at + _CHUNK] * hann(N_FFT) * turn, axis=1))
    measured /= 2 * np.pi
    advance = (f0[:-1].astype(np.float64) + f0[1:]) / 2 * MEL_HOP / MEL_RATE
    phase = np.zeros(frames)
    phase[0] = measured[0]
    for t in range(1, frames):
        ahead = phase[t - 1] + advance[t - 1]
        miss = measured[t] - ahead if voiced[t] else 0.0
        phase[t] = ahead + miss - np.round(miss)
    return phase
