"""What the emotion encoder learns from: prosody of plain speech said again with known arousal (see `emotion_alter`).

Every stretch of 1.5 to 4 s is altered several times, each time through another channel and over other noise, so that
neither the recording's own tilt nor its noise floor tells. Kept in parts, so that a second run goes on where the first
stopped.
"""

from __future__ import annotations

import csv
import hashlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import soundfile as sf
from numpy.random import Generator
from scipy import fft
from tqdm import tqdm

from models.prosody import FEATURES, prosody, track
from models.training.emotion_alter import CUES, Change, alter, draw, scaled
from models.utterance import RECOGNIZER_RATE, Samples

KINDS = {"speakers_en": 4, "sentences_en": 1, "commands_en": 2, "commands_ar": 2}
"""Kind of clip to stretches taken: of each clip, or of each speaker's joined commands."""
VERSIONS = 6
PART = 100


@dataclass(frozen=True)
class Examples:
    """S stretches in `VERSIONS` versions: features float32 [S, V, 41], arousal [S, V], cues [S, V, 8]; dev bool [S]."""

    features: Samples
    arousal: Samples
    cues: Samples
    dev: np.ndarray


@dataclass(frozen=True)
class Source:
    """Clips of one speaker that are said in a row."""

    speaker: str
    paths: tuple[Path, ...]


def rows(data: Path, kind: str, use: str) -> list[dict[str, str]]:
    """The index's rows of a kind. Raises `ValueError` when there is none marked with that use."""
    with (data / "index.csv").open(encoding="utf-8", newline="") as file:
        found = [row for row in csv.DictReader(file) if row["kind"] == kind and row["use"] == use]
    if not found:
        raise ValueError(f"{data / 'index.csv'}: no clips of kind {kind} with use {use}")
    return found


def sources(data: Path, rng: Generator) -> list[Source]:
    """The stretches to be cut, shuffled: single clips, or four commands of one speaker."""
    chosen: list[Source] = []
    for kind, count in KINDS.items():
        by_speaker: dict[str, list[Path]] = {}
        for row in rows(data, kind, "train"):
            by_speaker.setdefault(row["speaker"] or row["path"], []).append(data / row["path"])
        for speaker, paths in by_speaker.items():
            for _ in range(count):
                take = min(len(paths), 4) if kind.startswith("commands") else 1
                picked = rng.choice(len(paths), take, replace=False)
                chosen.append(Source(speaker, tuple(paths[n] for n in picked)))
    return [chosen[n] for n in rng.permutation(len(chosen))]


def is_dev(speaker: str) -> bool:
    """One speaker in eight, by a hash of the name, so that it never moves."""
    return int(hashlib.sha256(speaker.encode()).hexdigest()[:8], 16) % 8 == 0


def stretch(source: Source, rng: Generator) -> Samples:
    """1.5 to 4 s of the source, at a random place."""
    samples = np.concatenate([sf.read(path, dtype="float32")[0] for path in source.paths])
    length = int(rng.uniform(1.5, 4.0) * RECOGNIZER_RATE)
    first = int(rng.integers(0, max(1, len(samples) - length)))
    return np.asarray(samples[first : first + length], np.float32)


def through_channel(samples: Samples, noise: Samples, rng: Generator) -> Samples:
    """A random microphone (tilt, colour, at times a telephone band) and noise at 10 to 45 dB."""
    spectrum = fft.rfft(samples)
    hertz = np.maximum(np.arange(len(spectrum)) * (RECOGNIZER_RATE / len(samples)), 1.0)
    octaves = np.log2(np.clip(hertz, 60.0, 8000.0) / 1000.0)
    gain = rng.normal(0.0, 1.0) * octaves + np.interp(octaves, np.linspace(-4, 3, 8), rng.normal(0.0, 1.5, 8))
    if rng.random() < 0.08:
        gain -= 18.0 * np.log2(np.maximum(300.0 / hertz, 1.0)) + 40.0 * np.clip((hertz - 3500.0) / 400.0, 0.0, 1.5)
    heard = fft.irfft(spectrum * 10 ** (gain / 20), len(samples))
    first = int(rng.integers(0, max(1, len(noise) - len(samples))))
    hiss = np.resize(noise[first:], len(samples)) if rng.random() < 0.5 else rng.standard_normal(len(samples))
    power = float(np.square(heard).mean()) / (float(np.square(hiss).mean()) + 1e-12)
    return np.asarray(heard + hiss * np.sqrt(power * 10 ** (-rng.uniform(10.0, 45.0) / 10)), np.float32)


def versions(samples: Samples, noises: list[Samples], rng: Generator) -> Iterator[tuple[float, Change, Samples]]:
    """`VERSIONS` times: arousal, change, features. Raises `ValueError` where too little is voiced."""
    heard = track(samples)
    for n in range(VERSIONS):
        arousal = float(rng.uniform(-1.0, 1.0)) if n else 0.0
        change = draw(arousal, rng)
        said = alter(samples, heard, change, rng)
        noise = noises[int(rng.integers(len(noises)))]
        yield arousal, change, prosody(through_channel(said, noise, rng))


def prepare(data: Path, work: Path, seed: int) -> Examples:
    """Makes what is missing in `work`/part_*.npz and loads it all."""
    work.mkdir(parents=True, exist_ok=True)
    planned = sources(data, np.random.default_rng(seed))
    noises = [sf.read(data / row["path"], dtype="float32")[0] for row in rows(data, "noise", "train")]
    parts = [planned[first : first + PART] for first in range(0, len(planned), PART)]
    for n, part in enumerate(tqdm(parts, desc="parts of 100 stretches", mininterval=10.0)):
        path = work / f"part_{n:03d}.npz"
        if not path.is_file():
            make(part, noises, np.random.default_rng([seed, n]), path)
    loaded = [np.load(work / f"part_{n:03d}.npz") for n in range(len(parts))]
    names = ("features", "arousal", "cues", "dev")
    return Examples(*(np.concatenate([part[name] for part in loaded]) for name in names))


def make(part: list[Source], noises: list[Samples], rng: Generator, path: Path) -> None:
    """Writes one part, whole or not at all; stretches with too little voiced speech are left out."""
    features, arousals, cues, dev = [], [], [], []
    for source in part:
        samples = stretch(source, rng)
        try:
            made = list(versions(samples, noises, rng))
        except ValueError:
            continue
        arousals.append([arousal for arousal, _, _ in made])
        cues.append([scaled(change) for _, change, _ in made])
        features.append([values for _, _, values in made])
        dev.append(is_dev(source.speaker))
    unfinished = path.with_suffix(".new.npz")
    np.savez(
        unfinished,
        features=np.array(features, np.float32).reshape(-1, VERSIONS, len(FEATURES)),
        arousal=np.array(arousals, np.float32).reshape(-1, VERSIONS),
        cues=np.array(cues, np.float32).reshape(-1, VERSIONS, len(CUES)),
        dev=np.array(dev, np.bool_),
    )
    unfinished.replace(path)
