"""Training material for the voice encoder: voices of real people and of machines, each at three speeds.

A voice played 10 % faster or slower is another voice to the training: few people become many. Features of every voice
and speed are made once; batches are cut from them, and room, line, noise and masks are put on there, where they cost
little, so that no two hearings of a recording share what the recording itself has. Speakers are split by name.
"""

from __future__ import annotations

import csv
import json
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
import soxr
import torch
from numpy.random import Generator, default_rng
from scipy import signal
from torch import Tensor

from models.hearing import BANDS, CENTRE, SPREAD, features
from models.speaker import levelled, spoken
from models.training.recognizer_data import read_sound, share
from models.utterance import RECOGNIZER_RATE, Samples

Half = npt.NDArray[np.float16]

SPEEDS = (1.0, 0.9, 1.1)
LONGEST = 40.0
"""Seconds of sound of one voice that are used."""
TEST, DEV = 0.14, 0.26
"""Speakers with a share of name below TEST are measured at the end, those up to DEV steer the training."""
SHARES = {"read": 0.62, "command": 0.24, "arabic": 0.09, "machine": 0.05}
"""How much of a batch comes from which source."""


@dataclass(frozen=True, slots=True)
class Voice:
    """One person's (or machine's) clips, float32 16 kHz each."""

    name: str
    source: str
    """read, command, arabic or machine."""
    split: str
    """train, dev or test."""
    clips: tuple[Samples, ...]


def sound(path: Path) -> Samples:
    """Any sound file as float32 [n], mono, 16 kHz."""
    return read_sound(path).astype(np.float32) / 32768.0


def split_of(name: str) -> str:
    part = share(name)
    return "test" if part < TEST else "dev" if part < DEV else "train"


def rows_of(folder: Path, use: str = "train") -> list[dict[str, str]]:
    """Rows of a data folder's index.csv with that use."""
    with (folder / "index.csv").open(newline="", encoding="utf-8") as file:
        return [row for row in csv.DictReader(file) if row["use"] == use]


def real_voices(folder: Path) -> Iterator[Voice]:
    """Read speech and commands of a data folder, by speaker; only rows marked `train` are opened."""
    sources = {"speakers_en": "read", "commands_en": "command", "commands_ar": "arabic"}
    paths: dict[tuple[str, str], list[str]] = defaultdict(list)
    for row in rows_of(folder):
        if row["kind"] in sources:
            paths[sources[row["kind"]], row["speaker"]].append(row["path"])
    for (source, name), clips in paths.items():
        split = "train" if source == "arabic" else split_of(name)
        yield Voice(name, source, split, tuple(sound(folder / path) for path in some(clips)[:100]))


def machine_voices(corpus: Path) -> Iterator[Voice]:
    """Voices of a teacher corpus with eight clips or more at about their own pitch, twelve clips of each."""
    paths: dict[str, list[str]] = defaultdict(list)
    for line in (corpus / "index.jsonl").read_text("utf-8").splitlines():
        row = json.loads(line)
        if row["split"] == "train" and abs(row["pitch"] - 1.0) < 0.06:
            paths[row["voice"]].append(row["path"])
    for name, clips in sorted(paths.items()):
        if len(clips) >= 8:
            yield Voice(name, "machine", "train", tuple(sound(corpus / path) for path in some(clips)[:12]))


def some(paths: list[str]) -> list[str]:
    """In an order that depends on the names alone, so that a share of them is a fair sample."""
    return sorted(paths, key=share)


def heard(voice: Voice, speed: float) -> Half:
    """Features [T, 80] of a voice at a speed; of single words only what is spoken."""
    frames: list[Samples] = []
    for clip in voice.clips:
        samples = clip if speed == 1.0 else soxr.resample(clip, speed * RECOGNIZER_RATE, RECOGNIZER_RATE)
        found = features(levelled(samples))
        frames.append(found if voice.source == "read" else found[spoken(found)])
        if sum(map(len, frames)) > LONGEST * 100:
            break
    return np.concatenate(frames).astype(np.float16)


@dataclass
class Pool:
    """Features of every class, a voice at a speed, in one array, with their places and sources."""

    frames: Half
    """[N, 80]."""
    places: npt.NDArray[np.int64]
    """[classes, 2]: first frame and one beyond the last."""
    sources: list[str]
    """Of each class."""
    noise: Half
    """[M, 80]: features of noise, one clip after the other."""

    @classmethod
    def make(cls, voices: list[Voice], folder: Path) -> Pool:
        """All training voices at all speeds; prints progress."""
        parts: list[Half] = []
        places, sources, size = [], [], 0
        trained = [voice for voice in voices if voice.split == "train"]
        for number, voice in enumerate(trained):
            for speed in SPEEDS:
                parts.append(heard(voice, speed))
                places.append((size, size + len(parts[-1])))
                sources.append(voice.source)
                size += len(parts[-1])
            if number % 40 == 0:
                print(json.dumps({"voices": number, "of": len(trained), "hours": round(size / 360_000, 2)}), flush=True)
        clips = [row["path"] for row in rows_of(folder) if row["kind"] == "noise"]
        noise = [features(levelled(sound(folder / path))) for path in clips if share(path) >= TEST]
        return cls(np.concatenate(parts), np.array(places), sources, np.concatenate(noise).astype(np.float16))

    def save(self, path: Path) -> None:
        np.savez(path, frames=self.frames, places=self.places, sources=np.array(self.sources), noise=self.noise)

    @classmethod
    def load(cls, path: Path) -> Pool:
        kept = np.load(path)
        return cls(kept["frames"], kept["places"], [str(name) for name in kept["sources"]], kept["noise"])


