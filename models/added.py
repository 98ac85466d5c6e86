"""Sound where the stored recording is silent: a word more, or a dog?

The judge of `models.recall` weighs two recordings moment by moment. In silence there are no stored bits to weigh, and
it takes a bark for a word, and a word under somebody's breath for nothing. So what is heard away from all stored speech
is left out of its score and judged here: by how likely the ear finds it that somebody speaks there, how sure it is of
bits, and how loud that is; beside how clearly the rest was heard. A logistic regression, learned by
`models.training.recall_added`.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path as Folder
from typing import Final, Self

import numpy as np
import numpy.typing as npt

from models.evidence import Heard, Path, certainty
from models.utterance import Samples

Flags = npt.NDArray[np.bool_]
Wide = npt.NDArray[np.float64]

APART: Final = 5
"""Frames (80 ms) that silence is away from any stored speech; nearer, a frame still hears that speech."""
WINDOWS: Final = (4, 12)
"""Frames over which each signal is averaged: a burst, and a short word."""
FEATURES: Final = 24
FILE: Final = "added.npz"


def silence(lines: Samples) -> Flags:
    """Where a timeline (`models.evidence.timeline`) has the query but no stored speech anywhere near: bool [frames]."""
    speech = lines[2] > 0
    near = np.convolve(speech, np.ones(2 * APART + 1), "same") > 0
    return np.asarray(~near & (lines[16] > 0))


def features(lines: Samples, heard: Heard, path: Path) -> Wide:
    """float64 [24] of a timeline with some silence.

    Of each of nine signals the largest mean over WINDOWS: the chances of speech, of strong and of loud speech; own
    level at least active, strong, loud; certainty alone, with speech, and with strong speech. Then how clearly the rest
    was heard, and how much silence there is, and of what kind.
    """
    within = np.flatnonzero(silence(lines))
    sure = certainty(heard, np.clip(path.heard_at(within + path.first), 0, len(heard) - 1))
    told = np.zeros((9, lines.shape[1] + max(WINDOWS)))
    chances = lines[5:11, within]
    told[:6, within + 1] = chances
    told[6, within + 1] = sure
    told[7:, within + 1] = sure * chances[:2]
    total = told.cumsum(axis=1)
    most = [(total[:, count:] - total[:, :-count]).max(axis=1) / count for count in WINDOWS]
    speech = (lines[2] > 0).astype(np.float32)
    around = lines[[0, 1, 5]] @ speech / max(float(speech.sum()), 1.0)
    there = (np.log1p(len(within)), chances[3].mean(), sure.mean()) if len(within) else (0.0, 0.0, 0.0)
    return np.concatenate([*most, around, there])


@dataclass(frozen=True, slots=True)
class Additions:
    """The judge of silence."""

    weights: Wide
    """float64 [24]."""
    bias: float
    """Less the threshold: from a score of 0 on something was added."""

    @classmethod
    def untaught(cls) -> Self:
        """Before anything was learned: whatever is heard in silence was added."""
        return cls(np.zeros(FEATURES), 1.0)

    def score(self, lines: Samples, heard: Heard, path: Path) -> float:
        """Log-odds that speech was added, less the threshold."""
        return float(features(lines, heard, path) @ self.weights) + self.bias

    def write(self, folder: Folder) -> None:
        np.savez(folder / FILE, weights=self.weights, bias=self.bias)

    @classmethod
    def read(cls, folder: Folder) -> Self:
        """Raises ValueError where the file is not such a judge's, OSError where there is none."""
        with np.load(folder / FILE, allow_pickle=False) as kept:
            weights, bias = np.asarray(kept["weights"], np.float64), float(kept["bias"])
        if weights.shape != (FEATURES,) or not np.isfinite(weights).all() or not np.isfinite(bias):
            raise ValueError(f"{folder / FILE}: needs {FEATURES} finite weights, has {weights.shape}")
        return cls(weights, bias)
