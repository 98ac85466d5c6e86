"""How tight the bound is beside others that are valid too: one stream of hits, one sampler, four ways to count.

Hits come in four bands of similarity; the less alike, the oftener wrong and the oftener audited, and the shares fall as
more is known, as they do in the gateway. Part of `python -m bench.audits`.
"""

from __future__ import annotations

import math
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from bench.figures import Figure, Figures
from gateway.fingerprint.audit import ALPHA, JUDGEMENTS, MORE, SETS, UNNOTICED, WEIGHTS, upper_bound, upper_bound_of

Flags = npt.NDArray[np.bool_]
Places = npt.NDArray[np.int64]

BANDS: Final = (0.10, 0.20, 0.30, 0.40)
"""Share of the hits by band, least alike first."""
RATES: Final = {"nothing wrong": (0.0, 0.0, 0.0, 0.0), "0.1 % wrong": (0.007, 0.001, 0.0003, 0.0)}
LOOKS: Final = (1000, 3000, 10_000, 30_000)
SEEDS: Final = 40
STAKES: Final = (0.99, 0.85, 0.5, 0.15)


def measure_widths(limit: float, out: Figures) -> None:
    """Adds the mean bound of each way at each of LOOKS."""
    for name, rates in RATES.items():
        found: dict[str, list[list[float]]] = {}
        for seed in range(SEEDS):
            rng = np.random.default_rng(seed)
            band = rng.choice(SETS, LOOKS[-1], p=BANDS)
            wrong = rng.random(len(band)) < np.array(rates)[band]
            risked = np.maximum(limit * np.arange(len(band)) / UNNOTICED, 1)
            least = np.minimum(np.log2(risked), WEIGHTS - 1).astype(int)
            halvings = np.maximum(0, least - np.array(MORE)[band])
            audited = rng.random(len(band)) < 0.5**halvings
            for way, bounds in _bounds(band, wrong, least, halvings, audited).items():
                found.setdefault(way, []).append(bounds)
        for way, rows in found.items():
            for look, bound in zip(LOOKS, np.mean(rows, axis=0), strict=True):
                out.add(Figure(f"bound, {name}, after {look:,} hits: {way}", 100 * float(bound), "%"))


def _bounds(band: Places, wrong: Flags, least: Places, halvings: Places, audited: Flags) -> dict[str, list[float]]:
    ways: dict[str, list[float]] = {name: [] for name in ("weights up to 1", "full weights", "by band", "no weights")}
    for look in LOOKS:
        taken = np.flatnonzero(audited[:look])
        counts = np.zeros((WEIGHTS, len(JUDGEMENTS)), np.int64)
        np.add.at(counts, (least[taken] - halvings[taken], wrong[taken].astype(int)), 1)
        ways["weights up to 1"].append(upper_bound_of(counts))
        ways["no weights"].append(upper_bound(int(wrong[taken].sum()), len(taken)))
        ways["by band"].append(_by_band(band[:look], band[taken], wrong[taken]))
        ways["full weights"].append(_full_weights(look, 0.5 ** halvings[taken], wrong[taken]))
    return ways


def _by_band(hits: Places, band: Places, wrong: Flags) -> float:
    """A bound for each band at a quarter of alpha, weighed by how many hits it has."""
    total = 0.0
    for number in range(SETS):
        mine = wrong[band == number]
        total += float(np.mean(hits == number)) * upper_bound(int(mine.sum()), len(mine), ALPHA / SETS)
    return total


def _full_weights(hits: int, share: npt.NDArray[np.floating[Any]], wrong: Flags) -> float:
    """The same bet on W / p itself, at the stakes that the least share allows from the first on: right for the plain
    average over the hits even where the rate moves."""
    stakes = np.array(STAKES) * 0.5 ** (WEIGHTS - 1)
    low, high = 0.0, 1.0
    for _ in range(40):
        middle = (low + high) / 2
        won = (hits - wrong.sum()) * np.log1p(stakes * middle)
        for weight in 1 / share[wrong]:
            won = won + np.log1p(stakes * (middle - weight))
        if np.logaddexp.reduce(won) - math.log(len(stakes)) < -math.log(ALPHA):
            low = middle
        else:
            high = middle
    return high
