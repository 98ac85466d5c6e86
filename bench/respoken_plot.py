"""A picture of what bench.respoken measured: share answered over the wrong ones among answers, ours and baseline."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Final

import matplotlib as mpl
import numpy as np

from bench.respoken import WRONG, Asked, curve

mpl.use("Agg")
from matplotlib import pyplot as plt  # the backend is chosen first

OURS: Final = "#1b7f5c"
PLAIN: Final = "#d8743c"
MOST_WRONG: Final = 5.0
"""% of answers, as far as the picture goes."""


def draw(kinds: Mapping[str, Sequence[Asked]], threshold: float, path: Path) -> None:
    """One panel for each kind; the dot is where the frozen threshold is."""
    figure, axes = plt.subplots(1, len(kinds), figsize=(4.6 * len(kinds), 4.2), squeeze=False, layout="constrained")
    for axis, (name, rows) in zip(axes[0], kinds.items(), strict=True):
        answerable = sum(one.cached for one in rows)
        answered, wrong, at = curve([one.score for one in rows], [one.right for one in rows], answerable)
        axis.plot(100 * wrong, 100 * answered, color=OURS, label="this matcher")
        frozen = np.flatnonzero(at >= threshold)
        if len(frozen):
            axis.plot(100 * wrong[frozen[-1]], 100 * answered[frozen[-1]], "o", color=OURS, label="frozen threshold")
        for rule, style, label in ((1, "-", "ratio to the next"), (0, ":", "distance")):
            scores = [one.plain_scores[rule] for one in rows]
            answered, wrong, _ = curve(scores, [one.plain_right for one in rows], answerable)
            axis.plot(100 * wrong, 100 * answered, style, color=PLAIN, label=f"MFCC and warping, {label}")
        axis.axvline(100 * WRONG, color="0.6", linewidth=0.8)
        axis.set(xlim=(0, MOST_WRONG), ylim=(0, 100), title=name, xlabel="wrong among answers, %")
    axes[0][0].set_ylabel("answered of what was remembered, %")
    axes[0][-1].legend(fontsize=7, loc="lower right")
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=110)
    plt.close(figure)
