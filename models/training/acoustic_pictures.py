"""Pictures of the acoustic model: its mels beside its teachers', and what a mood does to the pitch."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import matplotlib as mpl
import numpy as np
import soxr
from matplotlib.figure import Figure
from PIL import Image

from models.mel import log_mel
from models.training.vocoder_pitch import Pitch
from models.utterance import MEL_HOP, MEL_RATE, RECOGNIZER_RATE, Samples

mpl.use("Agg")
from matplotlib import pyplot as plt  # the backend is chosen first

COLOURS = {"neutral": "#555555", "cheerful": "#e0a020", "sad": "#3b6fb6", "angry": "#c23b2e", "calm": "#3a9b6d"}


def draw_spectrograms(path: Path, pairs: Mapping[str, tuple[Samples, Samples]], text: str) -> None:
    """A row a voice: the teacher's wave at 16 kHz as a mel on the left, the model's mel [80, T] on the right."""
    figure, axes = plt.subplots(len(pairs), 2, figsize=(12, 1.25 * len(pairs) + 0.6), sharex=True, layout="constrained")
    for row, (voice, (wave, mel)) in zip(axes, pairs.items(), strict=True):
        for axis, shown in zip(row, (log_mel(soxr.resample(wave, RECOGNIZER_RATE, MEL_RATE)), mel), strict=True):
            seconds = shown.shape[1] * MEL_HOP / MEL_RATE
            top = np.percentile(shown, 99.5)
            axis.imshow(
                shown, origin="lower", aspect="auto", extent=(0, seconds, 0, 80), vmin=top - 8, vmax=top, cmap="magma"
            )
            axis.set_yticks([])
        row[0].set_ylabel(voice)
    longest = max(max(len(wave) / RECOGNIZER_RATE, mel.shape[1] * MEL_HOP / MEL_RATE) for wave, mel in pairs.values())
    axes[0, 0].set(title="the teacher", xlim=(0, longest))
    axes[0, 1].set_title("this model")
    for axis in axes[-1]:
        axis.set_xlabel("seconds")
    figure.suptitle(f"80 mel bands to 8 kHz of “{text}”", fontsize=11)
    _save(figure, path)


def draw_moods(path: Path, contours: Mapping[str, Mapping[str, Pitch]], text: str) -> None:
    """A panel a voice: the fundamental of the sentence in every mood."""
    figure, axes = plt.subplots(1, len(contours), figsize=(12, 4), layout="constrained", squeeze=False)
    for axis, (voice, moods) in zip(axes[0], contours.items(), strict=True):
        for mood, pitch in moods.items():
            shown = np.where(pitch.voiced, pitch.f0, np.nan)
            axis.plot(np.arange(len(shown)) * MEL_HOP / MEL_RATE, shown, label=mood, color=COLOURS.get(mood))
        axis.set(title=voice, xlabel="seconds", ylabel="fundamental, Hz")
        axis.grid(alpha=0.3)
    axes[0, 0].legend(fontsize=8)
    figure.suptitle(f"“{text}”", fontsize=11)
    _save(figure, path)


def _save(figure: Figure, path: Path) -> None:
    """As a picture of 256 colours, which takes a third of the bytes."""
    figure.savefig(path, dpi=80)
    plt.close(figure)
    with Image.open(path) as picture:
        reduced = picture.convert("RGB").quantize(256)
    reduced.save(path, optimize=True)
