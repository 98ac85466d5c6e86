"""The judge's training data: a recording as it is stored, another as it is heard, and whether they are the same.

What is not the same is made to be near: a piece of the same voice swapped in, one word for another among words, speech
that only one of them has. The nearest words of the bank, found by the ear itself, come later (`recall_lines`). Pairs
hold energies and bits, no sound, and are made in parts as the pool is.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import numpy as np
from numpy.random import Generator, default_rng

from models.training.recall_data import Sources
from models.training.recall_distort import noisy
from models.training.recall_front import Code, code_of
from models.training.recall_heard import Query, query_of, usual_query
from models.training.recall_near import Both, piece_swapped, with_more, word_in_sentence, word_swapped
from models.training.speaker_data import sound
from models.utterance import RECOGNIZER_RATE, Samples

PART: Final = 1000
KINDS: Final = {"same": 0.45, "piece": 0.17, "word": 0.18, "more": 0.12, "noise": 0.08}
"""How likely each kind of pair is: the same recording; a piece of it swapped; a word swapped; one has more speech; the
query is noise."""
LIGHT_KINDS: Final = {"same": 0.18, "piece": 0.24, "word": 0.33, "more": 0.23, "noise": 0.02}
"""Of pairs over lighter lines: where little is lost, much must be told apart."""
USUAL_KINDS: Final = {"same": 0.30, "piece": 0.20, "word": 0.19, "sentence": 0.14, "more": 0.14, "noise": 0.03}
"""Of pairs over usual lines; "sentence": another word in a sentence."""
MATCHED: Final = 0.29
"""How many of the near strangers over usual lines become the same recording after all: what is only ever spliced or
set in silence where the two differ would give strangers away."""
SHARES: Final = (0.45, 0.30)
"""How much are words, and how much is read speech, of up to LONGEST seconds; the rest machines said;"""
LONGEST: Final = 5.0
USUAL_SHARES: Final = (0.35, 0.49)
USUAL_LONGEST: Final = 8.0
"""and over usual lines."""


@dataclass(frozen=True, slots=True)
class Pair:
    stored: Code
    query: Query
    kind: str
    """One of KINDS, or "word N": the N-th of all words, to find others for."""


def random_pair(sources: Sources, rng: Generator) -> Pair | None:
    """A pair of a random kind; None where what was drawn makes none."""
    kind = _drawn_kind(KINDS, rng)
    return _pair(kind, _both(kind, sources, rng), rng, sources, lambda heard: query_of(heard, rng, sources))


def light_pair(sources: Sources, rng: Generator) -> Pair | None:
    """The same over a lighter line."""
    kind = _drawn_kind(LIGHT_KINDS, rng)
    both = _both(kind, sources, rng)
    return _pair(kind, both, rng, sources, lambda heard: query_of(heard, rng, sources, lightly=True))


def usual_pair(sources: Sources, rng: Generator) -> Pair | None:
    """The same over a usual line; some near strangers are made the same recording."""
    kind = _drawn_kind(USUAL_KINDS, rng)
    both = _both(kind, sources, rng, USUAL_SHARES, USUAL_LONGEST)
    if both is not None and kind not in ("same", "noise") and rng.random() < MATCHED:
        one = both[int(rng.integers(2))]
        kind, both = "same", (one, one)
    return _pair(kind, both, rng, sources, lambda heard: usual_query(heard, rng, sources, kind == "same"))


def _drawn_kind(kinds: dict[str, float], rng: Generator) -> str:
    return str(rng.choice(list(kinds), p=list(kinds.values())))


def _pair(
    kind: str, both: Both | None, rng: Generator, sources: Sources, heard_as: Callable[[Samples], Query]
) -> Pair | None:
    if both is None:
        return None
    stored, heard = both
    if kind not in ("same", "noise") and rng.random() < 0.5:
        stored, heard = heard, stored
    if rng.random() < 0.1:
        stored = noisy(stored, sources.noise(len(stored), rng), rng.uniform(15.0, 30.0)).astype(np.float32)
    code = code_of(stored)
    return None if code is None else Pair(code, heard_as(heard), kind)


def _both(
    kind: str,
    sources: Sources,
    rng: Generator,
    shares: tuple[float, float] = SHARES,
    longest: float = LONGEST,
) -> Both | None:
    """Sound to store and sound to hear."""
    if kind == "piece":
        return piece_swapped(sources, rng)
    if kind == "word":
        return word_swapped(sources, rng)
    if kind == "sentence":
        return word_in_sentence(sources, rng)
    if kind == "more":
        return with_more(sources, rng)
    clip = sources.clip(rng, shares, longest)
    if kind == "same":
        return clip, clip
    noise = sources.noise(int(rng.uniform(0.6, 3.0) * RECOGNIZER_RATE), rng)
    return clip, np.asarray(0.3 * noise / max(float(np.abs(noise).max()), 1e-6), np.float32)


def word_pair(sources: Sources, rng: Generator) -> Pair | None:
    """One of all words, heard again: the ear then finds the words nearest to it."""
    number = int(rng.integers(len(sources.words)))
    samples = sound(sources.words[number].path)
    code = code_of(samples)
    return None if code is None else Pair(code, usual_query(samples, rng, sources, same=True), f"word {number}")


def gather(sources: Sources, many: int, light: int, usual: int, words: int, seed: int, work: Path) -> list[Pair]:
    """So many pairs, light and usual ones, and words to find others for; parts that lie in `work` are read, the others
    made."""
    began, pairs = time.monotonic(), list[Pair]()
    plans = ((random_pair, many), (light_pair, light), (word_pair, words), (usual_pair, usual))
    for kind, (make, total) in enumerate(plans, 1):
        for number, first in enumerate(range(0, total, PART)):
            count = min(PART, total - first)
            kept = work / f"{make.__name__}-{seed}-{number}-{count}.npz"
            if not kept.is_file():
                rng, part = default_rng((seed, kind, number)), list[Pair]()
                while len(part) < count:
                    pair = make(sources, rng)
                    part += [] if pair is None else [pair]
                save(part, kept)
            pairs += load(kept)
            line = {"pairs": len(pairs), "of": sum(total for _, total in plans), "s": round(time.monotonic() - began)}
            print(json.dumps(line), flush=True)
    return pairs


def save(pairs: list[Pair], path: Path) -> None:
    """Writes all or nothing: every array of every pair in a row, and how long each is."""
    stored, heard = [pair.stored for pair in pairs], [pair.query for pair in pairs]
    fresh = path.with_suffix(".new.npz")
    np.savez(
        fresh,
        kinds=np.array([pair.kind for pair in pairs]),
        frames=np.array([(len(code.level), len(query.level)) for code, query in zip(stored, heard, strict=True)]),
        stored_bits=np.concatenate([code.bits for code in stored]),
        stored_mask=np.concatenate([code.mask for code in stored]),
        stored_level=np.concatenate([code.level for code in stored]),
        energies=np.concatenate([query.energies for query in heard]),
        bits=np.concatenate([query.bits for query in heard]),
        level=np.concatenate([query.level for query in heard]),
    )
    fresh.replace(path)


def load(path: Path) -> list[Pair]:
    kept = dict(np.load(path))
    old, new = np.cumsum(kept["frames"], axis=0)[:-1].T
    codes = zip(*(np.split(kept[f"stored_{name}"], old) for name in ("bits", "mask", "level")), strict=True)
    parts = (np.split(kept["energies"], new), np.split(kept["bits"], 2 * new), np.split(kept["level"], new))
    queries = zip(*parts, strict=True)
    return [
        Pair(Code(*code), Query(*query), str(kind))
        for code, query, kind in zip(codes, queries, kept["kinds"], strict=True)
    ]
