"""The judge's training data: a recording as it is stored, another as it is heard, and whether they are the same.

What is not the same is made to be near: a piece of the same voice swapped in, one word for another among words, speech
that only one of them has. The nearest words of the bank, found by the ear itself, come later (`recall_lines`). Pairs
hold energies and bits, no sound, and are made in parts as the pool is.
"""

from __future__ import annotations

import json
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import numpy as np
import soxr
from numpy.random import Generator, default_rng

from models.signs import Levels, Words, levels
from models.training.recall_data import Sources, drawn, piece
from models.training.recall_distort import distorted, noisy, telephone
from models.training.recall_front import Code, Half, bits_of, code_of, energies_of, logs_of
from models.training.speaker_data import sound
from models.utterance import RECOGNIZER_RATE, Samples

Both = tuple[Samples, Samples]

PART: Final = 1000
KINDS: Final = {"same": 0.45, "piece": 0.17, "word": 0.18, "more": 0.12, "noise": 0.08}
"""How likely each kind of pair is: the same recording; a piece of it swapped; a word swapped; one has more speech; the
query is noise."""
LIGHT_KINDS: Final = {"same": 0.18, "piece": 0.24, "word": 0.33, "more": 0.23, "noise": 0.02}
"""Of pairs over lighter lines: where little is lost, much must be told apart."""
SHARES: Final = (0.45, 0.30)
QUIET: Final = 1e-4
"""Least root mean square that a piece is brought to."""
WORD_LEVEL: Final = 0.05


@dataclass(frozen=True, slots=True)
class Query:
    """What was heard, T frames."""

    energies: Half
    """float16 [T, 66], as `recall_front.logs_of`."""
    bits: Words
    """uint32 [2 T]: its own, by half frame."""
    level: Levels
    """uint8 [T]: its own."""


@dataclass(frozen=True, slots=True)
class Pair:
    stored: Code
    query: Query
    kind: str
    """One of KINDS, or "word N": the N-th of all words, to find others for."""


def query_of(samples: Samples, rng: Generator, sources: Sources, lightly: bool = False) -> Query:
    """16 kHz `samples` heard again: later or not, at some pace or not, most of them distorted (or half, lightly)."""
    longest = (0.3, 0.3) if rng.random() < 0.6 else (0.05, 0.0)
    heard = np.pad(samples, [int(rng.uniform(0.0, most) * RECOGNIZER_RATE) for most in longest])
    heard = (heard + rng.normal(0.0, 10 ** (-rng.uniform(60.0, 90.0) / 20), len(heard))).astype(np.float32)
    if rng.random() < (0.08 if lightly else 0.2):
        heard = soxr.resample(heard, RECOGNIZER_RATE * (1 + rng.uniform(-0.022, 0.022)), RECOGNIZER_RATE)
    if lightly:
        heard = over_a_line(heard, rng, sources)
    elif rng.random() < 0.85:
        heard = distorted(heard, rng, sources.noise)
    energies = energies_of(heard)
    return Query(logs_of(energies), bits_of(energies)[0], levels(energies[:, 0]))


def over_a_line(samples: Samples, rng: Generator, sources: Sources) -> Samples:
    """As it is (45 %), in noise (25 %), or by telephone (30 %), of which half in noise."""
    way = rng.random()
    if way < 0.45:
        return samples
    if 0.7 <= way < 0.85:
        peak = max(float(np.abs(samples).max(initial=0.0)), 1e-6)
        return telephone(np.asarray(0.7 / peak * samples, np.float32), rng)
    snr = rng.uniform(8.0, 25.0 if way < 0.7 else 15.0)
    heard = noisy(samples, sources.noise(len(samples), rng), snr)
    return heard if way < 0.7 else telephone(np.asarray(heard / 4, np.float32), rng)


def random_pair(sources: Sources, rng: Generator) -> Pair | None:
    """A pair of a random kind; None where what was drawn makes none."""
    return _pair(KINDS, sources, rng, lightly=False)


