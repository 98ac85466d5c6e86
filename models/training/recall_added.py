"""Learns to tell speech that was added from noise, where a stored recording is silent: `... recall_added --help`.

Speech, read, spoken and by machines, is stored; heard again over the lines that callers have, half of the time with a
word or a piece of speech before or after it. Of those that the judge would let pass if it did not look at silence, a
logistic regression over `models.added.features` tells which. Only what HELD_OUT leaves for training is opened.
"""

from __future__ import annotations

import argparse
import json
import time
from pathlib import Path
from typing import Final

import numpy as np
from numpy.random import Generator, default_rng
from scipy import optimize

from models.added import FEATURES, Additions, Flags, Wide, features, silence
from models.evidence import Stored, align, timeline
from models.recall import RecallNets
from models.signs import levels
from models.training.recall_data import Sources, drawn, piece
from models.training.recall_front import bits_of, code_of, energies_of
from models.training.recall_heard import over_a_usual_line
from models.training.recall_near import WORD_LEVEL, at_level, trimmed
from models.training.speaker_data import sound
from models.utterance import RECOGNIZER_RATE, Samples

LONG: Final = 80
"""Frames of stored speech from which silence is judged apart (`gateway.fingerprint.verify`)."""
LEVELS: Final = (-12.0, 3.0)
"""dB of what is added, beside the speech."""
DECAY: Final = 1e-3
"""Of the weights, in units of each feature's spread."""
LESS: Final = 0.5
"""What all additions together count beside all noise."""
EXAMPLES: Final = 8000


def spoken(sources: Sources, rng: Generator) -> Samples:
    """Speech of 1.5 to 8 s, trimmed."""
    if rng.random() < 0.7:
        return trimmed(piece(drawn(sources.speech, rng), rng, 1.5, 8.0)[0])
    return trimmed(sources.two_of_a_machine(rng)[0])


def addition(sources: Sources, rng: Generator) -> Samples:
    """A word of a person (half), or 0.15 to 0.8 s of speech."""
    if rng.random() < 0.5:
        return trimmed(sound(drawn(sources.words, rng).path))
    return trimmed(piece(spoken(sources, rng), rng, 0.15, 0.8)[0])


def example(sources: Sources, rng: Generator) -> tuple[Samples, Samples, bool]:
    """What is stored, what is heard, and whether that has more speech. Silence around either as it comes."""
    speech = at_level(spoken(sources, rng), WORD_LEVEL)
    gap = np.zeros(int(rng.uniform(0.0, 0.6) * RECOGNIZER_RATE), np.float32)
    more = at_level(addition(sources, rng), WORD_LEVEL * 10 ** (rng.uniform(*LEVELS) / 20))
    quiet, added = np.zeros(len(gap) + len(more), np.float32), bool(rng.random() < 0.5)
    before = bool(rng.random() < 0.5)
    other = np.zeros(int(rng.uniform(0.0, 1.0) * RECOGNIZER_RATE), np.float32)

    def laid(beside: Samples) -> Samples:
        return np.concatenate([beside, speech, other] if before else [other, speech, beside])

    heard = laid(np.concatenate([more, gap] if before else [gap, more]) if added else quiet)
    stored = laid(quiet) if rng.random() < 0.5 else speech
    room = rng.normal(0.0, 10 ** (-rng.uniform(60.0, 90.0) / 20), len(stored) + len(heard)).astype(np.float32)
    return stored + room[: len(stored)], over_a_usual_line(heard + room[len(stored) :], rng, sources, same=True), added


def measured(nets: RecallNets, stored: Samples, heard: Samples) -> Wide | None:
    """The features of what was heard; None where something else decides, or nothing is silent."""
    code, energies = code_of(stored), energies_of(heard)
    if code is None:
        return None
    old = Stored.of(code.bits, code.mask, code.level)
    if len(old.at) < LONG:
        return None
    query = nets.hear(energies.reshape(-1, energies.shape[2]), bits_of(energies)[0], levels(energies[:, 0]))
    path = align(old, query)
    lines = timeline(old, query, path)
    silent = silence(lines)
    if not silent.any() or nets.judge(lines, silent)[0] < nets.threshold:
        return None
    return features(lines, query, path)


def fitted(rows: Wide, added: Flags) -> Additions:
    """The regression; a score of 0 is even odds."""
    mean, spread = rows.mean(axis=0), rows.std(axis=0) + 1e-6
    scaled = np.hstack([(rows - mean) / spread, np.ones((len(rows), 1))])
    sign = np.where(added, 1.0, -1.0)
    counts = np.where(added, LESS / added.sum(), 1.0 / (~added).sum())
    counts /= counts.sum()

    def loss(weights: Wide) -> tuple[float, Wide]:
        margin = sign * (scaled @ weights)
        pull = -sign * counts / (1 + np.exp(margin))
        decay = DECAY * np.append(weights[:-1], 0.0)
        return float(counts @ np.logaddexp(0, -margin) + decay @ weights), scaled.T @ pull + 2 * decay

    weights = optimize.minimize(loss, np.zeros(FEATURES + 1), jac=True, method="L-BFGS-B").x
    return Additions(weights[:-1] / spread, float(weights[-1] - weights[:-1] @ (mean / spread)))


def learn(sources: Sources, folder: Path, examples: int, threshold: float, seed: int) -> None:
    """Writes the judge of silence into a recall folder, whose ear and judge are used."""
    nets, began, rows, told = RecallNets(folder), time.monotonic(), list[Wide](), list[bool]()
    for number in range(examples):
        stored, heard, added = example(sources, default_rng((seed, number)))
        row = measured(nets, stored, heard)
        if row is not None:
            rows.append(row)
            told.append(added)
        if (number + 1) % 500 == 0 or number + 1 == examples:
            line = {"examples": number + 1, "used": len(rows), "added": sum(told)}
            print(json.dumps(line | {"s": round(time.monotonic() - began)}), flush=True)
    found = fitted(np.array(rows), np.array(told))
    Additions(found.weights, found.bias - threshold).write(folder)


def main(argv: list[str]) -> None:
    """The command line; see --help."""
    parser = argparse.ArgumentParser(prog="models.training recall_added", description=__doc__)
    parser.add_argument("folder", type=Path, metavar="FOLDER", help="a recall folder, which added.npz is written into")
    parser.add_argument("--data", type=Path, required=True, help="real speech and noise: a folder with index.csv")
    parser.add_argument("--corpus", type=Path, required=True, help="machine voices: a folder with index.jsonl")
    parser.add_argument("--examples", type=int, default=EXAMPLES)
    parser.add_argument("--threshold", type=float, default=0.0, help="log-odds from which speech was added")
    parser.add_argument("--seed", type=int, default=1)
    options = parser.parse_args(argv)
    sources = Sources.open(options.data, options.corpus)
    learn(sources, options.folder, options.examples, options.threshold, options.seed)


if __name__ == "__main__":
    import sys

    main(sys.argv[1:])
