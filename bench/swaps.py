"""Pairs that a fingerprint should tell apart and easily does not: the recording stored, and another that was heard.

Every pair depends on a seed and its own number alone, so that any part of them can be made anywhere.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np

from bench.clips import Clip
from bench.codecs import RATE
from bench.distort import Random, Surroundings, copy_of
from models.utterance import Samples

HEARD_IN: Final = ("clean copy", "noise 20 dB", "noise 10 dB", "telephone")
MEANT: Final = {
    "on and off": {"on", "off"},
    "yes and no": {"yes", "no"},
    "digits": {"zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine"},
}
"""Words that flip a meaning, as clips' texts have them."""
OTHER: Final = "other words"
ADDED: Final = "a word added to a sentence"
CARRIERS: Final = ("in a sentence", "among words")
BESIDE: Final = (0.0, -6.0, -10.0)
"""dB of a word that is added, beside the sentence."""
NOTHINGS: Final = ("silence", "a tone", "white noise", "real noise")

Spoken = list[tuple[str, Samples]]


@dataclass(frozen=True, slots=True)
class Pair:
    """What is stored, what is heard instead, and what would be heard if it were the same."""

    stored: Samples
    heard: Samples
    same: Samples | None
    about: tuple[str, ...]
    """What kind of pair, to count by."""
    speaker: str


def trimmed(samples: Samples) -> Samples:
    """From the first to the last moment within 22 dB of the loudest 30 ms."""
    power = np.convolve(samples**2, np.ones(480, np.float32) / 480, "same")
    loud = np.flatnonzero(power > power.max() * 10**-2.2)
    return samples[loud[0] : loud[-1] + 1] if len(loud) else samples[:0]


def levelled(samples: Samples, rms: float = 0.05) -> Samples:
    return np.asarray(samples * (rms / max(float(np.sqrt(np.mean(samples**2))), 1e-6)), dtype=np.float32)


def word(text: str) -> str:
    """A clip's text without its language."""
    return text.rpartition(":")[2].lower()


