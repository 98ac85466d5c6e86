"""Judges a vocoder on held-out real speakers beside Griffin-Lim, with a table, spectrograms and sound files."""

from __future__ import annotations

import json
import time
from pathlib import Path

import numpy as np
import soundfile
from scipy import fft

from models.mel import N_FFT, frames_of, hann, log_mel
from models.training.measures import griffin_lim, judge
from models.training.vocoder_data import clips_to_judge, held_out, load
from models.utterance import MEL_HOP, MEL_RATE, Samples
from models.vocoder import Vocoder


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
