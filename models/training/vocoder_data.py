"""The vocoder's training data: clips joined into one tape with pitch labels, and random crops of it.

Reads a folder with an index.csv (path, kind, speaker, use) and, where given, a corpus folder with an index.jsonl
(path, seconds, split). Only rows marked `train` ever train.
"""

from __future__ import annotations

import csv
import hashlib
import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
import soundfile
import soxr
import torch
from tqdm import tqdm

from models.training.vocoder_pitch import track
from models.utterance import MEL_HOP, MEL_RATE, Samples

REAL_KINDS = ("speakers_en", "sentences_en", "commands_en", "commands_ar")
HELD_OUT = 20
"""Speakers of `speakers_en` that are kept for judging: those whose names hash lowest."""
_FADE = 64


def load(path: Path) -> Samples:
    """The file's first channel at 22,050 Hz, float32 [n]."""
    samples, rate = soundfile.read(path, dtype="float32", always_2d=True)
    return soxr.resample(samples[:, 0], rate, MEL_RATE, quality="VHQ").astype(np.float32)


def held_out(data: Path) -> list[Path]:
    """The clips of the held-out real speakers."""
    rows = [row for row in _rows(data) if row["kind"] == "speakers_en"]
    return [data / row["path"] for row in sorted(rows, key=_rank)[:HELD_OUT]]


def real_clips(data: Path) -> list[Path]:
    """Every real clip that may train, but for the held-out speakers'."""
    kept = set(held_out(data))
    return [data / r["path"] for r in _rows(data) if r["kind"] in REAL_KINDS and data / r["path"] not in kept]


def clips_to_judge(data: Path, kind: str, limit: int) -> list[Path]:
    """At most `limit` clips of one kind, whatever their `use`, evenly through the index. They are only measured."""
    rows = [row for row in _rows(data, uses=("train", "evaluate")) if row["kind"] == kind]
    return [data / row["path"] for row in rows[:: max(1, -(-len(rows) // limit))]]


def teacher_clips(corpus: Path, seconds: float, seed: int = 0) -> list[Path]:
    """About `seconds` of the corpus's train split, drawn at random."""
    lines = [json.loads(line) for line in (corpus / "index.jsonl").read_text("utf-8").splitlines()]
    lines = [line for line in lines if line["split"] == "train"]
    picked: list[Path] = []
    total = 0.0
    for i in np.random.default_rng(seed).permutation(len(lines)):
        if total > seconds:
            break
        picked.append(corpus / lines[i]["path"])
        total += lines[i]["seconds"]
    return picked


def _rows(data: Path, uses: tuple[str, ...] = ("train",)) -> Iterator[dict[str, str]]:
    with (data / "index.csv").open(newline="", encoding="utf-8") as file:
        yield from (row for row in csv.DictReader(file) if row["use"] in uses)


def _rank(row: dict[str, str]) -> bytes:
    return hashlib.sha256(row["speaker"].encode()).digest()


def write_tape(clips: list[Path], folder: Path) -> None:
    """Joins clips, each faded and filled to whole frames, into folder/{wave,f0,voiced,phase}.npy."""
    waves, f0s, voiceds, phases = [], [], [], []
    ramp = np.linspace(0, 1, _FADE, dtype=np.float32)
    for clip in tqdm(clips, desc=f"tape {folder.name}", mininterval=10):
        samples = load(clip)
        if len(samples) < 20 * MEL_HOP:
            continue
        samples[:_FADE] *= ramp
        samples[-_FADE:] *= ramp[::-1]
        samples = np.pad(samples, (0, -len(samples) % MEL_HOP))
        pitch = track(samples)
        waves.append(np.round(np.clip(samples, -1, 1) * 32767).astype(np.int16))
        f0s.append(pitch.f0)
        voiceds.append(pitch.voiced)
        phases.append(pitch.phase)
    folder.mkdir(parents=True, exist_ok=True)
    for name, parts in (("wave", waves), ("f0", f0s), ("voiced", voiceds), ("phase", phases)):
        np.save(folder / f"{name}.npy", np.concatenate(parts))


@dataclass(frozen=True, slots=True)
class Crops:
    """A batch. `wave` [B, (frames + 4) * 256 + 768] so that every frame's window lies inside; the rest [B, frames + 4].

    The labels and the wave reach two frames beyond each end of the `frames` that are synthesized; the mel is made
    from the wave. `voiced` is 0 or 1; `phase` in cycles, its first value within 0..1.
    """

    wave: torch.Tensor
    f0: torch.Tensor
    voiced: torch.Tensor
    phase: torch.Tensor


class Tapes:
    """Random crops of several tapes, drawn by given shares."""

    def __init__(self, folders: list[Path], shares: list[float]) -> None:
        self._tapes = [
            {name: np.load(folder / f"{name}.npy", mmap_mode="r") for name in ("wave", "f0", "voiced", "phase")}
            for folder in folders
        ]
        self._shares = np.array(shares) / np.sum(shares)
        self.reseed(0)

    def reseed(self, seed: int) -> None:
        """Starts the draws anew from `seed`."""
        self._random = np.random.default_rng(seed)

    def draw(self, batch: int, frames: int) -> Crops:
        """`batch` crops with gains of -20 to +6 dB; near-silent stretches are drawn again, thrice at most."""
        crops = [self._one(frames) for _ in range(batch)]
        return Crops(*(torch.from_numpy(np.stack([crop[i] for crop in crops])) for i in range(4)))

    def _one(self, frames: int) -> tuple[npt.NDArray[np.float32], ...]:
        tape = self._tapes[int(self._random.choice(len(self._tapes), p=self._shares))]
        for _ in range(4):
            at = int(self._random.integers(4, len(tape["f0"]) - frames - 8))
            first, last = (at - 2) * MEL_HOP - 384, (at + frames + 2) * MEL_HOP + 384
            wave = tape["wave"][first:last].astype(np.float32) / 32767
            if np.sqrt(np.mean(np.square(wave))) > 2e-3:
                break
        gain = 10 ** (self._random.uniform(-20, 6) / 20)
        wave *= min(gain, 0.99 / max(float(np.abs(wave).max()), 1e-6))
        labels = slice(at - 2, at + frames + 2)
        phase = tape["phase"][labels]
        return (
            wave,
            tape["f0"][labels].astype(np.float32),
            tape["voiced"][labels].astype(np.float32),
            (phase - np.floor(phase[0])).astype(np.float32),
        )
