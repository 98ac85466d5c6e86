"""Pictures of what audits know: the bound over time, and the judge's errors."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import matplotlib as mpl
import numpy as np

mpl.use("Agg")
from matplotlib import pyplot as plt  # the backend is chosen first

from gateway.fingerprint.audit import SETS

Trail = Sequence[tuple[float, float, float, float, int]]
"""Share of the requests passed, bound, share of wrong ones lately and of those served, lowest band served."""


def draw_trails(trails: Mapping[str, Trail], limit: float, path: Path) -> None:
    """The upper bound, the true share of wrong hits among the last thousand and among what was served, and when how
    much was served: the darker, the less alike hits may be."""
    figure, axes = plt.subplots(len(trails), 1, figsize=(9, 2.4 * len(trails)), sharex=True, layout="constrained")
    for axis, (name, trail) in zip(axes, trails.items(), strict=True):
        time, bound, found, served, lowest = (np.array(column) for column in zip(*trail, strict=True))
        for band in range(SETS):
            axis.fill_between(100 * time, 1e-4, 1, where=lowest <= band, color="#1b7f5c", alpha=0.08, linewidth=0)
        axis.plot(100 * time, bound, color="#d8743c", label="upper 95 % bound of what is served, or may be first")
        axis.plot(
            100 * time, np.maximum(found, 1e-4), color="#999999", linewidth=1, label="wrong of the last 1,000 hits"
        )
        axis.plot(100 * time, np.maximum(served, 1e-4), color="#20509e", label="wrong of all served so far")
        axis.axhline(limit, color="black", linestyle=":", linewidth=1, label="limit")
        axis.set(yscale="log", ylim=(1e-4, 1), xlim=(0, 100), title=name, ylabel="share of hits")
    axes[0].legend(loc="upper right", fontsize=8)
    axes[-1].set_xlabel("requests passed, %")
    figure.savefig(path, dpi=110)
    plt.close(figure)


def draw_errors(curves: Mapping[str, tuple[Sequence[float], Sequence[float]]], path: Path) -> None:
    """For each kind of wrong answer: how many are not called wrong, over how many right ones are (axes in %)."""
    figure, axis = plt.subplots(figsize=(6, 4.5), layout="constrained")
    for name, (accused, missed) in curves.items():
        axis.plot(np.maximum(np.array(accused) * 100, 0.03), np.array(missed) * 100, label=name)
    axis.set(xscale="log", xlim=(0.03, 100), ylim=(0, 100))
    axis.set(xlabel="right answers called wrong, %", ylabel="wrong answers not called wrong, %")
    axis.grid(alpha=0.3)
    axis.legend()
    figure.savefig(path, dpi=110)
    plt.close(figure)
