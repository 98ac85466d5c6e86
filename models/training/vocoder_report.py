"""Judges a vocoder on held-out real speakers beside Griffin-Lim, with a table, spectrograms and sound files."""

from __future__ import annotations

import importlib
import json
import time
from pathlib import Path

import numpy as np
import numpy.typing as npt
import soundfile
import soxr
from scipy import fft

from models.mel import LOG_FLOOR, N_FFT, frames_of, hann, log_mel, mel_filterbank
from models.training.vocoder_data import clips_to_judge, held_out, load
from models.utterance import MEL_BANDS, MEL_HOP, MEL_RATE, RECOGNIZER_RATE, Samples
from models.vocoder import Vocoder

Spectrum = npt.NDArray[np.complex128]
_PAD = (N_FFT - MEL_HOP) // 2


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


def report(vocoder: Vocoder, clips: list[Path], out: Path | None, pictures: int = 4) -> dict[str, object]:
    """Means over the clips for the vocoder and for Griffin-Lim, and CPU seconds a second of speech on this thread."""
    rows = []
    spent = heard = 0.0
    for i, clip in enumerate(clips):
        samples = load(clip)
        mel = log_mel(samples)
        target = samples[: mel.shape[1] * MEL_HOP]
        vocoder.wave(mel[:, :100])
        began = time.thread_time()
        wave = vocoder.wave(mel)
        spent += time.thread_time() - began
        heard += len(target) / MEL_RATE
        lim = griffin_lim(mel)
        rows.append({"vocoder": judge(wave, target), "griffin_lim": judge(lim, target)})
        if out and i < pictures:
            waves = {"original": target, "vocoder": wave, "griffin_lim": lim}
            for name, made in waves.items():
                soundfile.write(out / f"{i}_{name}.wav", made, MEL_RATE)
            _picture(waves, out / f"{i}.png")
    means = {
        name: {figure: round(float(np.nanmean([row[name][figure] for row in rows])), 4) for figure in rows[0][name]}
        for name in ("vocoder", "griffin_lim")
    }
    gains = [row["vocoder"]["pesq_wb"] - row["griffin_lim"]["pesq_wb"] for row in rows]
    result: dict[str, object] = {
        "clips": len(rows),
        "seconds": round(heard, 1),
        **means,
        "pesq_gain_mean": round(float(np.nanmean(gains)), 3),
        "pesq_gain_least": round(float(np.nanmin(gains)), 3),
        "cpu_per_second": round(spent / heard, 4),
    }
    if out:
        (out / "report.json").write_text(json.dumps({**result, "rows": rows}, indent=1), "utf-8")
    return result


def _picture(waves: dict[str, Samples], path: Path) -> None:
    """Log-magnitude spectrograms, one above the other."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    figure, axes = pyplot.subplots(len(waves), 1, figsize=(12, 3.2 * len(waves)), sharex=True)
    for axis, (name, wave) in zip(axes, waves.items(), strict=True):
        shown = wave[: 4 * MEL_RATE]
        magnitude = np.abs(fft.rfft(frames_of(shown, N_FFT, 128) * hann(N_FFT), axis=1)).T
        decibel = 20 * np.log10(magnitude + 1e-4)
        extent = (0, len(shown) / MEL_RATE, 0, MEL_RATE / 2)
        axis.imshow(decibel, origin="lower", aspect="auto", extent=extent, vmin=-50, vmax=30, cmap="magma")
        axis.set_title(name)
    figure.tight_layout()
    figure.savefig(path, dpi=70)
    pyplot.close(figure)


def run_report(folder: Path, data: Path, kind: str, limit: int, out: Path | None) -> dict[str, object]:
    """`report` of the model in `folder` on the held-out speakers of `data`, or on clips of another kind."""
    if out:
        out.mkdir(parents=True, exist_ok=True)
    clips = held_out(data)[:limit] if kind == "speakers_en" else clips_to_judge(data, kind, limit)
    return report(Vocoder(folder), clips, out)
