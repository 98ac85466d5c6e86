"""The demo's pictures: where answers came from as it went on, how long each source takes, what the moods look like."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import matplotlib as mpl
import numpy as np
import soundfile

mpl.use("Agg")
from matplotlib import pyplot as plt  # the backend is chosen first

if TYPE_CHECKING:
    from bench.demo import Row

COLOURS = {
    "HIT_EXACT": "#1b7f5c",
    "HIT_FUZZY": "#5ab4ac",
    "COALESCED": "#8fb7e8",
    "MISS": "#d8743c",
    "BYPASS": "#999999",
}


def draw_demo(rows: Sequence[Row], out: Path) -> None:
    """Writes sources.png and moods.png into `out`."""
    _sources(rows, out / "sources.png")
    _spectrograms(sorted(out.glob("mood-*.wav")) + sorted(out.glob("voice-*.wav")), out / "moods.png")


def _sources(rows: Sequence[Row], path: Path) -> None:
    figure, (left, right) = plt.subplots(1, 2, figsize=(12, 4.2), width_ratios=(3, 2), layout="constrained")
    statuses = [row.info.status for row in rows]
    steps = np.arange(1, len(rows) + 1)
    floor = np.zeros(len(rows))
    for status, colour in COLOURS.items():
        share = np.cumsum([one == status for one in statuses]) / steps
        if share[-1] or share.any():
            left.fill_between(steps, floor, floor + share, color=colour, label=status, linewidth=0)
            floor = floor + share
    left.set(xlim=(1, len(rows)), ylim=(0, 1), xlabel="requests so far", ylabel="share of answers")
    left.set_title("Where answers came from")
    left.legend(loc="lower right", framealpha=0.9)
    labels, times, colours = [], [], []
    for status, colour in COLOURS.items():
        for tier in ("device", "redis", ""):
            found = [row.info.elapsed_s * 1e3 for row in rows if (row.info.status, row.info.tier) == (status, tier)]
            if found:
                labels.append(f"{status} {tier}".strip())
                times.append(found)
                colours.append(colour)
    boxes = right.boxplot(times, orientation="horizontal", whis=(5, 95), showfliers=False, patch_artist=True)
    for box, colour in zip(boxes["boxes"], colours, strict=True):
        box.set_facecolor(colour)
    right.set_yticks(range(1, len(labels) + 1), labels)
    right.set(xscale="log", xlabel="milliseconds, as the client saw it (5 to 95 %)")
    right.set_title("How long each source takes")
    right.grid(axis="x", alpha=0.3)
    figure.savefig(path, dpi=110)
    plt.close(figure)


def _spectrograms(sounds: Sequence[Path], path: Path) -> None:
    columns = 3
    lines = -(-len(sounds) // columns)
    figure, axes = plt.subplots(lines, columns, figsize=(12, 2.3 * lines), squeeze=False, layout="constrained")
    for axis in axes.flat[len(sounds) :]:
        axis.axis("off")
    for axis, sound in zip(axes.flat, sounds, strict=False):
        samples, rate = soundfile.read(sound, dtype="float32")
        axis.specgram(samples + 1e-7, NFFT=512, Fs=rate, noverlap=384, cmap="magma", vmin=-140, vmax=-40)
        axis.set(title=sound.stem.replace("-", ": "), ylim=(0, 6000))
        axis.set_yticks([0, 2000, 4000, 6000], ["0", "2", "4", "6 kHz"])
    figure.suptitle("“Your taxi is on its way.”", fontsize=12)
    figure.savefig(path, dpi=110)
    plt.close(figure)
