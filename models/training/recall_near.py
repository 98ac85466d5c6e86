"""Two recordings that differ in one moment: a piece of the same voice swapped in, one word for another, more speech."""

from __future__ import annotations

from typing import Final

import numpy as np
from numpy.random import Generator

from models.training.recall_data import Sources, drawn, piece
from models.training.speaker_data import sound
from models.utterance import RECOGNIZER_RATE, Samples

Both = tuple[Samples, Samples]

QUIET: Final = 1e-4
"""Least root mean square that a piece is brought to."""
WORD_LEVEL: Final = 0.05


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
    swapped_in = at_level(swapped_in, _level(carrier[at : at + count]))
    fade = int(rng.choice([0, 80, 240]))
    return carrier, joined([carrier[:at], swapped_in, carrier[at + count :]], fade)


def word_swapped(sources: Sources, rng: Generator) -> Both | None:
    """One word, or another, of one voice among up to three others."""
    said = sources.said_by_one(rng)
    one = said[0]
    two = next(word for word in said if word.text != one.text)
    around = [word for word in said if word.text not in (one.text, two.text)][: int(rng.integers(0, 4))]
    first, second, *others = (
        at_level(trimmed(sound(word.path)), WORD_LEVEL * 10 ** (rng.uniform(-3.0, 3.0) / 20))
        for word in (one, two, *around)
    )
    gap = np.zeros(int(rng.integers(0, 2000)), np.float32)
    at, fade = int(rng.integers(0, len(others) + 1)), int(rng.choice([0, 80]))

    def spoken(word: Samples) -> Samples:
        return joined([part for one in (*others[:at], word, *others[at:]) for part in (one, gap)], fade)

    return spoken(first), spoken(second)


def word_in_sentence(sources: Sources, rng: Generator) -> Both | None:
    """One word, or another, of one voice in the place of 0.1 to 0.4 s of another's speech, as loud as that is; as long
    as each other now and then, so that what follows lies in the same place."""
    said = sources.said_by_one(rng)
    one = said[0]
    two = next(word for word in said if word.text != one.text)
    speech = sources.clip(rng, (0.0, 0.75), 7.0)
    at, fade = _loud_place(_smoothed(speech, 1600), 0.1, rng), int(rng.choice([0, 80]))
    loudness = _level(speech[max(0, at - 2000) : at + 2000]) * 10 ** (rng.uniform(-2.0, 2.0, 2) / 20)
    words = [at_level(trimmed(sound(w.path)), level) for w, level in zip((one, two), loudness, strict=True)]
    if rng.random() < 0.4:
        words = [word[: min(map(len, words))] for word in words]
    after = speech[at + int(rng.uniform(0.1, 0.4) * RECOGNIZER_RATE) :]
    first, second = (joined([speech[:at], word, after], fade) for word in words)
    return first, second


def with_more(sources: Sources, rng: Generator) -> Both:
    """Speech, and the same with another word before or after it; the former may have silence there."""
    if rng.random() < 0.6:
        levels = WORD_LEVEL * 10 ** (rng.uniform(-5.0, 5.0, 2) / 20)
        said = sources.said_by_one(rng)[:2]
        alone, more = (at_level(trimmed(sound(w.path)), lv) for w, lv in zip(said, levels, strict=True))
    else:
        speech = drawn(sources.speech, rng)
        alone = piece(speech, rng, 1.0, 4.0)[0]
        loudness = _level(alone) * 10 ** (rng.uniform(-6.0, 3.0) / 20)
        more = at_level(trimmed(piece(speech, rng, 0.2, 0.7)[0]), loudness)
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


def at_level(samples: Samples, level: float) -> Samples:
    return samples * np.float32(level / _level(samples))
