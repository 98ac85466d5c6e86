"""What speaks for and against two takes saying the same, once one is laid over the other.

The mean distance along the path hides what two words differ in when that is one sound (on and one, right and eight).
So the path is looked at closely: its worst moments, by the network's frames and by the spectrum itself, how loud they
are, how far the path bends, what of either take is nowhere near in the other. A small network that has seen pairs of
takes makes log odds of these.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import numpy as np
import numpy.typing as npt

from models.utterance import Samples

DIMENSIONS: Final = 64
"""Numbers of a step that are the network's, of unit norm; the rest of it is the spectrum, in log-mel bands."""
BEYOND: Final = 2.0
"""The distance of what is not there; no two frames are further apart."""
BAND: Final = 0.3
"""How far from the straight line, as a share of a take's length, the like of a moment is looked for."""
OFF: Final = 3
"""Steps beside the path, where the cost tells how sharply the two fit."""
SOFTEST: Final = -1.5
"""Loudness, below which all is as soft."""
EVIDENCE: Final = (
    *("mean", "worst 3", "worst 5", "worst 8", "spread", "loud mean", "worst loud", "beside", "bent", "bent most"),
    *("one-sided", "worse end", "spectrum mean", "spectrum worst 3", "spectrum worst 5"),
    *("all", "spectrum all", "missing", "missing less", "missing worst", "missing worst less"),
    *("spectrum missing", "spectrum missing worst", "spectrum missing worst less"),
    *("length", "shorter", "longer"),
)
"""Names of the columns of `evidence`, in their order."""
ARRAYS: Final = ("mean", "spread", "hidden", "bias", "out")
"""Of a judge's file, beside its odds."""

Places = npt.NDArray[np.int64]
Steps = npt.NDArray[np.bool_]


@dataclass(frozen=True, slots=True)
class Laid:
    """A query of n steps beside N takes of at most m: distances and the cost of every way, padded where a take ends."""

    apart: Samples
    """One less the cosine, float32 [n, N, m]."""
    cost: Samples
    """Of the cheapest path to each pair of steps, float32 [n + 1, N, m + 1]."""
    lengths: Places

    @property
    def mean(self) -> Samples:
        """Distance of each take, [N]: mean along the cheapest path, 0 to 2."""
        return np.asarray(self.cost[-1, :, -1] / (len(self.apart) + self.lengths), np.float32)

    def only(self, chosen: Places) -> Laid:
        """Beside some of the takes, no wider than they need."""
        lengths = self.lengths[chosen]
        longest = int(lengths.max())
        return Laid(self.apart[:, chosen, :longest], self.cost[:, chosen, : longest + 1], lengths)


def lay(query: Samples, takes: Sequence[Samples]) -> Laid:
    """Of frames of unit norm [n, d] and [m, d]. A path begins and ends with both takes and leaves out no frame of
    either; a step along one take counts once, a step along both twice. Symmetric."""
    return lay_by(np.maximum(1.0 - query @ np.concatenate(list(takes)).T, 0.0), takes, BEYOND)


def lay_by(distances: Samples, takes: Sequence[Samples], beyond: float) -> Laid:
    """As `lay`, by any distances, of a query's steps to those of all takes one after the other: [n, sum of m]. `beyond`
    is as far as no two steps are."""
    lengths = np.array([len(take) for take in takes])
    there = np.arange(lengths.max()) < lengths[:, None]
    apart = np.full((len(distances), *there.shape), beyond, np.float32)
    apart[:, there] = distances
    return Laid(apart, costs(apart, there), lengths)


def costs(apart: Samples, there: Steps) -> Samples:
    """Cost of the cheapest path to each place of N matrices of distances, [n, N, m] by row: float32 [n + 1, N, m + 1].

    Steps along a row chain, so that row by row they are a running sum, and the best place to have begun it a running
    minimum. Columns that are not `there` [N, m] cost nothing to leave out.
    """
    cost = np.full((len(apart) + 1, apart.shape[1], apart.shape[2] + 1), np.inf, np.float32)
    cost[0, :, 0] = 0.0
    for row, above, below in zip(apart, cost[:-1], cost[1:], strict=True):
        along = np.where(there, row, np.float32(0.0))
        entered = np.minimum(above[:, :-1] + row + along, above[:, 1:] + row)
        run = np.cumsum(along, axis=1)
        below[:, 1:] = run + np.minimum.accumulate(entered - run, axis=1)
    return cost


