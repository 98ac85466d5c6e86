"""Sounds that the recall networks learn from: command words, read speech, machine voices, and noise of many kinds.

Of real speakers, sentences and noises those with a share of name below HELD_OUT are never opened: they are for
choosing and measuring. Of a data folder only rows marked `train` are.
"""

from __future__ import annotations

import json
from collections import defaultdict
from dataclasses import dataclass
from pathlib import Path
from typing import Final, TypeVar

import numpy as np
import soxr
from numpy.random import Generator

from models.training.recall_distort import power
from models.training.recognizer_data import share
from models.training.speaker_data import rows_of, sound
from models.utterance import RECOGNIZER_RATE, Samples

HELD_OUT: Final = 0.3
Thing = TypeVar("Thing")


@dataclass(frozen=True, slots=True)
class Word:
    """A real recording of one command."""

    path: Path
    speaker: str
    text: str


@dataclass
class Sources:
    """Everything that may be learned from. Words and machine voices are read when they are drawn."""

    words: list[Word]
    speech: list[Samples]
    """Read speech and spoken sentences."""
    machine: dict[str, list[Path]]
    """Clips of a teacher corpus by voice. Its own split is by text, which nothing here depends on."""
    noises: list[Samples]

    @classmethod
    def open(cls, data: Path, corpus: Path) -> Sources:
        """Of a folder with index.csv and of one with index.jsonl; ValueError where either has nothing of a kind."""
        words, speech, noises = [], [], []
        for row in rows_of(data):
            one_voice = row["kind"] not in ("sentences_en", "noise")
            if share(row["speaker"] if one_voice else row["path"]) < HELD_OUT:
                continue
            if row["kind"].startswith("commands"):
                words.append(Word(data / row["path"], row["speaker"], row["text"]))
            elif row["kind"] == "noise":
                noises.append(sound(data / row["path"]))
            elif row["kind"] in ("speakers_en", "sentences_en"):
                speech.append(sound(data / row["path"]))
        machine: dict[str, list[Path]] = defaultdict(list)
        for line in (corpus / "index.jsonl").read_text("utf-8").splitlines():
            clip = json.loads(line)
            machine[clip["voice"]].append(corpus / clip["path"])
        found = cls(words, speech, dict(machine), noises)
        for name, things in vars(found).items():
            if not things:
                raise ValueError(f"{corpus if name == 'machine' else data}: no {name} to learn from")
        return found

    def __post_init__(self) -> None:
        self._clips = [path for paths in self.machine.values() for path in paths]
        self._by_speaker: dict[str, list[Word]] = defaultdict(list)
        for word in self.words:
            self._by_speaker[word.speaker].append(word)
        self._talkers = [n for n, said in self._by_speaker.items() if len({word.text for word in said}) > 3]
        self._voices = [voice for voice, paths in self.machine.items() if len(paths) > 4]

    def clip(self, rng: Generator, shares: tuple[float, float], longest: float) -> Samples:
        """A word, a piece of speech of a second or more, or what a machine said; `shares`: how likely the first two
        are. Up to `longest` seconds."""
        kind = rng.random()
        if kind < shares[0]:
            return sound(drawn(self.words, rng).path)
        if kind < shares[0] + shares[1]:
            return piece(drawn(self.speech, rng), rng, 1.0, longest)[0]
        return sound(drawn(self._clips, rng))[: round(longest * RECOGNIZER_RATE)]

    def said_by_one(self, rng: Generator) -> list[Word]:
        """All words of one speaker, who said four different ones or more, in random order."""
        said = self._by_speaker[drawn(self._talkers, rng)]
        return [said[number] for number in rng.permutation(len(said))]

    def two_of_a_machine(self, rng: Generator) -> tuple[Samples, Samples]:
        """Two clips of one voice, up to 5 s each."""
        paths = self.machine[drawn(self._voices, rng)]
        first, second = (sound(paths[n])[: 5 * RECOGNIZER_RATE] for n in rng.choice(len(paths), 2, replace=False))
        return first, second

    def noise(self, count: int, rng: Generator) -> Samples:
        """`count` samples of some noise, at any level: a real one or two, babble, a coloured hiss, or a hum."""
        kind = rng.random()
        if kind < 0.62:
            return self._real(count, rng)
        if kind < 0.76:
            return sum(
                (rng.uniform(0.4, 1.0) * _levelled(_looped(drawn(self.speech, rng), count, rng)) for _ in _few(rng, 9)),
                np.zeros(count, np.float32),
            )
        return hiss(count, rng) if kind < 0.92 else hum(count, rng)

    def _real(self, count: int, rng: Generator) -> Samples:
        clip = drawn(self.noises, rng)
        if rng.random() < 0.3:
            clip = soxr.resample(clip, RECOGNIZER_RATE, RECOGNIZER_RATE * rng.uniform(0.8, 1.25))
        heard = _looped(clip, count, rng)
        if rng.random() < 0.15:
            heard = _levelled(heard) + rng.uniform(0.3, 1.0) * _levelled(_looped(drawn(self.noises, rng), count, rng))
        return heard


def drawn(things: list[Thing], rng: Generator) -> Thing:
    return things[int(rng.integers(len(things)))]


def piece(samples: Samples, rng: Generator, shortest: float, longest: float) -> tuple[Samples, int]:
    """A stretch of so many seconds, and its first sample; all where there is not more."""
    count = int(rng.uniform(shortest, longest) * RECOGNIZER_RATE)
    if len(samples) <= count:
        return samples, 0
    first = int(rng.integers(len(samples) - count))
    return samples[first : first + count], first


def hiss(count: int, rng: Generator) -> Samples:
    """Noise whose power falls (or rises a little) with frequency, some of it coming and going."""
    spectrum = np.fft.rfft(rng.normal(size=count))
    hertz = np.maximum(np.fft.rfftfreq(count, 1 / RECOGNIZER_RATE), 30.0)
    heard = np.fft.irfft(spectrum * hertz ** rng.uniform(-1.2, 0.3), count)
    if rng.random() < 0.4:
        turns = rng.uniform(0.5, 12.0) * np.arange(count) / RECOGNIZER_RATE
        heard *= 1 + rng.uniform(0.3, 0.95) * np.sin(2 * np.pi * turns + rng.uniform(0, 6))
    return heard.astype(np.float32)


def hum(count: int, rng: Generator) -> Samples:
    """Harmonics of 50 to 900 Hz, half of them switched on and off."""
    time = np.arange(count) / RECOGNIZER_RATE
    pitch, heard = rng.uniform(50.0, 900.0), np.zeros(count)
    for harmonic in range(1, int(rng.integers(2, 16))):
        heard += rng.uniform() / harmonic * np.sin(2 * np.pi * harmonic * pitch * time + rng.uniform(0, 6))
    if rng.random() < 0.5:
        heard *= np.sin(2 * np.pi * rng.uniform(0.3, 6.0) * time) > 0
    return heard.astype(np.float32)


def _few(rng: Generator, below: int) -> range:
    return range(int(rng.integers(1, below)))


def _looped(clip: Samples, count: int, rng: Generator) -> Samples:
    return np.resize(np.roll(clip, -int(rng.integers(len(clip)))), count)


def _levelled(samples: Samples) -> Samples:
    return samples / np.float32(np.sqrt(power(samples)) + 1e-9)
