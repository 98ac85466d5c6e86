"""The same command said again: whether a recording says what the same speaker said before, in whatever language.

A small network makes of every 20 ms of speech a vector in which two takes of a word by one speaker are close and other
sounds are not; dynamic time warping lays two takes over each other at the least mean distance. The nearest are looked
at along the path (`models.respoken_path`), and get log odds of saying the same. No words are known to it: a take is
only ever compared with takes of the same session. The decision is open-set: the likeliest take must be likely by
itself, and likelier than the likeliest that means something else.
"""

from __future__ import annotations

import math
from collections.abc import Hashable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Final
from zipfile import BadZipFile

import numpy as np

from models.hearing import BANDS, HOP, features
from models.onnx import ModelFileError, OnnxModel
from models.respoken_path import DIMENSIONS, Judge, Places, evidence, lay
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
JOINED: Final = 2
"""Bands of the spectrum that are averaged to one: pitch must not be seen between its harmonics."""

LOOKED_AT: Final = 6
"""Takes nearest by mean distance that are looked at along their paths; that costs more than the distance does."""
UNLIKELY: Final = -8.0
"""Log odds below which a rival is none."""

Take = Samples
"""What is kept of a recording, float32 [n, DIMENSIONS + bands / 2]: at each step the network's vector, of unit norm,
and the spectrum."""


@dataclass(frozen=True, slots=True)
class Match:
    """The likeliest of the takes a recording was compared with."""

    number: int
    """Its place among them."""
    distance: float
    """Mean distance of frames laid over each other, 0 to 2."""
    odds: float
    """Log odds that the same is said."""
    rival: float
    """The same of the likeliest take that means something else, at least UNLIKELY."""
    score: float
    """Odds - weight x rival - the logarithm of how many takes there are: each is as likely beforehand to be the one."""


class Respoken:
    """A model folder, ready to hear 16 kHz speech. Calls block and are thread-safe.

    Options of the manifest: bands, stride and context (feature frames a vector stands for, and those it depends on,
    each side), threshold (the score from which a take is taken for the same command said again), weight (see `Match`),
    stretch (how many times as long as the other the longer of two takes may be). `judge.npz` is the
    `models.respoken_path.Judge`. Raises `models.onnx.ModelFileError` where the folder is not such a model.
    """

    def __init__(self, folder: Path = EMBEDDED, *, providers: Sequence[str] = (), threads: int = 1) -> None:
        self.model = OnnxModel(folder, providers=providers, threads=threads)
        options = self.model.options
        if self.model.manifest["family"] != "respoken" or options.get("bands") != BANDS:
            raise ModelFileError(f"{folder}: family must be respoken and option bands {BANDS}")
        self.stride, self.context = int(options["stride"]), int(options["context"])
        self.threshold, self.stretch = float(options["threshold"]), float(options["stretch"])
        self.weight = float(options["weight"])
        try:
            self.judge = Judge.read(folder / "judge.npz")
        except (OSError, ValueError, EOFError, BadZipFile) as problem:
            raise ModelFileError(f"{folder / 'judge.npz'}: not the judge of takes: {problem}") from problem
        self.identity = self.model.identity

    def hear(self, samples: Samples) -> Take | None:
        """What to keep of a 16 kHz recording, whatever its level; None where that is silence, less than 0.1 s of
        speech, or more than 6 s."""
        heard = spoken(samples, self.context)
        if heard is None:
            return None
        return with_spectrum(self.model.run({"features": heard[None]})[0][0], heard, self.context, self.stride)

    def match(self, query: Take, takes: Sequence[Take], meanings: Sequence[Hashable]) -> Match | None:
        """The likeliest of `takes` by the same speaker, of which those with equal `meanings` are no rivals. None where
        there are none."""
        if not takes:
            return None
        apart = lay(query[:, :DIMENSIONS], [take[:, :DIMENSIONS] for take in takes])
        near = np.sort(np.argsort(apart.mean, kind="stable")[:LOOKED_AT])
        found = evidence(query, [takes[number] for number in near], apart.only(near))
        return ruled(near, apart.mean[near], self.judge(found), meanings, self.weight)

    def accepts(self, match: Match, query: Take, take: Take) -> bool:
        """Whether the score reaches the threshold, and the two are about as long."""
        shorter, longer = sorted((len(query), len(take)))
        return match.score >= self.threshold and longer <= self.stretch * shorter


def ruled(
    near: Sequence[int] | Places, apart: Samples, odds: Samples, meanings: Sequence[Hashable], weight: float
) -> Match:
    """The score of the likeliest of the takes `near`, by their distances and log odds, and what all takes mean."""
    best = int(odds.argmax())
    number = int(near[best])
    others = [float(one) for one, other in zip(odds, near, strict=True) if meanings[other] != meanings[number]]
    rival = max([*others, UNLIKELY])
    score = float(odds[best]) - weight * rival - math.log(len(meanings))
    return Match(number, float(apart[best]), float(odds[best]), rival, score)


def with_spectrum(frames: Samples, heard: Samples, context: int, stride: int) -> Take:
    """A take of the network's frames [n, DIMENSIONS] and of what it heard, [T + 2 context, 80]."""
    joined = heard[context : len(heard) - context : stride].reshape(len(frames), BANDS // JOINED, JOINED).mean(axis=2)
    return np.asarray(np.concatenate([frames, joined], axis=1), np.float32)


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


@lru_cache(maxsize=1)
def embedded() -> Respoken:
    """The shipped model, loaded once a process."""
    return Respoken()
