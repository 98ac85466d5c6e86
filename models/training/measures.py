"""What reports and benchmarks measure with: edit distance, area under a curve, Griffin-Lim to beat, distances of waves.

No torch, so that benchmarks need none.
"""

from __future__ import annotations

import importlib
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
import soxr
from scipy import fft

from models.mel import LOG_FLOOR, N_FFT, frames_of, hann, log_mel, mel_filterbank
from models.utterance import MEL_BANDS, MEL_HOP, MEL_RATE, RECOGNIZER_RATE, Samples

Values = npt.NDArray[np.float64]
Spectrum = npt.NDArray[np.complex128]
_PAD = (N_FFT - MEL_HOP) // 2


def edits(a: Sequence[object], b: Sequence[object]) -> int:
    """Levenshtein's distance."""
    row = list(range(len(b) + 1))
    for i, left in enumerate(a, 1):
        last, row[0] = row[0], i
        for j, right in enumerate(b, 1):
            last, row[j] = row[j], min(row[j] + 1, row[j - 1] + 1, last + (left != right))
    return row[-1]


def area(high: Values, low: Values) -> float:
    """Area under the ROC curve: how often one of `high` scores above one of `low`, ties counted half."""
    ordered = np.sort(low)
    below = np.searchsorted(ordered, high, "left") + np.searchsorted(ordered, high, "right")
    return float(below.sum() / (2 * len(high) * len(low)))


def griffin_lim(mel: Samples, iterations: int = 60, momentum: float = 0.99, seed: int = 0) -> Samples:
    """Fast Griffin-Lim (Perraudin and others, 2013; librosa's default momentum) on the mel's pseudo-inverse.

    float32 [80, T] to float32 [T * 256].
    """
    bank = mel_filterbank(MEL_RATE, N_FFT, MEL_BANDS, 0.0, 8000.0).astype(np.float64)
    magnitude = np.maximum(np.linalg.pinv(bank) @ np.exp(mel), LOG_FLOOR).T
    turns = np.exp(2j * np.pi * np.random.default_rng(seed).random(magnitude.shape))
    before = np.zeros_like(turns)
    for _ in range(iterations):
        rebuilt = _spectrum(_signal(magnitude * turns))
        turns = rebuilt - momentum / (1 + momentum) * before
        turns /= np.abs(turns) + 1e-16
        before = rebuilt
    return _signal(magnitude * turns)[_PAD:-_PAD].astype(np.float32)


def _spectrum(padded: npt.NDArray[np.float64]) -> Spectrum:
    return fft.rfft(frames_of(padded.astype(np.float32), N_FFT, MEL_HOP) * hann(N_FFT), axis=1)


def _signal(spectrum: Spectrum) -> npt.NDArray[np.float64]:
    """Least-squares inverse of `_spectrum`: [T, 513] to [T * 256 + 768]."""
    frames = fft.irfft(spectrum, axis=1) * hann(N_FFT)
    total = np.zeros((len(frames) + 3, MEL_HOP))
    weight = np.zeros_like(total)
    squared = np.square(hann(N_FFT)).reshape(4, MEL_HOP)
    for i in range(4):
        total[i : i + len(frames)] += frames[:, i * MEL_HOP : (i + 1) * MEL_HOP]
        weight[i : i + len(frames)] += squared[i]
    return (total / np.maximum(weight, 1e-3)).ravel()


def stft_distance(wave: Samples, target: Samples) -> float:
    """Mean over windows 512, 1024, 2048 of spectral convergence plus the mean absolute error of the log magnitude.

    As in Parallel WaveGAN (Yamamoto and others, 2020); magnitudes are clamped at 1e-3 of a sample's full scale.
    """
    parts = []
    for size in (512, 1024, 2048):
        a, b = (np.abs(fft.rfft(frames_of(x, size, size // 4) * hann(size), axis=1)) for x in (wave, target))
        logs = np.abs(np.log(np.maximum(a, 1e-3)) - np.log(np.maximum(b, 1e-3))).mean()
        parts.append(np.linalg.norm(a - b) / np.linalg.norm(b) + logs)
    return float(np.mean(parts))


def judge(wave: Samples, target: Samples) -> dict[str, float]:
    """PESQ wideband (at 16 kHz), multi-resolution STFT distance, and mel L1 of one wave against its original.

    PESQ is not a number where it finds no utterance.
    """
    pesq = importlib.import_module("pesq").pesq

    narrow, original = (soxr.resample(x, MEL_RATE, RECOGNIZER_RATE).astype(np.float32) for x in (wave, target))
    # Where PESQ finds no utterance (very short clips) it answers -1.
    score = float(pesq(RECOGNIZER_RATE, original, narrow, "wb", on_error=1))
    return {
        "pesq_wb": score if score > 0 else float("nan"),
        "stft": stft_distance(wave, target),
        "mel_l1": float(np.abs(log_mel(wave) - log_mel(target)).mean()),
    }
