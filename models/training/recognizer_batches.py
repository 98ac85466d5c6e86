"""Batches for the recognizer: clips drawn from several sources, joined, altered and bucketed by length."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import torch
from numpy.random import Generator
from torch import Tensor

from models.ctc import Alphabet
from models.hearing import SILENCE, STRIDE
from models.training.augment import Chances, hear
from models.training.recognizer_data import Clip, Pool
from models.training.recognizer_net import LETTERS
from models.utterance import RECOGNIZER_RATE, Samples

EDGE = 24
"""Silent feature frames around every training example, as at run time."""
REAL = Chances()
TEACHERS = Chances(pace=0.4, room=0.12, noise=0.4, throat=0.5, colour=0.3, telephone=0.1, masks=0.5)
EASY = Chances(pace=0.2, room=0.0, noise=0.1, companding=0.0, throat=0.3, colour=0.2, telephone=0.0, masks=0.2)
"""There is far less real speech than spoken by machines, so it is altered more.

Training begins easy, with short clean clips of machines: on the whole mixture the loss was measured to stay at its
first plateau (only blanks) for 500 steps, on clips like these for 40.
"""
EASY_SECONDS = 4.0
GROUP = 40
"""Batches drawn at once, sorted by length."""


@dataclass(frozen=True)
class Batch:
    """features [B, T, 80], steps [B], targets (joined) and their lengths [B]."""

    features: Tensor
    steps: Tensor
    targets: Tensor
    lengths: Tensor


class Mixer:
    """Draws clips from the sources in given shares of time, joins short ones, and makes batches of like length."""

    def __init__(self, pool: Pool, shares: dict[str, float], batch_seconds: float, seed: int, easy: int) -> None:
        self.pool = pool
        self.batch_seconds = batch_seconds
        self.seed = seed
        self.easy_groups = easy // GROUP
        self.alphabet = Alphabet(LETTERS)
        self.sources = {name: pool.of(name, "train") for name in shares}
        self.shares = {name: share for name, share in shares.items() if self.sources[name]}
        self.noise_clips = pool.of("noise", "train")
        odds = [share / np.mean([clip.seconds for clip in self.sources[name]]) for name, share in self.shares.items()]
        self.odds = np.array(odds) / sum(odds)
        self.weights: dict[str, np.ndarray | None] = dict.fromkeys(self.shares)
        if "command" in self.shares:
            counts: dict[str, int] = {}
            for clip in self.sources["command"]:
                counts[clip.text] = counts.get(clip.text, 0) + 1
            weight = np.array([counts[clip.text] ** -0.5 for clip in self.sources["command"]])
            self.weights["command"] = weight / weight.sum()

    def pick(self, source: str, rng: Generator) -> Clip:
        clips = self.sources[source]
        weights = self.weights.get(source)
        return clips[int(rng.choice(len(clips), p=weights) if weights is not None else rng.integers(len(clips)))]

    def draw(self, rng: Generator, easy: bool) -> list[Clip]:
        """The clips of one example. Shares are of seconds, so short sources are drawn more often."""
        names = list(self.shares)
        while easy:
            clip = self.pick("teacher" if rng.random() < 0.6 else "extra", rng)
            if clip.seconds < EASY_SECONDS:
                return [clip]
        source = names[int(rng.choice(len(names), p=self.odds))]
        clips = [self.pick(source, rng)]
        if source == "command" and rng.random() < 0.45:
            clips += [self.pick("command", rng) for _ in range(int(rng.integers(1, 4)))]
        elif source != "noise" and clips[0].seconds < 3.0 and rng.random() < 0.25:
            other = names[int(rng.integers(len(names)))]
            if other != "noise":
                clips.append(self.pick(other, rng))
        return clips

    def noise(self, count: int, rng: Generator) -> Samples:
        """Real noise, now and then synthetic or a second talker: float32 [count]."""
        kind = rng.random()
        if kind < 0.12:
            white = rng.standard_normal(count, np.float32)
            return white if kind < 0.06 else np.cumsum(white - 0.02 * white.mean(), dtype=np.float32) * 0.05
        if kind < 0.18 and "teacher" in self.shares:
            sound = self.pool.sound(self.pick("teacher", rng)) + 0.0
        else:
            sound = self.pool.sound(self.noise_clips[int(rng.integers(len(self.noise_clips)))])
        return np.asarray(np.resize(np.roll(sound, int(rng.integers(len(sound)))), count), np.float32)

    def example(self, clips: list[Clip], rng: Generator, chances: Chances) -> tuple[Samples, list[int]]:
        parts: list[Samples] = []
        level = 0.0
        for clip in clips:
            sound = self.pool.sound(clip)
            if clip.source == "noise":
                start = int(rng.integers(0, max(len(sound) - 16000, 1)))
                sound = sound[start : start + int(rng.integers(8000, 64000))]
            loudest = max(float(np.abs(sound).max(initial=0.0)), 1e-4)
            if level:  # clips keep their own levels within an utterance to a factor of two
                sound = sound * (level / loudest * rng.uniform(0.7, 1.4))
            level = level or loudest
            if parts or rng.random() < 0.5:
                parts.append(np.zeros(int(rng.uniform(0, 0.3) * RECOGNIZER_RATE), np.float32))
            parts.append(sound.astype(np.float32))
        text = " ".join(clip.text for clip in clips if clip.text)
        heard = hear(np.concatenate(parts), rng, lambda count: self.noise(count, rng), chances)
        return heard, self.alphabet.encode(text)

    def batches(self, first: int) -> Iterator[Batch]:
        """Endless batches from number `first` on; each group of 40 batches has its own random stream."""
        group = first // GROUP
        skip = first % GROUP
        while True:
            rng = np.random.default_rng((self.seed, group))
            easy = group < self.easy_groups
            drawn = [self.draw(rng, easy) for _ in range(int(self.batch_seconds * GROUP / (1.8 if easy else 2.5)))]
            drawn.sort(key=lambda clips: sum(clip.count for clip in clips))
            rows: list[list[list[Clip]]] = [[]]
            for clips in drawn:
                seconds = sum(clip.seconds for clip in clips) + 0.5
                if rows[-1] and seconds * (len(rows[-1]) + 1) > self.batch_seconds:
                    rows.append([])
                rows[-1].append(clips)
            order = rng.permutation(len(rows))[:GROUP]
            for number in order[skip:]:
                yield self.batch(rows[int(number)], np.random.default_rng((self.seed, group, int(number))), easy)
            group, skip = group + 1, max(0, skip - len(order))

    def batch(self, rows: list[list[Clip]], rng: Generator, easy: bool) -> Batch:
        pairs = []
        for clips in rows:
            real = any(clip.source == "command" for clip in clips)
            heard, target = self.example(clips, rng, EASY if easy else REAL if real else TEACHERS)
            if len(target) * STRIDE < len(heard) + 2 * EDGE:  # CTC needs a step a letter
                pairs.append((heard, target))
        longest = max(len(heard) for heard, _ in pairs) + 2 * EDGE
        longest += -longest % STRIDE
        features = np.full((len(pairs), longest, pairs[0][0].shape[1]), SILENCE, np.float32)
        for row, (heard, _) in zip(features, pairs, strict=True):
            row[EDGE : EDGE + len(heard)] = heard
        return Batch(
            torch.from_numpy(features),
            torch.full((len(pairs),), longest // STRIDE),
            torch.tensor([column for _, target in pairs for column in target], dtype=torch.long),
            torch.tensor([len(target) for _, target in pairs]),
        )


def ahead(batches: Iterator[Batch]) -> Iterator[Batch]:
    """The same batches, each made in a thread of its own while the network works on the one before.

    A new thread each time has the priority the process has by then; one long-lived thread was seen to starve.
    """
    made: list[Batch | Exception] = []

    def make() -> None:
        try:
            made.append(next(batches))
        except Exception as problem:
            made.append(problem)

    worker = threading.Thread(target=make)
    worker.start()
    while True:
        worker.join()
        item = made.pop()
        if isinstance(item, Exception):
            raise item
        worker = threading.Thread(target=make)
        worker.start()
        yield item
