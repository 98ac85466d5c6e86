"""The curve that the keys are chosen on: who is found against who is turned away, by length of key and probes asked."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import numpy as np

from bench.figures import Figure, Figures
from bench.fill import fill
from gateway.fingerprint.bits import Fingerprint
from gateway.fingerprint.index import RecallIndex
from gateway.fingerprint.keys import Shape

SHAPES: Final = (Shape(8, 3, 4), Shape(9, 3, 4), Shape(11, 3, 4), Shape(16, 2, 6), Shape(14, 3, 6), Shape(16, 3, 6))
BUDGETS: Final = (512, 1536)


@dataclass(frozen=True, slots=True)
class Point:
    """One kind of key: bits in all, probes, strangers turned away in %, and true candidates by distortion in %."""

    shape: Shape
    budget: int
    away: float
    found: dict[str, float]


def curve(
    real: Sequence[tuple[bytes, Fingerprint, tuple[str, ...]]],
    prints: list[Fingerprint],
    known: list[tuple[str, bytes, Fingerprint]],
    strangers: list[Fingerprint],
    entries: int,
    out: Figures,
) -> list[Point]:
    points = []
    for shape in SHAPES:
        index = RecallIndex(flat_frames=0, shape=shape)
        index.add_many(real)
        for batch in fill(prints, max(0, entries - len(real)), np.random.default_rng(6)):
            index.add_many(batch)
        for budget in BUDGETS:
            index.budget = budget
            away = 100 * float(np.mean([index.turns_away(one) for one in strangers]))
            among: dict[str, list[bool]] = {}
            for name, id, query in known:
                among.setdefault(name, []).append(any(one.id == id for one in index.candidates(query)))
            found = {name: 100 * float(np.mean(hits)) for name, hits in among.items()}
            points.append(Point(shape, budget, away, found))
            label = f"curve at {entries}: {shape.bits} bits x {shape.frames}, {budget} probes"
            out.add(Figure(f"{label}: turned away", away, "%"))
            for name, share in found.items():
                out.add(Figure(f"{label}: {name}", share, "%"))
    return points


def plot(points: list[Point], path: Path) -> None:
    """True candidates over strangers turned away; one line a distortion and number of probes."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    names = list(points[0].found)
    figure, axes = pyplot.subplots(1, len(names), figsize=(3 * len(names), 3.4), sharey=True)
    for axis, name in zip(np.atleast_1d(axes), names, strict=True):
        for budget in BUDGETS:
            line = [point for point in points if point.budget == budget]
            axis.plot(
                [p.away for p in line], [p.found[name] for p in line], "o-", markersize=3, label=f"{budget} probes"
            )
            for point in line if budget == BUDGETS[-1] else []:
                axis.annotate(f"{point.shape.bits}x{point.shape.frames}", (point.away, point.found[name]), fontsize=6)
        axis.set_title(name, fontsize=9)
        axis.set_xlabel("strangers turned away, %", fontsize=8)
        axis.grid(alpha=0.3)
    np.atleast_1d(axes)[0].set_ylabel("right one among the candidates, %", fontsize=8)
    np.atleast_1d(axes)[0].legend(fontsize=7)
    figure.tight_layout()
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=110)
