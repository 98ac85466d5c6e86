"""Finds the frames by which commands said again are known, and writes them as ONNX: `... respoken --help`.

No gradient descent: two takes of a word are laid over each other by dynamic time warping, the covariance of what
differs along the way is that within words, and the linear map that makes it small against the covariance of all frames
(Fisher's discriminants, weighted by how sure each is) has a closed form; warping again with the map found gives better
pairs. Four in five pairs are by one speaker. Clips are taken as they are: with half of them over a line with noise as
well, the map answered less, of clean queries and of noisy ones. A minute on one core, the same every time.

The judge of what lies on each other, and the threshold, are of `models.training.respoken_judge`: the speakers are split
into three, and each third is measured with map and judge of the others. `--leave-out LANG` keeps a language from all
of it, so that it can be measured as one nobody has seen.
"""

from __future__ import annotations

import argparse
import json
import random
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
import numpy.typing as npt
import onnx
import torch
from scipy import linalg
from torch import Tensor, nn
from torch.nn import functional

from models.hearing import BANDS, features
from models.respoken import EMBEDDED, JOINED, Take, trimmed, with_spectrum
from models.respoken_path import DIMENSIONS
from models.speaker import levelled
from models.training.export import halve, hearing_graph, write_manifest
from models.training.recognizer_data import share
from models.training.respoken_judge import WEIGHT, Heard, judged
from models.training.speaker_data import rows_of, sound
from models.utterance import Samples

NAME: Final = "refrain-respoken"
LICENCE: Final = "Apache-2.0"
TAPS: Final = (-9, -6, -4, -2, 0, 2, 4, 6, 9)
"""Frames around a step that are looked at; neighbours tell how a sound moves."""
CONTEXT: Final = max(TAPS)
STRIDE: Final = 2
PAIRS: Final = 4000
ROUNDS: Final = 3
FIRST: Final = 40
"""Principal components by which the first round warps."""
THIRDS: Final = 3
STRETCH: Final = 2.0
"""How many times as long as the other the longer of two takes may be."""

Wide = npt.NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Said:
    """One clip: who says what, and what the network hears of it."""

    language: str
    speaker: str
    text: str
    take: float
    heard: Samples
    """As `models.respoken.trimmed` gives it, with the context on both sides."""


@dataclass(frozen=True, slots=True)
class Map:
    """From stacked frames to vectors: (stacked - mean) @ axes, brought to unit norm."""

    mean: Wide
    axes: Wide

    def __call__(self, stack: Samples) -> Take:
        vectors = (stack - self.mean) @ self.axes
        return np.asarray(vectors / np.maximum(np.linalg.norm(vectors, axis=1, keepdims=True), 1e-9), np.float32)


def gather(folder: Path, leave_out: str) -> list[Said]:
    """Every command marked `train` of a text that was recorded more than once."""
    rows = [row for row in rows_of(folder) if row["text"] and row["speaker"] and row["lang"] != leave_out]
    counts: dict[tuple[str, str], int] = defaultdict(int)
    for row in rows:
        counts[row["kind"], row["text"]] += row["take"] != ""
    rows = [row for row in rows if counts[row["kind"], row["text"]] > 1 and row["kind"].startswith("commands")]
    said = []
    for row in rows:
        kept = trimmed(features(levelled(sound(folder / row["path"]))), CONTEXT)
        if kept is not None:
            said.append(Said(row["lang"], row["speaker"], row["text"], float(row["take"] or 0), kept))
    return said


