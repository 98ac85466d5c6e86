"""The pictures: error by dimension, confusion of words, spectrograms beside the originals, moods. Small PNG files."""

from __future__ import annotations

import io
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

import matplotlib as mpl
import numpy as np
import soxr
from PIL import Image

from bench.models.recognizer import Confusion
from bench.models.synthesizer import MEASURES, UNITS, Moods, Pair
from bench.models.targets import FALLS, TARGETS
from bench.models.voices import Errors
from models.training.vocoder_pitch import track
from models.utterance import MEL_HOP, MEL_RATE, RECOGNIZER_RATE, Samples

mpl.use("Agg")
from matplotlib import pyplot as plt  # the backend is chosen first

COLOURS: Final = {"neutral": "#555555", "cheerful": "#e0a020", "sad": "#3b6fb6", "angry": "#c23b2e", "calm": "#3a9b6d"}
SHOWN_S, SHOWN_HZ = 2.2, 8_000
"""Of a spectrogram; the mel ends there."""


def save(figure: Any, path: Path, colours: int = 160) -> None:
    """With few colours, so that the page stays light."""
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=80)
    plt.close(figure)
    buffer.seek(0)
    with Image.open(buffer) as image:
        image.convert("RGB").quantize(colours, dither=Image.Dither.NONE).save(path, optimize=True)


def draw_errors(errors: Errors, path: Path) -> None:
    """Equal error rate by dimension with its targets, and the trade-off behind each."""
    figure, (left, right) = plt.subplots(1, 2, figsize=(11, 4.4), layout="constrained")
    at = list(errors.rates)
    rates = [100 * errors.rates[d] for d in at]
    low, high = ([100 * errors.intervals[d][n] for d in at] for n in (0, 1))
    left.fill_between(at, low, high, color="#1b7f5c", alpha=0.2, linewidth=0, label="95 % over speakers")
    left.plot(at, rates, "o-", color="#1b7f5c", label="measured")
    published = [*FALLS, 256]
    left.plot(
        published, [rates[-1] * FALLS.get(d, 1.0) for d in published], "--", color="#999999", label="M-Vec's fall"
    )
    targets = [d for d in at if f"voice encoder: equal error rate at {d}" in TARGETS]
    asked = [100 * TARGETS[f"voice encoder: equal error rate at {d}"].value for d in targets]
    left.plot(targets, asked, "v", color="#c23b2e", label="target: at most")
    left.set(xscale="log", xlabel="dimensions compared", ylabel="equal error rate, %", ylim=(0, None))
    left.set_xticks(at, [str(d) for d in at])
    left.minorticks_off()
    left.grid(alpha=0.3)
    left.legend()
    shades = plt.get_cmap("viridis")(np.linspace(0.85, 0.1, len(at)))
    for shade, (dimensions, (alarms, misses)) in zip(shades, errors.curves.items(), strict=True):
        right.plot(100 * alarms, 100 * misses, color=shade, label=str(dimensions))
    right.plot([0, 60], [0, 60], ":", color="#999999")
    right.set(xlim=(0, 60), ylim=(0, 60), xlabel="others accepted, %", ylabel="same voice refused, %")
    right.grid(alpha=0.3)
    right.legend(title="dimensions")
    figure.suptitle("Voice encoder: people it never heard, segments of 2 to 4 s")
    save(figure, path)


def draw_confusion(confusion: Confusion, path: Path) -> None:
    """What was said (rows) and what was heard (columns), in % of each row."""
    tables = {"clean": confusion.clean, "10 dB of noise": confusion.noisy}
    tables = {name: table for name, table in tables.items() if table.sum()}
    size = max(4.0, 0.17 * len(confusion.words) + 1.2)
    figure, axes = plt.subplots(1, len(tables), figsize=(size * len(tables), size), layout="constrained", squeeze=False)
    ticks = range(len(confusion.words))
    for axis, (name, table) in zip(axes[0], tables.items(), strict=True):
        shares = 100 * table / np.maximum(table.sum(axis=1, keepdims=True), 1)
        shares[table.sum(axis=1) == 0] = np.nan  # never said
        axis.set_facecolor("#eeeeee")
        image = axis.imshow(np.sqrt(shares), cmap="Greens", vmin=0, vmax=10)
        axis.set_xticks(ticks, confusion.words, rotation=90, fontsize=7)
        axis.set_yticks(ticks, confusion.words, fontsize=7)
        right = int(np.trace(table))
        axis.set_title(
            f"{name}: {right} of {int(table.sum())} right, likeliest of {len(confusion.words)} words", fontsize=9
        )
        axis.set(xlabel="heard", ylabel="said")
    bar = figure.colorbar(image, ax=axes, shrink=0.7, ticks=[0, np.sqrt(5), 5, np.sqrt(50), 10])
    bar.ax.set_yticklabels(["0", "5", "25", "50", "100 %"])
    save(figure, path)


