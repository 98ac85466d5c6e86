"""Timelines for the judge: pairs as a trained ear hears them, and the words nearest to each of some others.

The hardest strangers depend on the ear: of some words of the same speaker and some of others, those that most
evidence is found for.
"""

from __future__ import annotations

import json
import time
from collections import defaultdict
from dataclasses import dataclass
from typing import Final

import numpy as np
import numpy.typing as npt
import torch
from numpy.random import Generator, default_rng
from torch import Tensor

from models.evidence import BITS, FEATURES, Heard, Stored, align, timeline
from models.training.recall_data import Sources, drawn
from models.training.recall_front import Code, Half, code_of
from models.training.recall_heard import Query
from models.training.recall_net import Ear
from models.training.recall_pairs import Pair
from models.training.speaker_data import sound
from models.utterance import Samples

COUNTS: Final = {
    "same": 1.0,
    "piece": 1.5,
    "word": 2.0,
    "sentence": 2.0,
    "more": 2.0,
    "noise": 1.0,
    "other": 2.5,
    "spliced": 0.7,
}
"""What a kind of pair counts in training."""
SPLICED: Final = 0.15
"""How many pairs of the same recording get a stretch of another pair's timeline: another sound in the place of one."""
WORTH: Final = 0.15
"""By how much all evidence of a pair is made more or less: what the odds are worth differs from line to line."""
OF_SPEAKER, OF_ALL, NEAREST = 80, 120, 6
"""Other words of the same speaker, and of anyone, that are looked at for each; how many of them are taken."""
QUIET: Final = 50
"""Frames of silence at most that are put before and after a timeline, so that where it ends says nothing."""
PACE: Final = 14
"""The row that is the same in every frame."""
LONGEST: Final = 600
"""Frames (9.6 s): longer timelines are left out, they make batches wide."""


@dataclass(frozen=True, slots=True)
class Line:
    """One pair on one time axis."""

    rows: Half
    """float16 [15, T]: what the judge reads of `models.evidence.timeline`."""
    kind: str
    """A key of COUNTS."""


def hear(ear: Ear, query: Query) -> Heard:
    """As `models.recall.RecallNets.hear`, of what is kept of a query."""
    with torch.no_grad():
        told = ear(torch.from_numpy(query.energies.astype(np.float32)).T[None])[0].T
    log_odds = told[:, : 2 * BITS].reshape(-1, BITS).numpy()
    return Heard(log_odds, torch.sigmoid(told[:, 2 * BITS :]).numpy(), query.bits, query.level)


def lines_of(pairs: list[Pair], ear: Ear, sources: Sources, seed: int) -> list[Line]:
    """Every pair's timeline, and those of the words nearest to each that asks for them."""
    ear.eval()
    began, rng, lines = time.monotonic(), default_rng((seed, 3)), list[Line]()
    bank = _Bank(sources) if any(pair.kind.startswith("word ") for pair in pairs) else None
    for number, pair in enumerate(pairs, 1):
        heard = hear(ear, pair.query)
        if bank is not None and pair.kind.startswith("word "):
            lines += bank.nearest(int(pair.kind.split()[1]), heard, rng)
        else:
            stored = stored_of(pair.stored)
            lines.append(Line(timeline(stored, heard, align(stored, heard))[:FEATURES].astype(np.float16), pair.kind))
        if number % 1000 == 0 or number == len(pairs):
            print(json.dumps({"lines": number, "of": len(pairs), "s": round(time.monotonic() - began)}), flush=True)
    return [line for line in lines if line.rows.shape[1] < LONGEST]


def stored_of(code: Code) -> Stored:
    return Stored.of(code.bits, code.mask, code.level)