def light_pair(sources: Sources, rng: Generator) -> Pair | None:
    """The same over a lighter line."""
    return _pair(LIGHT_KINDS, sources, rng, lightly=True)


def _pair(kinds: dict[str, float], sources: Sources, rng: Generator, lightly: bool) -> Pair | None:
    kind = str(rng.choice(list(kinds), p=list(kinds.values())))
    both = _both(kind, sources, rng)
    if both is None:
        return None
    stored, heard = both
    if kind not in ("same", "noise") and rng.random() < 0.5:
        stored, heard = heard, stored
    if rng.random() < 0.1:
        stored = noisy(stored, sources.noise(len(stored), rng), rng.uniform(15.0, 30.0)).astype(np.float32)
    code = code_of(stored)
    return None if code is None else Pair(code, query_of(heard, rng, sources, lightly), kind)


def _both(kind: str, sources: Sources, rng: Generator) -> Both | None:
    """Sound to store and sound to hear."""
    if kind == "piece":
        return piece_swapped(sources, rng)
    if kind == "word":
        return word_swapped(sources, rng)
    if kind == "more":
        return with_more(sources, rng)
    clip = sources.clip(rng, SHARES, 5.0)
    if kind == "same":
        return clip, clip
    noise = sources.noise(int(rng.uniform(0.6, 3.0) * RECOGNIZER_RATE), rng)
    return clip, np.asarray(0.3 * noise / max(float(np.abs(noise).max()), 1e-6), np.float32)


