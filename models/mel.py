"""Mel spectrograms by librosa's conventions (Slaney scale and norm), without importing librosa.

librosa compiles on its first mel call (seconds on a fresh machine), so the filterbank is written out here and the
tests hold it equal to `librosa.filters.mel` within 1e-6.
"""

from __future__ import annotations

from functools import lru_cache

import numpy as np
import numpy.typing as npt
from scipy import fft

from models.utterance import MEL_BANDS, MEL_HOP, MEL_RATE, Samples

N_FFT = 1024
LOG_FLOOR = 1e-5


def _hz_to_mel(hz: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    """Slaney's scale: linear below 1 kHz, logarithmic above (Auditory Toolbox, 1998)."""
    linear = hz / (200.0 / 3)
    logarithmic = 15.0 + np.log(np.maximum(hz, 1e-9) / 1000.0) * (27.0 / np.log(6.4))
    return np.where(hz >= 1000.0, logarithmic, linear)


def _mel_to_hz(mel: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    return np.where(mel >= 15.0, 1000.0 * np.exp((mel - 15.0) * (np.log(6.4) / 27.0)), mel * (200.0 / 3))


@lru_cache(maxsize=16)
def mel_filterbank(rate: int, n_fft: int, bands: int, fmin: float, fmax: float) -> Samples:
    """Triangular filters, area-normalised: float32 [bands, n_fft // 2 + 1]."""
    bins = np.linspace(0.0, rate / 2, n_fft // 2 + 1)
    low, high = _hz_to_mel(np.array([fmin, fmax]))
    edges = _mel_to_hz(np.linspace(low, high, bands + 2))
    widths = np.diff(edges)
    ramps = edges[:, None] - bins[None, :]
    rising = -ramps[:-2] / widths[:-1, None]
    falling = ramps[2:] / widths[1:, None]
    triangles = np.maximum(0.0, np.minimum(rising, falling))
    triangles *= (2.0 / (edges[2:] - edges[:-2]))[:, None]
    return triangles.astype(np.float32)


def frames_of(samples: Samples, n_fft: int, hop: int) -> Samples:
    """Overlapping frames as a read-only view: [1 + (n - n_fft) // hop, n_fft]; none when n < n_fft."""
    if len(samples) < n_fft:
        return np.zeros((0, n_fft), np.float32)
    return np.lib.stride_tricks.sliding_window_view(samples, n_fft)[::hop]


@lru_cache(maxsize=8)
def hann(n: int) -> Samples:
    """Periodic Hann window, float32 [n]."""
    return (0.5 - 0.5 * np.cos(2 * np.pi * np.arange(n) / n)).astype(np.float32)


def log_mel(samples: Samples) -> Samples:
    """The shared mel of a 22,050 Hz wave: float32 [80, n // 256], natural log of magnitude clamped at 1e-5.

    Padding, framing and scaling are HiFi-GAN's: reflect by (1024 - 256) / 2 on each side, no centring.
    """
    pad = (N_FFT - MEL_HOP) // 2
    if len(samples) <= pad:
        samples = np.pad(samples, (0, pad + 1 - len(samples)))
    padded = np.pad(samples.astype(np.float32, copy=False), pad, mode="reflect")
    spectrum = fft.rfft(frames_of(padded, N_FFT, MEL_HOP) * hann(N_FFT), axis=1)
    magnitude = np.sqrt(np.square(spectrum.real) + np.square(spectrum.imag) + 1e-9)
    mel = mel_filterbank(MEL_RATE, N_FFT, MEL_BANDS, 0.0, 8000.0) @ magnitude.T
    logarithms: Samples = np.log(np.maximum(mel, LOG_FLOOR)).astype(np.float32)
    return logarithms
