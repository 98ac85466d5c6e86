"""The same command said again: whether a recording says what the same speaker said before, in whatever language.

A small network makes of every 20 ms of speech a vector in which two takes of a word by one speaker are close and other
sounds are not; dynamic time warping lays two takes over each other at the least mean distance. No words are known to
it: a take is only ever compared with takes of the same session. The decision is open-set: the nearest take must be near
by itself, and nearer than the nearest that means something else.
"""

from __future__ import annotations

from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Final

import numpy as np
import numpy.typing as npt

from models.hearing import BANDS, HOP, features
from models.onnx import ModelFileError, OnnxModel
from models.speaker import SILENT, levelled
from models.utterance import RECOGNIZER_RATE, Samples

EMBEDDED: Final = Path(__file__).parent / "embedded" / "respoken"
SHORTEST, LONGEST = 0.1, 6.0
"""Seconds of speech below which there is nothing to compare, and above which warping would cost too much."""
FLOOR: Final = -2.0
"""Features so far below the loud frames (35 dB) are silence."""
SPOKEN: Final = -1.5
"""Frames whose mean feature is so far below the loudest twentieth (26 dB) are before or after the speech."""
AROUND: Final = 2
"""Frames kept before the first spoken frame and after the last."""
MEAN_SHARE: Final = 0.5
"""How much of each band's mean is taken away: all of it would take the vowel of a short word with the microphone."""
BEYOND: Final = 2.0
"""The distance of what is not there; no two frames are further apart."""

FEW: Final = 3
"""Takes of other words that must be known before their median distance says anything."""
STRANGE: Final = 0.72
"""What that is in the mean."""

Take = Samples
"""What is kept of a recording: its frames, float32 [n, dimensions], each of unit norm."""


@dataclass(frozen=True, slots=True)
class Match:
    """The nearest of the takes a recording was compared with."""

    number: int
    """Its place among them."""
    distance: float
    """Mean distance of frames laid over each other, 0 to 2."""
    rival: float
    """The distance of the nearest take that means something else, at most the option far."""
    score: float
    """Weight x rival + typical x (the median distance of takes that mean something else) - distance. Without three of
    those, the median is taken for that of strangers."""


class Respoken:
    """A model folder, ready to hear 16 kHz speech. Calls block and are thread-safe.

    Options of the manifest: bands, stride and context (feature frames a vector stands for, and those it depends on,
    each side), threshold (the score from which a take is taken for the same command said again), weight, typical and
    far (see `Match`), stretch (how many times as long as the other the longer of two takes may be). Raises
    `models.onnx.ModelFileError` where the folder is not such a model.
    """

    def __init__(self, folder: Path = EMBEDDED, *, providers: Sequence[str] = (), threads: int = 1) -> None:
        self.model = OnnxModel(folder, providers=providers, threads=threads)
        options = self.model.options
        if self.model.manifest["family"] != "respoken" or options.get("bands") != BANDS:
            raise ModelFileError(f"{folder}: family must be respoken and option bands {BANDS}")
        self.stride, self.context = int(options["stride"]), int(options["context"])
        self.threshold, self.stretch = float(options["threshold"]), float(options["stretch"])
        self.rule = {name: float(options[name]) for name in ("weight", "typical", "far")}
        self.identity = self.model.identity

    def hear(self, samples: Samples) -> Take | None:
        """What to keep of a 16 kHz recording, whatever its level; None where that is silence, less than 0.1 s of
        speech, or more than 6 s."""
        heard = spoken(samples, self.context)
        if heard is None:
            return None
        return np.asarray(self.model.run({"features": heard[None]})[0][0], np.float32)

    def match(self, query: Take, takes: Sequence[Take], meanings: Sequence[Hashable]) -> Match | None:
        """The nearest of `takes` by the same speaker, of which those with equal `meanings` are no rivals. None where
        there are none."""
        if not takes:
            return None
        return ruled(distances(query, takes), meanings, self.rule)

    def accepts(self, match: Match, query: Take, take: Take) -> bool:
        """Whether the score reaches the threshold, and the two are about as long."""
        shorter, longer = sorted((len(query), len(take)))
        return match.score >= self.threshold and longer <= self.stretch * shorter