def paths(laid: Laid) -> tuple[Places, Places, Samples]:
    """The cheapest path of each take, from its end to its begin: steps of the query, of the take and what each pair
    counts (2 or 1, and 0 after the begin), all [steps, N]."""
    which = np.arange(len(laid.lengths))
    row, column = np.full(len(which), len(laid.apart) - 1), laid.lengths - 1
    rows, columns, weights = [], [], []
    going = np.ones(len(which), bool)
    while going.any():
        both = laid.cost[row, which, column] + laid.apart[row, which, column]
        up, left = laid.cost[row, which, column + 1], laid.cost[row + 1, which, column]
        down_only = (up < both) & (up <= left)
        across_only = (left < both) & ~down_only
        rows.append(row)
        columns.append(column)
        weights.append(np.where(going, np.where(down_only | across_only, 1.0, 2.0), 0.0))
        going = going & ((row > 0) | (column > 0))
        row, column = row - (going & ~across_only), column - (going & ~down_only)
    return np.array(rows), np.array(columns), np.array(weights, np.float32)


def mean_of(values: Samples, weights: Samples) -> Samples:
    """Of each column, [N]."""
    return np.asarray((values * weights).sum(0) / weights.sum(0), np.float32)


def worst_of(values: Samples, weights: Samples, steps: int) -> Samples:
    """The greatest mean over so many steps in a row, of each column, [N]; of one with fewer steps, its mean."""
    whole = mean_of(values, weights)
    if len(values) < steps:
        return whole
    rising = np.zeros((3, len(values) + 1, values.shape[1]), np.float64)
    np.cumsum([values * weights, weights, weights > 0], axis=1, out=rising[:, 1:])
    total, weight, count = rising[:, steps:] - rising[:, :-steps]
    means = np.where(count == steps, total / np.maximum(weight, 1.0), -np.inf).max(0)
    return np.asarray(np.where(np.isfinite(means), means, whole), np.float32)


