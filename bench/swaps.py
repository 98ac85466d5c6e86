"""Pairs that a fingerprint should tell apart and easily does not: the recording stored, and another that was heard."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Sequence
from typing import Protocol

import numpy as np

from bench.distort import DISTORTIONS, RATE, Random
from models.utterance import Samples

Pair = tuple[Samples, Samples]
CONDITIONS = ("clean", "noise 20 dB", "noise 10 dB", "telephone")


class Spoken(Protocol):
    @property
    def speaker(self) -> str: ...
    @property
    def text(self) -> str: ...
    @property
    def samples(self) -> Samples: ...


def trimmed(samples: Samples) -> Samples:
    """From the first to the last moment within 22 dB of the loudest 30 ms."""
    power = np.convolve(samples**2, np.ones(480, np.float32) / 480, "same")
    loud = np.flatnonzero(power > power.max() * 10**-2.2)
    return samples[loud[0] : loud[-1] + 1] if len(loud) else samples[:0]


def levelled(samples: Samples, rms: float = 0.05) -> Samples:
    return np.asarray(samples * (rms / max(float(np.sqrt(np.mean(samples**2))), 1e-6)), dtype=np.float32)


def by_speaker(words: Sequence[Spoken]) -> list[list[tuple[str, Samples]]]:
    """Trimmed words of 0.1 to 0.7 s of the speakers who say at least four different ones."""
    found: dict[str, list[tuple[str, Samples]]] = defaultdict(list)
    for clip in words:
        word = trimmed(clip.samples)
        if 0.1 * RATE < len(word) < 0.7 * RATE:
            found[clip.speaker].append((clip.text, word))
    return [spoken for spoken in found.values() if len({text for text, _ in spoken}) >= 4]


def swaps(
    words: Sequence[Spoken], speech: Sequence[Spoken], noises: Sequence[Samples], count: int, rng: Random
) -> Iterator[Pair]:
    """One carrier with two words of one speaker in the same place: in a sentence, or among one to three other words."""
    speakers = by_speaker(words)
    made = 0
    while made < count and speakers:
        spoken = speakers[int(rng.integers(len(speakers)))]
        a, b = rng.choice(len(spoken), 2, replace=False)
        if spoken[a][0] == spoken[b][0]:
            continue
        if speech and made % 2:
            carrier = speech[int(rng.integers(len(speech)))].samples
            pair = _in_sentence(carrier, spoken[a][1], spoken[b][1], rng)
        else:
            pair = _among_words(spoken, int(a), int(b), rng)
        condition = CONDITIONS[made // 2 % len(CONDITIONS)]
        noise = noises[int(rng.integers(len(noises)))]
        yield pair[0], np.asarray(DISTORTIONS[condition](pair[1], noise, rng), np.float32)
        made += 1


def _in_sentence(carrier: Samples, first: Samples, second: Samples, rng: Random) -> Pair:
    """A fifth of a second of `carrier`, where it is loud, gives way to each word, at the level around it."""
    power = np.convolve(carrier**2, np.ones(1600, np.float32) / 1600, "same")
    loud = np.flatnonzero(power > power.max() * 0.1)
    at = int(rng.choice(loud))
    level = float(np.sqrt(np.mean(carrier[max(0, at - 2000) : at + 2000] ** 2)))
    cut = at + round(0.2 * RATE)
    made = [np.concatenate([carrier[:at], levelled(word, level), carrier[cut:]]) for word in (first, second)]
    return made[0], made[1]


def _among_words(spoken: list[tuple[str, Samples]], a: int, b: int, rng: Random) -> Pair:
    others = [number for number in rng.permutation(len(spoken)) if number not in (a, b)][: int(rng.integers(1, 4))]
    at = int(rng.integers(0, len(others) + 1))
    gap = np.zeros(int(rng.integers(0, 1600)), np.float32)
    made = []
    for chosen in (a, b):
        order = [*others[:at], chosen, *others[at:]]
        parts = [part for number in order for part in (levelled(spoken[int(number)][1]), gap)]
        made.append(np.concatenate(parts).astype(np.float32))
    return made[0], made[1]


def containments(words: Sequence[Spoken], count: int, rng: Random) -> Iterator[Pair]:
    """One word against the same word with another before or after it, either way round."""
    speakers = by_speaker(words)
    for number in range(count if speakers else 0):
        spoken = speakers[int(rng.integers(len(speakers)))]
        a, b = rng.choice(len(spoken), 2, replace=False)
        first, second = levelled(spoken[a][1]), levelled(spoken[b][1])
        gap = np.zeros(int(rng.integers(0, 4800)), np.float32)
        silence = np.zeros(len(gap) + len(second), np.float32)
        both = np.concatenate([first, gap, second] if number % 2 else [second, gap, first])
        if number % 3 == 0:  # a recording does not end where its speech does
            first = np.concatenate([first, silence] if number % 2 else [silence, first])
        yield (first, both) if number // 2 % 2 else (both, first)


def nothings(words: Sequence[Spoken], noises: Sequence[Samples], count: int, rng: Random) -> Iterator[Pair]:
    """A word stored, and silence, a tone, white noise or a real noise heard."""
    for number in range(count if words else 0):
        n = RATE
        tone = 0.3 * np.sin(2 * np.pi * rng.uniform(100, 3000) * np.arange(n) / RATE)
        noise = noises[int(rng.integers(len(noises)))]
        start = int(rng.integers(0, max(1, len(noise) - n)))
        heard = (np.zeros(n), tone, rng.normal(0, 0.1, n), noise[start : start + n])[number % 4]
        yield words[int(rng.integers(len(words)))].samples, heard.astype(np.float32)