def draw_spectrograms(waves: Mapping[str, Samples], rate: int, title: str, path: Path) -> None:
    """One above the other, in dB below the loudest of the first."""
    shown = {name: wave[: round(SHOWN_S * rate)] for name, wave in waves.items()}
    longest = max(map(len, shown.values())) / rate
    figure, axes = plt.subplots(len(shown), 1, figsize=(9, 2.2 * len(shown) + 0.5), sharex=True, layout="constrained")
    window = np.hanning(1024)
    for axis, (name, wave) in zip(np.atleast_1d(axes), shown.items(), strict=True):
        frames = np.lib.stride_tricks.sliding_window_view(np.pad(wave, 512), 1024)[::128] * window
        decibel = 20 * np.log10(np.abs(np.fft.rfft(frames, axis=1)).T + 1e-5)
        decibel = decibel[: round(SHOWN_HZ * 1024 / rate)]
        top = float(np.percentile(decibel, 99.8))
        extent = (0, len(wave) / rate, 0, SHOWN_HZ / 1000)
        axis.imshow(decibel, origin="lower", aspect="auto", extent=extent, vmin=top - 60, vmax=top, cmap="magma")
        axis.set(xlim=(0, longest), ylabel="kHz")
        axis.set_title(name, fontsize=9, loc="left")
    axes[-1].set_xlabel("seconds")
    figure.suptitle(title, fontsize=11)
    save(figure, path, 48)


def draw_vocoder(waves: Mapping[str, Samples], path: Path) -> None:
    draw_spectrograms(waves, MEL_RATE, "Vocoder: real speech, from its mel alone", path)


def draw_synthesizer(pair: Pair, path: Path) -> None:
    teacher = np.asarray(soxr.resample(pair.teacher, RECOGNIZER_RATE, MEL_RATE), np.float32)
    waves = {f"teacher ({pair.voice}, 16 kHz)": teacher, "this synthesizer": pair.ours}
    draw_spectrograms(waves, MEL_RATE, f"“{pair.text}”", path)


def draw_moods(moods: Moods, path: Path) -> None:
    """The pitch of one sentence in every mood, and what each mood does to every voice."""
    figure = plt.figure(figsize=(11, 6.4), layout="constrained")
    grid = figure.add_gridspec(2, len(MEASURES))
    top = figure.add_subplot(grid[0, :])
    for name, wave in moods.waves.items():
        pitch = track(wave)
        shown = np.where(pitch.voiced, pitch.f0, np.nan)
        top.plot(np.arange(len(shown)) * MEL_HOP / MEL_RATE, shown, color=COLOURS.get(name), label=name)
    top.set(ylabel="fundamental, Hz", xlabel="seconds")
    top.set_title(f"{moods.voice}: “{moods.text}”", fontsize=10)
    top.grid(alpha=0.3)
    top.legend(ncols=len(moods.waves), fontsize=8)
    order = [moods.names.index(name) for name in ("sad", "calm", "neutral", "cheerful", "angry") if name in moods.names]
    for place, measure in enumerate(MEASURES):
        axis = figure.add_subplot(grid[1, place])
        by_voice = moods.values[..., place].mean(axis=2)
        axis.plot(range(len(order)), by_voice[order], color="#bbbbbb", linewidth=0.8)
        for x, mood in enumerate(order):
            name = moods.names[mood]
            axis.plot(x, by_voice[mood].mean(), "o", color=COLOURS.get(name), markersize=9)
        axis.set_xticks(range(len(order)), [moods.names[mood] for mood in order], rotation=40, fontsize=8)
        axis.set_title(f"{measure}, {UNITS[measure]}", fontsize=10)
        axis.grid(axis="y", alpha=0.3)
    save(figure, path)
