"""What chance does to a figure: intervals by resampling whole speakers, equal error rates."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Sequence
from typing import Final

import numpy as np
import numpy.typing as npt

Interval = tuple[float, float]
Floats = npt.NDArray[np.float64]
Places = npt.NDArray[np.int64]

TIMES: Final = 300
"""Resamples for an interval."""


def places_of(groups: Sequence[Hashable]) -> list[Places]:
    """Where each distinct group stands in the sequence."""
    found: dict[Hashable, list[int]] = {}
    for place, group in enumerate(groups):
        found.setdefault(group, []).append(place)
    return [np.array(places, np.int64) for places in found.values()]


def interval(statistic: Callable[[Places], float], groups: Sequence[Hashable], times: int = TIMES) -> Interval:
    """95 % of `statistic(places)` when whole groups (speakers, sentences) are drawn anew, with replacement."""
    members = places_of(groups)
    rng = np.random.default_rng(0)
    drawn = [
        statistic(np.concatenate([members[n] for n in rng.integers(0, len(members), len(members))]))
        for _ in range(times)
    ]
    told = [value for value in drawn if value == value]
    if not told:
        return float("nan"), float("nan")
    low, high = np.percentile(told, [2.5, 97.5])
    return float(low), float(high)


def mean(values: npt.ArrayLike) -> float:
    """Of those that are numbers; not a number where none is."""
    told = np.asarray(values, np.float64)
    told = told[np.isfinite(told)]
    return float(told.mean()) if len(told) else float("nan")


def mean_interval(values: npt.ArrayLike, groups: Sequence[Hashable]) -> Interval:
    """`interval` of the mean."""
    array = np.asarray(values, np.float64)
    return interval(lambda at: mean(array[at]), groups)


def ratio_interval(over: Sequence[float], under: Sequence[float], groups: Sequence[Hashable]) -> Interval:
    """`interval` of sum(over) / sum(under)."""
    top, bottom = np.asarray(over, np.float64), np.asarray(under, np.float64)
    return interval(lambda at: float(top[at].sum() / max(bottom[at].sum(), 1e-12)), groups)


def equal_error(scores: Floats, same: npt.NDArray[np.bool_], weights: Floats | None = None) -> float:
    """Where as many same pairs are refused as different ones are accepted: the mean of both rates there."""
    order = np.argsort(scores, kind="stable")
    weight = np.ones(len(scores)) if weights is None else weights
    refused, passed = _rates(same[order], weight[order])
    at = int(np.argmax(refused >= passed))
    return float((refused[at] + passed[at]) / 2)


def trade_off(scores: Floats, same: npt.NDArray[np.bool_]) -> tuple[Floats, Floats]:
    """Rates of false alarms and of misses as the threshold rises over the scores, 200 points at most."""
    order = np.argsort(scores, kind="stable")
    refused, passed = _rates(same[order], np.ones(len(scores)))
    at = np.unique(np.searchsorted(refused, np.linspace(0, 1, 200)).clip(0, len(refused) - 1))
    return passed[at], refused[at]


def _rates(same: npt.NDArray[np.bool_], weight: Floats) -> tuple[Floats, Floats]:
    """By rising threshold: share of same pairs refused, share of different ones still accepted."""
    alike, apart = np.where(same, weight, 0.0), np.where(same, 0.0, weight)
    refused = np.cumsum(alike) / max(alike.sum(), 1e-12)
    passed = 1.0 - np.cumsum(apart) / max(apart.sum(), 1e-12)
    return refused, passed


def equal_error_interval(
    scores: Floats, pairs: npt.NDArray[np.int64], same: npt.NDArray[np.bool_], speakers: int, times: int = 100
) -> Interval:
    """95 % of the equal error rate when speakers are drawn anew. `pairs` [n, 2]: the speakers of each score, 0 up."""
    rng = np.random.default_rng(0)
    order = np.argsort(scores, kind="stable")
    one, other, alike = pairs[order, 0], pairs[order, 1], same[order]
    drawn = []
    for _ in range(times):
        times_drawn = np.bincount(rng.integers(0, speakers, speakers), minlength=speakers).astype(np.float64)
        weight = np.where(alike, times_drawn[one], times_drawn[one] * times_drawn[other])
        refused, passed = _rates(alike, weight)
        at = int(np.argmax(refused >= passed))
        drawn.append((refused[at] + passed[at]) / 2)
    low, high = np.percentile(drawn, [2.5, 97.5])
    return float(low), float(high)