def piece_swapped(sources: Sources, rng: Generator) -> Both | None:
    """Speech, and the same with 0.13 to 0.5 s of it replaced by other sounds of the voice, as loud, cut hard or not."""
    own: int | None = None
    """Where the carrier begins in the other, if it is a part of it."""
    if rng.random() < 0.6:
        other = drawn(sources.speech, rng)
        carrier, own = piece(other, rng, 1.2, 5.0)
    else:
        carrier, other = sources.two_of_a_machine(rng)
    count = int(rng.uniform(0.13, 0.5) * RECOGNIZER_RATE)
    at = _loud_place(_smoothed(carrier, 1600)[: max(1, len(carrier) - count)], 0.1, rng)
    loud = _smoothed(other, count)
    if own is not None:
        # Not what is there already, or the pair would be the same after all.
        loud[max(0, own + at - count) : own + at + 2 * count] = 0.0
    middle = _loud_place(loud, 0.15, rng)
    longer = int(count * rng.uniform(0.8, 1.2)) if rng.random() < 0.5 else count
    start = max(0, middle - longer // 2)
    swapped_in = other[start : start + longer]
    if len(swapped_in) < 0.1 * RECOGNIZER_RATE or not loud.any():
        return None
    swapped_in = _at_level(swapped_in, _level(carrier[at : at + count]))
    fade = int(rng.choice([0, 80, 240]))
    return carrier, joined([carrier[:at], swapped_in, carrier[at + count :]], fade)


def word_swapped(sources: Sources, rng: Generator) -> Both | None:
    """One word, or another, of one voice among up to three others."""
    said = sources.said_by_one(rng)
    one = said[0]
    two = next(word for word in said if word.text != one.text)
    around = [word for word in said if word.text not in (one.text, two.text)][: int(rng.integers(0, 4))]
    first, second, *others = (
        _at_level(trimmed(sound(word.path)), WORD_LEVEL * 10 ** (rng.uniform(-3.0, 3.0) / 20))
        for word in (one, two, *around)
    )
    gap = np.zeros(int(rng.integers(0, 2000)), np.float32)
    at, fade = int(rng.integers(0, len(others) + 1)), int(rng.choice([0, 80]))

    def spoken(word: Samples) -> Samples:
        return joined([part for one in (*others[:at], word, *others[at:]) for part in (one, gap)], fade)

    return spoken(first), spoken(second)


def with_more(sources: Sources, rng: Generator) -> Both:
    """Speech, and the same with another word before or after it; the former may have silence there."""
    if rng.random() < 0.6:
        levels = WORD_LEVEL * 10 ** (rng.uniform(-5.0, 5.0, 2) / 20)
        said = sources.said_by_one(rng)[:2]
        alone, more = (_at_level(trimmed(sound(w.path)), lv) for w, lv in zip(said, levels, strict=True))
    else:
        speech = drawn(sources.speech, rng)
        alone = piece(speech, rng, 1.0, 4.0)[0]
        loudness = _level(alone) * 10 ** (rng.uniform(-6.0, 3.0) / 20)
        more = _at_level(trimmed(piece(speech, rng, 0.2, 0.7)[0]), loudness)
    gap = np.zeros(int(rng.uniform(0.0, 0.35) * RECOGNIZER_RATE), np.float32)
    together = np.concatenate([alone, gap, more] if rng.random() < 0.5 else [more, gap, alone])
    if rng.random() < 0.5:
        silence = int(rng.uniform(0.0, 0.6) * RECOGNIZER_RATE)
        alone = np.pad(alone, (silence, 0) if rng.random() < 0.5 else (0, silence))
    return alone, together


def joined(parts: list[Samples], fade: int) -> Samples:
    """One after the other, faded into each other over up to `fade` samples."""
    out = parts[0]
    for part in parts[1:]:
        count = min(fade, len(out), len(part))
        ramp = np.linspace(0.0, 1.0, count)
        mixed = out[len(out) - count :] * (1 - ramp) + part[:count] * ramp
        out = np.concatenate([out[: len(out) - count], mixed, part[count:]])
    return out.astype(np.float32)


def trimmed(samples: Samples) -> Samples:
    """From the first to the last 30 ms within 22 dB of the loudest."""
    power = _smoothed(samples, 480)
    loud = np.flatnonzero(power > power.max() * 10 ** (-22 / 10))
    return samples[loud[0] : loud[-1] + 1] if len(loud) else samples[:0]


def _smoothed(samples: Samples, count: int) -> Samples:
    """Mean power of `count` samples around each."""
    total = np.concatenate([[0.0], np.cumsum(np.square(samples, dtype=np.float64))])
    at = np.arange(len(samples)) - count // 2
    return (total[np.clip(at + count, 0, len(samples))] - total[np.clip(at, 0, len(samples))]) / count


def _loud_place(power: Samples, share: float, rng: Generator) -> int:
    """One of the samples above a share of the most; the first of silence."""
    loud = np.flatnonzero(power > power.max() * share)
    return int(rng.choice(loud)) if len(loud) else 0


def _level(samples: Samples) -> float:
    """Root mean square, at least QUIET, also of nothing."""
    return max(float(np.sqrt(np.square(samples).mean())), QUIET) if len(samples) else QUIET


def _at_level(samples: Samples, level: float) -> Samples:
    return samples * np.float32(level / _level(samples))


def word_pair(sources: Sources, rng: Generator) -> Pair | None:
    """One of all words, heard again: the ear then finds the words nearest to it."""
    number = int(rng.integers(len(sources.words)))
    samples = sound(sources.words[number].path)
    code = code_of(samples)
    return None if code is None else Pair(code, query_of(samples, rng, sources), f"word {number}")


def gather(sources: Sources, many: int, light: int, words: int, seed: int, work: Path) -> list[Pair]:
    """So many pairs, light ones, and words to find others for; parts that lie in `work` are read, the others made."""
    began, pairs = time.monotonic(), list[Pair]()
    for kind, (make, total) in enumerate(((random_pair, many), (light_pair, light), (word_pair, words)), 1):
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
            line = {"pairs": len(pairs), "of": many + light + words, "s": round(time.monotonic() - began)}
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
