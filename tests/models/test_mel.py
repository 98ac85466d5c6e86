"""The shared mel against librosa, and what an empty or short wave gives."""

from __future__ import annotations

import librosa
import numpy as np
import pytest

from models.mel import frames_of, hann, log_mel, mel_filterbank


@pytest.fixture(scope="module")
def speechlike() -> np.ndarray:
    """Two seconds of harmonics that glide, a little noise, and a silence at the end."""
    random = np.random.default_rng(3)
    t = np.arange(2 * 22_050) / 22_050
    phase = 2 * np.pi * np.cumsum(120 + 40 * np.sin(2 * np.pi * 1.5 * t)) / 22_050
    wave = sum(np.sin(h * phase) / h for h in range(1, 30)) * 0.1 + 0.003 * random.standard_normal(len(t))
    wave[-4000:] = 0.0
    return wave.astype(np.float32)


@pytest.mark.parametrize(
    ("rate", "n_fft", "bands", "fmin", "fmax"),
    [(22_050, 1024, 80, 0.0, 8000.0), (16_000, 400, 80, 0.0, 8000.0), (16_000, 512, 33, 300.0, 3800.0)],
)
def test_filterbank_is_librosas(rate: int, n_fft: int, bands: int, fmin: float, fmax: float) -> None:
    theirs = librosa.filters.mel(sr=rate, n_fft=n_fft, n_mels=bands, fmin=fmin, fmax=fmax)
    assert np.abs(mel_filterbank(rate, n_fft, bands, fmin, fmax) - theirs).max() < 1e-6


def test_log_mel_is_hifi_gans(speechlike: np.ndarray) -> None:
    padded = np.pad(speechlike, 384, mode="reflect")
    spectrum = librosa.stft(padded, n_fft=1024, hop_length=256, win_length=1024, window="hann", center=False)
    bank = librosa.filters.mel(sr=22_050, n_fft=1024, n_mels=80, fmin=0, fmax=8000)
    theirs = np.log(np.maximum(bank @ np.sqrt(np.square(np.abs(spectrum)) + 1e-9), 1e-5))
    ours = log_mel(speechlike)
    assert ours.shape == theirs.shape == (80, len(speechlike) // 256)
    assert ours.dtype == np.float32
    assert np.abs(ours - theirs).max() < 1e-3


@pytest.mark.parametrize("samples", [0, 1, 300, 1024, 22_050])
def test_frames_are_whole_hops(samples: int) -> None:
    mel = log_mel(np.zeros(samples, np.float32))
    assert mel.shape == (80, max(samples // 256, 1))
    assert np.isfinite(mel).all()


def test_frames_do_not_copy() -> None:
    wave = np.arange(2048, dtype=np.float32)
    frames = frames_of(wave, 1024, 256)
    assert frames.shape == (5, 1024)
    assert np.shares_memory(frames, wave)
    assert frames_of(wave[:100], 1024, 256).shape == (0, 1024)
    assert hann(1024)[0] == 0.0
    assert hann(1024)[512] == 1.0