class Confusable:
    """Makes the pairs from the words and the longer speech of a folder."""

    def __init__(self, words: Sequence[Clip], speech: Sequence[Clip], around: Surroundings, seed: int) -> None:
        found: dict[str, Spoken] = defaultdict(list)
        for clip in words:
            cut = trimmed(clip.samples)
            if 0.1 * RATE < len(cut) < 0.7 * RATE:
                found[clip.speaker].append((clip.text, cut))
        self._speakers = {name: said for name, said in found.items() if len({text for text, _ in said}) >= 4}
        self._words, self._speech, self._around, self._seed = words, speech, around, seed
        self._by_kind = {kind: self._pairs_of(meant) for kind, meant in MEANT.items()}
        self.kinds = (*(kind for kind, pairs in self._by_kind.items() if pairs), OTHER)

    def __bool__(self) -> bool:
        return bool(self._speakers)

    @property
    def sentences(self) -> bool:
        """Whether there is longer speech."""
        return bool(self._speech)

    def swap(self, number: int) -> Pair:
        """One carrier with two words of one speaker in the same place; in turn each kind, carrier and condition."""
        rng = np.random.default_rng([self._seed, 1, number])
        condition = HEARD_IN[number % len(HEARD_IN)]
        carrier = CARRIERS[number // len(HEARD_IN) % 2 if self._speech else 1]
        kind = self.kinds[number // (2 * len(HEARD_IN)) % len(self.kinds)]
        speaker, a, b = self._two(kind, rng)
        said = self._speakers[speaker]
        if carrier == CARRIERS[0]:
            sentence = self._speech[int(rng.integers(len(self._speech)))].samples
            first, second = _in_sentence(sentence, said[a][1], said[b][1], rng)
        else:
            first, second = _among_words(said, a, b, rng)
        heard, same = (copy_of(samples, condition, self._around, rng) for samples in (second, first))
        return Pair(first, heard, same, (kind, carrier, condition), speaker)

    def containment(self, number: int) -> Pair:
        """One word against the same word with another before or after it, either way round."""
        rng = np.random.default_rng([self._seed, 2, number])
        speaker, a, b = self._two(OTHER, rng)
        said = self._speakers[speaker]
        first, second = levelled(said[a][1]), levelled(said[b][1])
        gap = np.zeros(int(rng.integers(0, 4800)), np.float32)
        silence = np.zeros(len(gap) + len(second), np.float32)
        both = np.concatenate([first, gap, second] if number % 2 else [second, gap, first])
        if number % 3 == 0:  # a recording does not end where its speech does
            first = np.concatenate([first, silence] if number % 2 else [silence, first])
        longer = bool(number // 2 % 2)
        stored, heard = (first, both) if longer else (both, first)
        return Pair(stored, heard, None, ("more is heard" if longer else "less is heard",), speaker)

    def added(self, number: int) -> Pair:
        """A sentence, and the same with a word before or after it, where it is stored with silence or ends; in turn
        each level and condition. As it would be heard without the word: with as much silence."""
        rng = np.random.default_rng([self._seed, 4, number])
        condition = HEARD_IN[number % len(HEARD_IN)]
        level = BESIDE[number // len(HEARD_IN) % len(BESIDE)]
        clip = self._speech[int(rng.integers(len(self._speech)))]
        sentence = trimmed(clip.samples)
        said = self._speakers[sorted(self._speakers)[int(rng.integers(len(self._speakers)))]]
        loud = float(np.sqrt(np.mean(sentence**2))) * 10 ** (level / 20)
        word = levelled(said[int(rng.integers(len(said)))][1], loud)
        gap = np.zeros(int(rng.integers(0, 8000)), np.float32)
        silence = np.zeros(len(gap) + len(word), np.float32)
        after, ends = bool(rng.integers(2)), bool(rng.integers(2))
        more, none = (
            np.concatenate([sentence, *parts] if after else [*reversed(parts), sentence])
            for parts in ((gap, word), (silence,))
        )
        heard, same = (copy_of(samples, condition, self._around, rng) for samples in (more, none))
        return Pair(sentence if ends else none, heard, same, (f"{level:g} dB beside it", condition), clip.speaker)

    def nothing(self, number: int) -> Pair:
        """A word stored, and silence, a tone, white noise or a real noise heard."""
        rng = np.random.default_rng([self._seed, 3, number])
        clip = self._words[int(rng.integers(len(self._words)))]
        kind, n = NOTHINGS[number % len(NOTHINGS)], len(clip.pcm)
        if kind == "silence":
            heard = np.zeros(n)
        elif kind == "a tone":
            heard = 0.3 * np.sin(2 * np.pi * rng.uniform(100, 3000) * np.arange(n) / RATE)
        elif kind == "white noise":
            heard = rng.normal(0, 0.1, n)
        else:
            heard = np.resize(np.roll(noise := self._around.noise(rng), -int(rng.integers(len(noise)))), n)
        return Pair(clip.samples, heard.astype(np.float32), None, (kind,), clip.speaker)

    def _pairs_of(self, meant: set[str]) -> dict[str, list[tuple[int, int]]]:
        """By speaker, the places of two different words of `meant`, in both orders."""
        found = {}
        for speaker, said in self._speakers.items():
            places = [place for place, (text, _) in enumerate(said) if word(text) in meant]
            if pairs := [(a, b) for a in places for b in places if said[a][0] != said[b][0]]:
                found[speaker] = pairs
        return found

    def _two(self, kind: str, rng: Random) -> tuple[str, int, int]:
        speakers = self._speakers if kind == OTHER else self._by_kind[kind]
        speaker = sorted(speakers)[int(rng.integers(len(speakers)))]
        if kind != OTHER:
            pairs = self._by_kind[kind][speaker]
            return speaker, *pairs[int(rng.integers(len(pairs)))]
        said = self._speakers[speaker]
        while True:
            a, b = (int(place) for place in rng.choice(len(said), 2, replace=False))
            if said[a][0] != said[b][0]:
                return speaker, a, b


def _in_sentence(carrier: Samples, first: Samples, second: Samples, rng: Random) -> tuple[Samples, Samples]:
    """A fifth of a second of `carrier`, where it is loud, gives way to each word, at the level around it."""
    power = np.convolve(carrier**2, np.ones(1600, np.float32) / 1600, "same")
    loud = np.flatnonzero(power > power.max() * 0.1)
    at = int(rng.choice(loud)) if len(loud) else 0
    level = float(np.sqrt(np.mean(carrier[max(0, at - 2000) : at + 2000] ** 2)))
    cut = at + round(0.2 * RATE)
    made = [np.concatenate([carrier[:at], levelled(word, level), carrier[cut:]]) for word in (first, second)]
    return made[0], made[1]


def _among_words(spoken: Spoken, a: int, b: int, rng: Random) -> tuple[Samples, Samples]:
    """Each word in the same place among one to three others of the speaker, with one pause."""
    others = [number for number in rng.permutation(len(spoken)) if number not in (a, b)][: int(rng.integers(1, 4))]
    at = int(rng.integers(0, len(others) + 1))
    gap = np.zeros(int(rng.integers(0, 1600)), np.float32)
    made = []
    for chosen in (a, b):
        order = [*others[:at], chosen, *others[at:]]
        parts = [part for number in order for part in (levelled(spoken[int(number)][1]), gap)]
        made.append(np.concatenate(parts).astype(np.float32))
    return made[0], made[1]