def stacked(heard: Samples) -> Samples:
    """What the map sees: float32 [steps, taps x bands], of features with their context [T + 2 CONTEXT, 80]."""
    joined = heard.reshape(len(heard), BANDS // JOINED, JOINED).mean(axis=2)
    centres = np.arange(CONTEXT, len(heard) - CONTEXT, STRIDE)
    return np.asarray(joined[centres[:, None] + np.array(TAPS)].reshape(len(centres), -1), np.float32)


def pairs_of(said: Sequence[Said], count: int, rng: random.Random) -> list[tuple[int, int]]:
    """Two clips of one word: by one speaker, and every fifth time by any."""
    own: dict[tuple[str, ...], list[int]] = defaultdict(list)
    anyone: dict[tuple[str, ...], list[int]] = defaultdict(list)
    for number, clip in enumerate(said):
        own[clip.language, clip.speaker, clip.text].append(number)
        anyone[clip.language, clip.text].append(number)
    groups = [[group for group in kind.values() if len(group) > 1] for kind in (own, anyone)]
    found = []
    for number in range(count):
        one, other = rng.sample(rng.choice(groups[number % 5 == 0]), 2)
        found.append((one, other))
    return found


def along(one: Take, other: Take) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:
    """The cheapest path through two takes, as places in either: what `models.respoken_path.lay` prices."""
    apart = np.maximum(1.0 - one @ other.T, 0.0)
    rows, columns = apart.shape
    cost = np.full((rows + 1, columns + 1), np.inf)
    cost[0, 0] = 0.0
    for row, line in enumerate(apart):
        entered = np.minimum(cost[row, :-1] + 2 * line, cost[row, 1:] + line)
        run = np.cumsum(line)
        cost[row + 1, 1:] = run + np.minimum.accumulate(entered - run)
    row, column, path = rows, columns, []
    while row and column:
        path.append((row - 1, column - 1))
        steps = (cost[row - 1, column - 1] + apart[row - 1, column - 1], cost[row - 1, column], cost[row, column - 1])
        best = int(np.argmin(steps))
        row, column = row - (best != 2), column - (best != 1)
    places = np.array(path)
    return places[:, 0], places[:, 1]


def learn(said: Sequence[Said], stacks: Sequence[Samples], seed: int) -> Map:
    """The map of some clips; `stacks` are theirs."""
    rng = random.Random(seed)
    pairs = pairs_of(said, PAIRS, rng)
    chosen = np.concatenate([stacks[number] for number in rng.sample(range(len(said)), min(len(said), 3000))])
    mean = chosen.mean(axis=0, dtype=np.float64)
    total = np.cov((chosen - mean).T)
    values, axes = linalg.eigh(total)
    found = Map(mean, axes[:, -FIRST:] / np.sqrt(values[-FIRST:]))
    for _ in range(ROUNDS - 1):
        within, count = np.zeros_like(total), 0
        for one, other in pairs:
            left, right = along(found(stacks[one]), found(stacks[other]))
            apart = stacks[one][left].astype(np.float64) - stacks[other][right]
            within += apart.T @ apart / 2
            count += len(apart)
        within /= count
        within += np.eye(len(within)) * 1e-3 * np.trace(within) / len(within)
        values, axes = linalg.eigh(total, within)
        values, axes = values[-DIMENSIONS:], axes[:, -DIMENSIONS:]
        found = Map(mean, axes * np.sqrt(np.maximum(0.0, 1.0 - 1.0 / np.maximum(values, 1.0))))
    return found


def heard_by(found: Map, clip: Said, *, backwards: bool) -> Heard:
    """A take as a session would keep it; backwards it is of a speaker of its own."""
    heard = np.ascontiguousarray(clip.heard[::-1]) if backwards else clip.heard
    take = with_spectrum(found(stacked(heard)), heard, CONTEXT, STRIDE)
    return Heard(f"{clip.language} {clip.speaker} {backwards}", clip.text, clip.take, take)


class Network(nn.Module):
    """A `Map` over features [B, T + 2 CONTEXT, 80]: to unit vectors [B, ceil(T / 2), 64]."""

    def __init__(self, found: Map) -> None:
        super().__init__()
        bands = BANDS // JOINED
        weight = np.zeros((DIMENSIONS, BANDS, 1, 2 * CONTEXT + 1))
        for number, tap in enumerate(TAPS):
            part = found.axes[number * bands : (number + 1) * bands].T / JOINED
            weight[:, :, 0, CONTEXT + tap] = np.repeat(part, JOINED, axis=1)
        self.conv = nn.Conv2d(BANDS, DIMENSIONS, (1, 2 * CONTEXT + 1), stride=(1, STRIDE))
        with torch.no_grad():
            self.conv.weight.copy_(torch.from_numpy(weight))
            assert self.conv.bias is not None
            self.conv.bias.copy_(torch.from_numpy(-found.mean @ found.axes))

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.conv(x.unsqueeze(1).permute(0, 3, 1, 2)).squeeze(2).transpose(1, 2)
        return functional.normalize(y, dim=2)


def export(found: Map, folder: Path, threshold: float, languages: Sequence[str]) -> str:
    """Writes model.onnx (weights in half precision) and model.toml; returns the sha256."""
    folder.mkdir(parents=True, exist_ok=True)
    example = torch.randn(1, 100, BANDS)
    onnx.save(halve(hearing_graph(Network(found), example, "frames", {1: "steps"})), folder / "model.onnx")
    options: Mapping[str, Any] = {
        "bands": BANDS,
        "stride": STRIDE,
        "context": CONTEXT,
        "threshold": round(threshold, 4),
        "weight": WEIGHT,
        "stretch": STRETCH,
        "languages": list(languages),
    }
    return write_manifest(folder, NAME, "respoken", LICENCE, options)


def main(argv: list[str]) -> None:
    """The command line; see --help."""
    parser = argparse.ArgumentParser(prog="models.training respoken", description=__doc__)
    parser.add_argument("--speech", type=Path, required=True, help="real speech and noise: a folder with index.csv")
    parser.add_argument("--leave-out", default="", help="a language that neither map nor threshold shall see")
    parser.add_argument("--out", type=Path, default=EMBEDDED)
    parser.add_argument("--seed", type=int, default=1)
    options = parser.parse_args(argv)
    torch.set_num_threads(1)
    said = gather(options.speech, options.leave_out)
    stacks = [stacked(one.heard) for one in said]
    third = [int(THIRDS * share(one.speaker)) for one in said]
    parts = []
    for part in range(THIRDS):
        inside, outside = ([n for n in range(len(said)) if (third[n] == part) == held] for held in (False, True))
        found = learn([said[n] for n in inside], [stacks[n] for n in inside], options.seed)
        parts.append([heard_by(found, said[n], backwards=back) for back in (False, True) for n in outside])
        print(json.dumps({"part": part, "clips": len(inside)}), flush=True)
    judge, threshold = judged(parts, options.seed, lambda told: print(json.dumps(told), flush=True))
    languages = sorted({one.language for one in said})
    options.out.mkdir(parents=True, exist_ok=True)
    judge.write(options.out / "judge.npz")
    digest = export(learn(said, stacks, options.seed), options.out, threshold, languages)
    print(json.dumps({"sha256": digest, "threshold": threshold, "languages": languages}))


if __name__ == "__main__":
    import sys

    main(sys.argv[1:])