def evidence(query: Samples, takes: Sequence[Samples], laid: Laid) -> Samples:
    """What `Judge` weighs, float32 [takes, EVIDENCE]: of a query [n, DIMENSIONS + bands] laid beside takes [m, ...] by
    their first DIMENSIONS numbers. Equal either way round, but for the choice between equal paths."""
    n, lengths = len(query), laid.lengths
    which, longest = np.arange(len(takes)), int(lengths.max())
    there = np.arange(longest) < lengths[:, None]
    spectra = np.zeros((*there.shape, query.shape[1] - DIMENSIONS), np.float32)
    spectra[there] = np.concatenate([take[:, DIMENSIONS:] for take in takes])
    own = query[:, DIMENSIONS:]
    squares = (own**2).sum(1)[:, None, None] + (spectra**2).sum(2) - 2 * np.tensordot(own, spectra, (1, 2))
    spectrum = np.sqrt(np.maximum(squares, 0.0) / own.shape[1])
    loud, others = own.mean(1), spectra.mean(2)

    row, column, weight = paths(laid)
    cost, strange = laid.apart[row, which, column], spectrum[row, which, column]
    heard = np.exp(np.maximum(np.minimum(loud[row], others[which, column]), SOFTEST))
    mean = mean_of(cost, weight)
    bent = np.abs((row + 0.5) / n - (column + 0.5) / lengths).astype(np.float32)
    beside = [(row, np.clip(column + off, 0, lengths - 1)) for off in (-OFF, OFF)]
    beside += [(np.clip(row + off, 0, n - 1), column) for off in (-OFF, OFF)]
    off_path = np.mean([mean_of(laid.apart[one, which, other], weight) for one, other in beside], axis=0)
    ends = [mean_of(cost[:3], weight[:3]), mean_of(*last_of(cost, weight))]

    near = np.abs((np.arange(n)[:, None, None] + 0.5) / n - (np.arange(longest) + 0.5) / lengths[:, None]) < BAND
    near &= there
    every, rising = np.ones((n, len(takes)), np.float32), np.asarray(there.T, np.float32)
    missing = [np.where(near, apart, 9.0) for apart in (laid.apart, spectrum)]
    (rows, columns), (rows_s, columns_s) = ((least.min(2), least.min(0).T) for least in missing)
    lacks = [mean_of(rows, every), mean_of(columns, rising)]
    lacks_most = [worst_of(rows, every, 4), worst_of(columns, rising, 4)]
    lacks_s = [mean_of(rows_s, every), mean_of(columns_s, rising)]
    lacks_most_s = [worst_of(rows_s, every, 4), worst_of(columns_s, rising, 4)]

    size = n * lengths
    found = [
        *(mean, *(worst_of(cost, weight, steps) for steps in (3, 5, 8))),
        np.sqrt(np.maximum(mean_of(cost**2, weight) - mean**2, 0.0)),
        mean_of(cost, weight * heard**2),
        worst_of(cost * heard, weight, 5),
        off_path - mean,
        *(mean_of(bent, weight), (bent * (weight > 0)).max(0)),
        (weight == 1).sum(0) / (weight > 0).sum(0),
        np.maximum(*ends),
        *(mean_of(strange, weight), worst_of(strange, weight, 3), worst_of(strange, weight, 5)),
        *((laid.apart * there).sum((0, 2)) / size, (spectrum * there).sum((0, 2)) / size),
        *(np.maximum(*lacks), np.minimum(*lacks), np.maximum(*lacks_most), np.minimum(*lacks_most)),
        *(np.maximum(*lacks_s), np.maximum(*lacks_most_s), np.minimum(*lacks_most_s)),
        *(np.abs(np.log(n / lengths)), np.log(np.minimum(n, lengths)), np.log(np.maximum(n, lengths))),
    ]
    return np.asarray(np.stack([np.asarray(one, np.float32) for one in found], axis=1), np.float32)


def last_of(cost: Samples, weight: Samples) -> tuple[Samples, Samples]:
    """The three steps of each path before its begin: it is listed from the end, and shorter ones are padded."""
    count = (weight > 0).sum(0)
    places = np.maximum(count - 3, 0) + np.arange(3)[:, None]
    which = np.arange(len(count))
    places = np.minimum(places, count - 1)
    return cost[places, which], weight[places, which]


@dataclass(frozen=True, slots=True)
class Judge:
    """A network of one hidden layer over `evidence`."""

    mean: Samples
    spread: Samples
    hidden: Samples
    """[EVIDENCE, units]"""
    bias: Samples
    out: Samples
    """[units]"""
    odds: float

    @classmethod
    def read(cls, path: Path) -> Judge:
        """Raises `ValueError`, `EOFError`, `BadZipFile` or `OSError` for a file that is none."""
        with np.load(path, allow_pickle=False) as file:
            try:
                arrays = {name: np.asarray(file[name], np.float32) for name in ARRAYS}
                judge = cls(**arrays, odds=float(file["odds"]))
            except KeyError as missing:
                raise ValueError(f"it lacks {missing.args[0]}") from missing
        if judge.hidden.shape != (len(EVIDENCE), len(judge.out)):
            raise ValueError(f"hidden must be of shape [{len(EVIDENCE)}, units]")
        return judge

    def write(self, path: Path) -> None:
        arrays = {name: getattr(self, name) for name in ARRAYS}
        np.savez(path, **arrays, odds=np.float32(self.odds))

    def __call__(self, found: Samples) -> Samples:
        """Log odds that the same is said, [N], of `evidence` [N, EVIDENCE]. Four spreads from the mean is as far as
        anything counts: what is stranger has not been learned from."""
        inside = np.clip((found - self.mean) / self.spread, -4.0, 4.0) @ self.hidden + self.bias
        return np.asarray((inside / (1.0 + np.exp(-inside))) @ self.out + self.odds, np.float32)