@dataclass
class Mixer:
    """Batches by number: the same seed and step give the same batch."""

    pool: Pool
    size: int
    seed: int

    def __post_init__(self) -> None:
        total = {source: self.pool.sources.count(source) for source in SHARES}
        weights = np.array([SHARES[source] / total[source] for source in self.pool.sources])
        self.chances = weights / weights.sum()

    def batch(self, step: int) -> tuple[Tensor, Tensor]:
        """Features [B, T, 80] of 1.5 to 2.5 s, and classes [B]: each class once in either half, differently heard."""
        rng = default_rng((self.seed, step))
        length = int(rng.integers(150, 251))
        classes = np.tile(rng.choice(len(self.chances), self.size // 2, replace=False, p=self.chances), 2)
        cut = np.stack([self.cut(one, length, rng) for one in classes])
        altered = over_a_line(cut, self.noises(length, rng), rng)
        return torch.from_numpy(finished(altered, rng)), torch.from_numpy(classes)

    def cut(self, one: int, length: int, rng: Generator) -> Samples:
        """`length` frames of a class: half of them in one piece, others in pieces out of order.

        Out of order, what is said can't be learned instead of who says it.
        """
        first, last = self.pool.places[one]
        frames = self.pool.frames[first:last]
        piece = length if rng.random() < 0.5 else int(rng.integers(25, 80))
        starts = rng.integers(0, max(1, len(frames) - piece + 1), -(-length // piece))
        places = (starts[:, None] + np.arange(piece)).reshape(-1)[:length] % len(frames)
        return frames[places].astype(np.float32)

    def noises(self, length: int, rng: Generator) -> Samples:
        """A stretch of noise for each example: [B, length, 80]."""
        starts = rng.integers(0, len(self.pool.noise) - length, self.size)
        return self.pool.noise[starts[:, None] + np.arange(length)].astype(np.float32)


def over_a_line(heard: Samples, noise: Samples, rng: Generator) -> Samples:
    """Features [B, T, 80] in random rooms, microphones and lines, half of them with noise at 5 to 25 dB."""
    count = len(heard)
    power = in_rooms(heard * SPREAD + CENTRE, rng) + line_gains(count, rng)[:, None]
    noise = noise * SPREAD + CENTRE
    snr = np.where(rng.random(count) < 0.5, rng.uniform(5.0, 25.0, count), rng.uniform(30.0, 60.0, count))
    gain = mean_power(power) - mean_power(noise) - snr * np.log(10) / 10
    noise += gain[:, None, None].astype(np.float32)
    return np.asarray((np.logaddexp(power, noise) - CENTRE) / SPREAD, np.float32)


def in_rooms(power: Samples, rng: Generator) -> Samples:
    """Log energies [B, T, 80], four in ten followed by an echo that is 60 dB down after 0.15 to 0.6 s."""
    out = power.astype(np.float32, copy=True)
    for number in np.flatnonzero(rng.random(len(power)) < 0.4):
        decay = 10 ** (-6.0 / (100 * rng.uniform(0.15, 0.6)))
        energy = np.exp(out[number])
        echo = signal.lfilter([0.0, 1.0 - decay], [1.0, -decay], energy, axis=0)
        out[number] = np.log(energy + 10 ** rng.uniform(-1.2, 0.0) * echo + 1e-9)
    return out


def mean_power(power: Samples) -> Samples:
    """Natural log of the mean energy of each example [B, T, 80]: [B]."""
    return np.asarray(np.log(np.exp(power).mean(axis=(1, 2))))


def line_gains(count: int, rng: Generator) -> Samples:
    """Log gains of each band [count, 80]: smooth equalisation, one in six through a telephone."""
    knots = rng.normal(0.0, 0.8, (count, 7))
    place = np.linspace(0.0, 5.999, BANDS)
    left = place.astype(int)
    part = place - left
    gains = knots[:, left] * (1 - part) + knots[:, left + 1] * part
    bands = np.arange(BANDS)
    low = np.where(rng.random(count) < 0.6, 9, 0)[:, None]
    high = rng.integers(56, 64, count)[:, None]
    telephone = -0.5 * np.maximum(0, low - bands) - 1.2 * np.clip(bands - high, 0, 7)
    called = (rng.random(count) < 1 / 6)[:, None]
    return np.asarray(gains + np.where(called, telephone, 0.0), np.float32)


def finished(heard: Samples, rng: Generator) -> Samples:
    """As `models.speaker.voiced` does: pauses out (what is left begins anew to keep the length), means away; masks."""
    out = np.empty_like(heard)
    for number, frames in enumerate(heard):
        kept = spoken(frames)
        frames = frames[kept[np.arange(len(frames)) % len(kept)]]
        frames -= frames.mean(axis=0)
        for _ in range(rng.integers(0, 3)):
            first = int(rng.integers(0, BANDS - 10))
            frames[:, first : first + int(rng.integers(1, 11))] = 0.0
        if rng.random() < 0.5:
            first = int(rng.integers(0, len(frames) - 20))
            frames[first : first + int(rng.integers(5, 20))] = 0.0
        out[number] = frames
    return out