class _Bank:
    """All words as they are stored."""

    def __init__(self, sources: Sources) -> None:
        self._words = sources.words
        self._codes = [code_of(sound(word.path)) for word in sources.words]
        self._by_speaker: dict[str, list[int]] = defaultdict(list)
        for number, code in enumerate(self._codes):
            if code is not None:
                self._by_speaker[self._words[number].speaker].append(number)
        self._all = [number for numbers in self._by_speaker.values() for number in numbers]

    def nearest(self, number: int, heard: Heard, rng: Generator) -> list[Line]:
        """Timelines of other words than that, the ones that the ear takes most for it."""
        word = self._words[number]
        near = rng.permutation(self._by_speaker[word.speaker])[:OF_SPEAKER]
        found = []
        for other in dict.fromkeys([*near.tolist(), *rng.choice(self._all, OF_ALL).tolist()]):
            code = self._codes[other]
            if code is not None and self._words[other].text != word.text:
                stored = stored_of(code)
                found.append((stored, align(stored, heard)))
        found.sort(key=lambda one: -one[1].confirmed)
        return [Line(timeline(s, heard, path)[:FEATURES].astype(np.float16), "other") for s, path in found[:NEAREST]]


class Batches:
    """Batches of lines that are about as long as each other."""

    def __init__(self, lines: list[Line]) -> None:
        self._lines = sorted(lines, key=lambda line: line.rows.shape[1])
        self._others = [line for line in self._lines if line.kind in ("other", "word")]

    def batch(self, rng: Generator, many: int = 64) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Timelines [B, 15, T], frames that are there [B, T], whether the same [B], and what each counts [B]."""
        many = min(many, len(self._lines))
        first = int(rng.integers(0, len(self._lines) - many + 1))
        some = self._lines[first : first + many]
        quiet = rng.integers(0, QUIET, (many, 2)) * (rng.random((many, 1)) < 0.5)
        ends = [line.rows.shape[1] + int(around.sum()) for line, around in zip(some, quiet, strict=True)]
        rows = np.zeros((many, FEATURES, max(ends)), np.float32)
        there: npt.NDArray[np.bool_] = np.zeros((many, max(ends)), np.bool_)
        for place, line in enumerate(some):
            before = int(quiet[place, 0])
            rows[place, :, before : before + line.rows.shape[1]] = line.rows
            rows[place, PACE, : ends[place]] = line.rows[PACE, 0]
            there[place, : ends[place]] = True
        rows[:, :2] *= rng.uniform(1 - WORTH, 1 + WORTH, (many, 1, 1))
        kinds = ["spliced" if self._spliced(rows[n], line, rng) else line.kind for n, line in enumerate(some)]
        same = torch.tensor([float(kind == "same") for kind in kinds])
        counts = torch.tensor([COUNTS[kind] for kind in kinds])
        return torch.from_numpy(rows), torch.from_numpy(there), same, counts

    def _spliced(self, rows: Samples, line: Line, rng: Generator) -> bool:
        """Puts 0.14 to 0.4 s of a stranger's evidence, levels and bits into the `rows` of a pair that is the same, now
        and then; not where little is known of the stretch, or nothing speaks against it."""
        if line.kind != "same" or not self._others or rng.random() >= SPLICED:
            return False
        other = drawn(self._others, rng).rows
        count = int(rng.integers(9, 26))
        loud, others_loud = np.flatnonzero(rows[3] > 0), np.flatnonzero(other[3] > 0)
        if len(loud) < count + 4 or len(others_loud) < count:
            return False
        at = int(rng.choice(loud[: -(count // 2)]))
        start = int(others_loud[int(rng.integers(0, len(others_loud) - count + 1))])
        count = min(count, int(loud[-1]) + 1 - at, other.shape[1] - start)
        if count < 8:
            return False
        stretch = other[:13, start : start + count].astype(np.float32)
        known, evidence = stretch[1].mean(), stretch[0].mean()
        if known < 0.75 * rows[1, loud].mean() or known - evidence < 0.25:
            return False
        rows[:13, at : at + count] = stretch
        return True
