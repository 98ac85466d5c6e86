"""The ear's training data: band energies as another device heard them, and the undistorted recording's bits.

All items lie in one row with a little silence between them, so that a batch is cut anywhere. A pool is made in parts of
some thousands of seconds, each with random numbers of its own: a run that was broken off makes only what is missing.
"""

from __future__ import annotations

import json
import time
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Final

import numpy as np
import soxr
import torch
from numpy.random import Generator, default_rng
from torch import Tensor

from models.signs import Levels, Words, levels
from models.training.recall_data import Sources
from models.training.recall_distort import distorted, on_the_net
from models.training.recall_front import HOP_S, Half, bits_of, energies_of, logs_of
from models.utterance import RECOGNIZER_RATE, Samples

PART_S: Final = 10_000.0
BETWEEN: Final = 16
"""Frames of silence between two items."""
SHARES: Final = (0.42, 0.24)
"""How much are words, and how much is read speech; the rest machines said."""
LONGEST: Final = 4.0
PACED: Final = 0.25
"""How likely a recording is played up to 2.7 % faster or slower."""
ON_THE_NET: Final = 0.35
"""How likely a recording is distorted as on a net that loses packets, and not at random."""
OFF_GRID: Final = 32
"""Samples of 8 kHz, a quarter of a frame, by which the wanted grid may lie beside the query's: a stored recording has
frames where it happens to have them."""
UNTRUSTED: Final = 0.08
"""What a bit outside the mask counts."""


@dataclass
class Pool:
    """N frames; each word twice, on the frame grid and half a frame later."""

    energies: Half
    """float16 [N, 66], as `recall_front.logs_of`: of the distorted recording."""
    bits: Words
    """uint32 [N, 2]: of the undistorted one."""
    mask: Words
    """uint32 [N, 2]: the trusted ones of them."""
    level: Levels
    """uint8 [N]: of the undistorted one."""

    def __len__(self) -> int:
        return len(self.level)

    def save(self, path: Path) -> None:
        """Writes all or nothing."""
        fresh = path.with_suffix(".new.npz")
        np.savez(fresh, **vars(self))
        fresh.replace(path)

    @classmethod
    def load(cls, path: Path) -> Pool:
        kept = np.load(path)
        return cls(**{field.name: kept[field.name] for field in fields(cls)})

    @classmethod
    def joined(cls, parts: list[Pool]) -> Pool:
        return cls(*(np.concatenate([getattr(part, field.name) for part in parts]) for field in fields(cls)))

    def batch(self, rng: Generator, many: int = 16, frames: int = 512) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Energies [B, 66, T], wanted bits and what each counts [B, 64, T], levels 1, 2, 3 reached [B, 3, T]."""
        frames = min(frames, len(self) - 1)
        at = rng.integers(0, len(self) - frames, many)[:, None] + np.arange(frames)
        level = self.level[at]
        counts = (_spread(self.mask[at]) * (1 - UNTRUSTED) + UNTRUSTED) * (level >= 1)[..., None]
        reached = np.stack([level >= wanted for wanted in (1, 2, 3)], axis=-1)
        found = (self.energies[at], _spread(self.bits[at]), counts, reached)
        energies, bits, counted, levels = (torch.from_numpy(x.astype(np.float32)).transpose(1, 2) for x in found)
        return energies, bits, counted, levels


def silence() -> Pool:
    """What lies between two items."""
    nothing = np.zeros((BETWEEN, 2), np.uint32)
    return Pool(np.full((BETWEEN, 66), -7, np.float16), nothing, nothing, np.zeros(BETWEEN, np.uint8))


def item(heard: Samples, clean: Samples, pace: float = 1.0, shift: int = 0) -> Pool:
    """One recording, 16 kHz: what was `heard` and what the `clean` one's bits are there. Heard, a second takes
    1 / `pace`; the wanted bits are those of a grid `shift` samples of 8 kHz later."""
    energies, wanted = energies_of(heard), energies_of(clean, shift)
    bits, mask = bits_of(wanted)
    half = np.minimum(np.rint(pace * np.arange(2 * len(energies))).astype(int), len(bits) - 1).reshape(-1, 2)
    frame = np.minimum(np.rint(pace * np.arange(len(energies))).astype(int), len(wanted) - 1)
    return Pool(logs_of(energies), bits[half], mask[half], levels(wanted[:, 0])[frame])


def random_item(sources: Sources, rng: Generator) -> Pool:
    """A recording of any source, in silence, at some pace, distorted."""
    margins = [int(rng.uniform(0.0, 0.35) * RECOGNIZER_RATE) for _ in "ab"]
    clean = np.pad(sources.clip(rng, SHARES, LONGEST), margins)
    pace = 1.0 + rng.uniform(-0.027, 0.027) if rng.random() < PACED else 1.0
    played = clean if pace == 1.0 else soxr.resample(clean, RECOGNIZER_RATE * pace, RECOGNIZER_RATE)
    heard = (on_the_net if rng.random() < ON_THE_NET else distorted)(played, rng, sources.noise)
    return item(heard, clean, pace, int(rng.integers(-OFF_GRID, OFF_GRID + 1)))


def make_part(sources: Sources, seconds: float, seed: tuple[int, int]) -> Pool:
    """So many seconds of items; the same for the same seed and sources."""
    rng, items, frames = default_rng(seed), [silence()], 0
    while frames * HOP_S < seconds:
        found = random_item(sources, rng)
        items += [found, silence()]
        frames += len(found)
    return Pool.joined(items)


def gather(sources: Sources, seconds: float, seed: int, work: Path) -> Pool:
    """The pool of a run; parts that lie in `work` are read, the others made and kept there."""
    began, parts = time.monotonic(), []
    count = max(1, round(seconds / PART_S))
    for number in range(count):
        kept = work / f"pool-{seed}-{number}-{seconds / count:g}.npz"
        if not kept.is_file():
            make_part(sources, seconds / count, (seed, number)).save(kept)
        parts.append(Pool.load(kept))
        print(json.dumps({"pool": number + 1, "of": count, "s": round(time.monotonic() - began)}), flush=True)
    return Pool.joined(parts)


def _spread(words: Words) -> Words:
    """uint32 [..., 2] as 0 and 1, [..., 64], bit 0 of the first word first."""
    bits = (words[..., None] >> np.arange(32, dtype=np.uint32)) & np.uint32(1)
    return bits.reshape(*words.shape[:-1], -1)