def ruled(apart: Samples, meanings: Sequence[Hashable], rule: Mapping[str, float]) -> Match:
    """The score of the nearest of some takes, by their distances [n] and what they mean."""
    number = int(apart.argmin())
    others = [float(d) for d, meaning in zip(apart, meanings, strict=True) if meaning != meanings[number]]
    rival = min([*others, rule["far"]])
    median = float(np.median(others)) if len(others) >= FEW else STRANGE
    score = rule["weight"] * rival + rule["typical"] * median - float(apart[number])
    return Match(number, float(apart[number]), rival, score)


def spoken(samples: Samples, context: int) -> Samples | None:
    """What the network hears of a 16 kHz wave: from the first spoken frame to the last, and `context` frames more on
    each side, float32 [T + 2 context, 80], loud frames at 0. None as `Respoken.hear`.

    Raises `ValueError` for samples that are not finite numbers [n].
    """
    if samples.ndim != 1 or not np.isfinite(samples).all():
        raise ValueError(f"samples must be finite numbers of shape [n]; these are of shape {list(samples.shape)}")
    if len(samples) < SHORTEST * RECOGNIZER_RATE or float(np.abs(samples).max()) < SILENT:
        return None
    return trimmed(features(levelled(samples)), context)


def trimmed(heard: Samples, context: int) -> Samples | None:
    """As `spoken`, of features [T, 80]."""
    loudness = heard.mean(axis=1)
    loud = float(np.quantile(loudness, 0.95))
    places = np.flatnonzero(loudness >= loud + SPOKEN)
    first, last = max(0, int(places[0]) - AROUND), min(len(heard), int(places[-1]) + AROUND + 1)
    seconds = (last - first) * HOP / RECOGNIZER_RATE
    if not SHORTEST <= seconds <= LONGEST:
        return None
    level = np.maximum(heard - loud, FLOOR)
    level -= MEAN_SHARE * level[first:last].mean(axis=0)
    return np.asarray(level[np.clip(np.arange(first - context, last + context), 0, len(heard) - 1)], np.float32)


def distances(query: Take, takes: Sequence[Take]) -> Samples:
    """Of `query` [n, d] to each of `takes` [m, d]: float32 [takes]. Symmetric; 0 for equal takes, at most 2.

    The mean of one less the cosine along the cheapest path that begins and ends with both takes and leaves out no frame
    of either; a step along one take counts once, a step along both twice. All takes are warped side by side, padded
    with frames that are at the greatest distance and cost nothing to leave out.
    """
    lengths = np.array([len(take) for take in takes])
    longest = int(lengths.max())
    joined = 1.0 - query @ np.concatenate(list(takes)).T
    there = np.arange(longest) < lengths[:, None]
    apart = np.full((len(query), len(takes), longest), BEYOND, np.float32)
    apart[:, there] = np.maximum(joined, 0.0)
    return np.asarray(cheapest(apart, there) / (len(query) + lengths), np.float32)


def cheapest(apart: Samples, there: npt.NDArray[np.bool_]) -> Samples:
    """Cost of the cheapest path through each of N matrices of distances, [n, N, m] by row: float32 [N].

    Steps along a row chain, so that row by row they are a running sum, and the best place to have begun it a running
    minimum.
    """
    cost = np.full((apart.shape[1], apart.shape[2] + 1), np.inf, np.float32)
    cost[:, 0] = 0.0
    for row in apart:
        along = np.where(there, row, np.float32(0.0))
        entered = np.minimum(cost[:, :-1] + row + along, cost[:, 1:] + row)
        run = np.cumsum(along, axis=1)
        cost[:, 1:] = run + np.minimum.accumulate(entered - run, axis=1)
        cost[:, 0] = np.inf
    return np.asarray(cost[:, -1], np.float32)


@lru_cache(maxsize=1)
def embedded() -> Respoken:
    """The shipped model, loaded once a process."""
    return Respoken()
