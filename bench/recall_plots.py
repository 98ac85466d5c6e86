"""Pictures of what bench.recall measured: recall over noise, by distortion beside what was asked, error curves."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

import matplotlib as mpl
import numpy as np
import numpy.typing as npt

from bench.asking import Asked
from bench.baselines import HK_THRESHOLD
from bench.bounds import share_interval, upper
from bench.distort import CONDITIONS
from bench.recall_report import GROUPS, mel_threshold, percent

mpl.use("Agg")
from matplotlib import pyplot as plt  # the backend is chosen first

SNRS: Final = ("noise 0 dB", "noise 5 dB", "noise 10 dB", "noise 20 dB", "clean copy")
OURS: Final = "#1b7f5c"
VERIFIER: Final = "#5ab4ac"
CLASSIC: Final = "#d8743c"
MEL: Final = "#8a6fc8"
EXACT: Final = "#999999"
TITLES: Final = {"words": "words of about 1 s", "speech": "speech of 2 to 10 s"}

Rows = Sequence[Asked]
Floats = npt.NDArray[np.float64]


def draw(asked: Rows, folder: Path) -> None:
    """Writes recall-by-snr.png, recall-by-distortion.png and recall-det.png into `folder`."""
    folder.mkdir(parents=True, exist_ok=True)
    groups = {name: [one for one in asked if one.group == name] for name in GROUPS}
    groups = {name: rows for name, rows in groups.items() if rows}
    _by_snr(groups, folder / "recall-by-snr.png")
    _by_distortion(groups, folder / "recall-by-distortion.png")
    _errors(groups, folder / "recall-det.png")


def _save(figure: Any, path: Path) -> None:
    figure.savefig(path, dpi=110)
    plt.close(figure)


def _by_snr(groups: dict[str, list[Asked]], path: Path) -> None:
    figure, axes = plt.subplots(1, len(groups), figsize=(5.6 * len(groups), 4.4), squeeze=False, layout="constrained")
    for axis, (name, rows) in zip(axes[0], groups.items(), strict=True):
        least = mel_threshold(rows)
        wrong = sum(one.classic_false for one in rows)
        pairs = sum(one.compared for one in rows if one.baselines)
        base = [one for one in rows if one.baselines]
        lines = [
            ("whole lookup", OURS, "o-", rows, [one.known for one in rows]),
            ("verifier alone", VERIFIER, "s--", rows, [one.judged for one in rows]),
            (f"Haitsma-Kalker at {HK_THRESHOLD}", CLASSIC, "^-", base, [one.classic < HK_THRESHOLD for one in base]),
            ("MinHash of quantised mel", MEL, "v-", base, [one.mel > least for one in base]),
            ("exact digest", EXACT, "x-", rows, [one.exact for one in rows]),
        ]
        found = [[one for one in rows if one.condition == at] for at in SNRS]
        for label, colour, style, some_rows, right in lines:
            shares = [percent(r for one, r in zip(some_rows, right, strict=True) if one.condition == at) for at in SNRS]
            axis.plot(range(len(SNRS)), shares, style, color=colour, label=label)
            if colour == OURS:
                spread = [share_interval([o.known for o in some], [o.speaker for o in some]) for some in found if some]
                places = [place for place, some in enumerate(found) if some]
                axis.fill_between(places, *np.array(spread).T, color=OURS, alpha=0.15, linewidth=0)
        axis.set_xticks(range(len(SNRS)), [at.removeprefix("noise ").removesuffix(" copy") for at in SNRS])
        axis.set(ylim=(-2, 102), xlabel="real noise, signal to noise", ylabel="recall, % of all copies")
        axis.set_title(f"{TITLES[name]}\nHaitsma-Kalker: {wrong:,} false hits in {pairs:,} pairs", size=10)
        axis.grid(alpha=0.3)
    figure.legend(*axes[0][0].get_legend_handles_labels(), loc="outside lower center", ncols=3, fontsize=8.5)
    _save(figure, path)


def _by_distortion(groups: dict[str, list[Asked]], path: Path) -> None:
    names = [name for name in CONDITIONS if any(one.condition == name for rows in groups.values() for one in rows)]
    size = (5.6 * len(groups) + 1.6, 0.34 * len(names) + 1.6)
    figure, axes = plt.subplots(1, len(groups), figsize=size, squeeze=False, sharey=True, layout="constrained")
    for axis, (group, rows) in zip(axes[0], groups.items(), strict=True):
        column = GROUPS.index(group)
        for place, name in enumerate(names):
            some = [one for one in rows if one.condition == name]
            recall = percent(one.known for one in some)
            axis.barh(place, recall, color=OURS, height=0.62, label="recall" if not place else None)
            asked_for = CONDITIONS[name]
            for wanted, colour, label in ((asked_for.floor, "black", "floor"), (asked_for.reach, CLASSIC, "to reach")):
                if wanted is not None:
                    at, high = [wanted[column]] * 2, [place - 0.42, place + 0.42]
                    axis.plot(at, high, color=colour, lw=2.4, label=None if place else label)
            axis.text(1.5, place, f"{recall:.0f}" if some else "-", va="center", color="white", fontsize=9)
        axis.set_yticks(range(len(names)), names)
        axis.set(
            xlim=(0, 101),
            ylim=(-0.7, len(names) - 0.3),
            xlabel="recall, % of all copies, whole lookup",
            title=TITLES[group],
        )
        axis.grid(axis="x", alpha=0.3)
    axes[0][0].invert_yaxis()
    figure.legend(*axes[0][0].get_legend_handles_labels(), loc="outside lower center", ncols=3)
    _save(figure, path)


def _errors(groups: dict[str, list[Asked]], path: Path) -> None:
    """Misses against queries with any false hit among all that is stored, as one threshold over one score moves."""
    figure, axes = plt.subplots(1, len(groups), figsize=(5.6 * len(groups), 4.6), squeeze=False, layout="constrained")
    for axis, (name, rows) in zip(axes[0], groups.items(), strict=True):
        base = [one for one in rows if one.baselines]
        if not base:
            continue
        scores = {
            "the verifier's score alone": (OURS, [(o.score, o.wrong_score) for o in base]),
            "Haitsma-Kalker": (CLASSIC, [(o.classic, o.classic_wrong) for o in base]),
            "MinHash of mel": (MEL, [(-o.mel, -o.mel_wrong) for o in base]),
        }
        for label, (colour, pairs) in scores.items():
            misses, alarms = trade(*np.array(pairs, np.float64).T)
            axis.plot(100 * misses, 100 * alarms, color=colour, label=label, drawstyle="steps-post")
        wrong = sum(bool(one.false) for one in rows)
        at = 100 * (1 - np.mean([one.judged for one in rows]))
        mark = {"marker": "*", "color": "black", "ms": 13, "ls": ""}
        axis.plot(at, 100 * max(wrong / len(rows), 0.5 / len(rows)), **mark, label="all tests together")
        above = 100 * upper(wrong, len(rows))
        axis.plot([at, at], [100 * max(wrong / len(rows), 0.5 / len(rows)), above], "k-", lw=1)
        axis.annotate(f"{wrong} of {len(rows):,} queries", (at, above), (6, 4), textcoords="offset points")
        axis.set(yscale="log", xlim=(0, 100), ylim=(0.3 * 100 / len(rows), 110), title=TITLES[name])
        axis.set(xlabel="misses, % of all copies", ylabel="queries with a false hit among all stored, %")
        axis.grid(alpha=0.3, which="both")
    figure.legend(*axes[0][0].get_legend_handles_labels(), loc="outside lower center", ncols=4, fontsize=9)
    _save(figure, path)


def trade(right: Floats, wrong: Floats) -> tuple[Floats, Floats]:
    """Shares of misses and of queries with a false hit at every threshold; what is not a number never passes."""
    right, wrong = (np.where(np.isnan(scores), np.inf, scores) for scores in (right, wrong))
    thresholds = np.unique(np.concatenate([right, wrong]))
    thresholds = thresholds[np.isfinite(thresholds)]
    misses = 1 - np.searchsorted(np.sort(right), thresholds, "right") / len(right)
    alarms = np.searchsorted(np.sort(wrong), thresholds, "right") / len(wrong)
    return misses, alarms
