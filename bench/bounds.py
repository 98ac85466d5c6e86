"""What a count of errors says about their rate: Clopper and Pearson's bound, as it is and with speakers drawn anew.

Pairs of recordings are not independent: one speaker's rhymes make many alike errors. So each bound is given twice more:
the highest (95 %) that it has over resamples of whole speakers, and the bound of the share of speakers with any error.
"""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
import numpy.typing as npt
from scipy.stats import beta

RESAMPLES: Final = 1000
CONFIDENCE: Final = 0.95

Floats = npt.NDArray[np.float64]


def upper(errors: float, trials: float) -> float:
    """95 % upper bound of a rate (one-sided, Clopper and Pearson 1934); 1 where nothing was tried."""
    return 1.0 if errors >= trials else float(beta.ppf(CONFIDENCE, errors + 1, trials - errors))


@dataclass(frozen=True, slots=True)
class Bounds:
    """Upper bounds of one rate of errors, 0..1."""

    errors: int
    trials: int
    plain: float
    resampled: float
    """The 95th percentile of the same bound over resamples of the speakers."""
    speakers: float
    """Of the share of speakers who ever have an error."""


def bounds(errors: Sequence[int], trials: Sequence[int], speakers: Sequence[Hashable]) -> Bounds:
    """Of rows that each have some errors among some trials, and a speaker."""
    by_speaker = _sums(np.array([errors, trials], np.float64), speakers)
    wrong_again, tried_again = _drawn(by_speaker)
    right_again = np.maximum(tried_again - wrong_again, 0)
    at = np.where(right_again > 0, beta.ppf(CONFIDENCE, wrong_again + 1, np.maximum(right_again, 1)), 1.0)
    wrong = int(np.count_nonzero(by_speaker[0]))
    return Bounds(
        sum(errors),
        sum(trials),
        upper(sum(errors), sum(trials)),
        float(np.quantile(at, CONFIDENCE)),
        upper(wrong, by_speaker.shape[1]),
    )


def share_interval(right: Sequence[bool], speakers: Sequence[Hashable]) -> tuple[float, float]:
    """95 % interval in % of the share of `right`, over resamples of the speakers."""
    drawn = _drawn(_sums(np.array([right, np.ones(len(right))], np.float64), speakers))
    low, high = np.percentile(100 * drawn[0] / np.maximum(drawn[1], 1), [2.5, 97.5])
    return float(low), float(high)


def _sums(rows: Floats, speakers: Sequence[Hashable]) -> Floats:
    """[k, rows] summed to [k, speakers]."""
    names = {name: number for number, name in enumerate(dict.fromkeys(speakers))}
    which = np.array([names[name] for name in speakers], np.int64)
    return np.stack([np.bincount(which, row, len(names)) for row in rows])


def _drawn(by_speaker: Floats) -> Floats:
    """Sums over as many speakers as there are, drawn with replacement: [k, RESAMPLES]."""
    count = by_speaker.shape[1]
    rng = np.random.default_rng(0)
    times = rng.multinomial(count, np.full(count, 1 / count), RESAMPLES) if count else np.zeros((RESAMPLES, 0))
    return np.asarray(by_speaker @ times.T, dtype=np.float64)
