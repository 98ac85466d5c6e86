"""What is heard again of a recording, for the judge's training: over which line, how late, at what pace.

Some queries are distorted as the ear's training data are, some lightly, some over the lines that callers usually have.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import numpy as np
import soxr
from numpy.random import Generator

from models.signs import Levels, Words, levels
from models.training.recall_data import Sources
from models.training.recall_distort import (
    PACKET_RATES,
    concealed,
    distorted,
    gsm,
    in_a_room,
    mp3,
    noisy,
    opus,
    telephone,
    with_losses,
)
from models.training.recall_front import Half, bits_of, energies_of, logs_of
from models.utterance import RECOGNIZER_RATE, Samples

USUAL_LINES: Final = {
    "clean": (0.12, 0.28),
    "noise": (0.36, 0.26),
    "telephone": (0.05, 0.12),
    "telephone in noise": (0.12, 0.10),
    "net": (0.10, 0.05),
    "losses": (0.05, 0.02),
    "room": (0.08, 0.07),
    "codec": (0.04, 0.03),
    "any": (0.08, 0.07),
}
"""How likely each line is for the same recording, and for another."""


@dataclass(frozen=True, slots=True)
class Query:
    """What was heard, T frames."""

    energies: Half
    """float16 [T, 66], as `recall_front.logs_of`."""
    bits: Words
    """uint32 [2 T]: its own, by half frame."""
    level: Levels
    """uint8 [T]: its own."""


def query_of(samples: Samples, rng: Generator, sources: Sources, lightly: bool = False) -> Query:
    """16 kHz `samples` heard again: later or not, at some pace or not, most of them distorted (or half, lightly)."""
    longest = (0.3, 0.3) if rng.random() < 0.6 else (0.05, 0.0)
    heard = _in_a_quiet_room(samples, [rng.uniform(0.0, most) for most in longest], rng)
    if rng.random() < (0.08 if lightly else 0.2):
        heard = _paced(heard, rng)
    if lightly:
        heard = over_a_line(heard, rng, sources)
    elif rng.random() < 0.85:
        heard = distorted(heard, rng, sources.noise)
    return _query(heard)


def usual_query(samples: Samples, rng: Generator, sources: Sources, same: bool) -> Query:
    """16 kHz `samples` as callers are mostly heard: a little late, or with silence around, over a usual line."""
    where = rng.random()
    if where < 0.65:
        around = [rng.uniform(0.0, 0.05), 0.1]
    else:
        around = list(rng.uniform(*((0.2, 1.0) if where < 0.8 else (0.0, 0.3)), 2))
    heard = _in_a_quiet_room(samples, around, rng)
    if rng.random() < 0.1:
        heard = _paced(heard, rng)
    return _query(over_a_usual_line(heard, rng, sources, same))


def _in_a_quiet_room(samples: Samples, around: list[float], rng: Generator) -> Samples:
    """With so many seconds before and after."""
    heard = np.pad(samples, [int(seconds * RECOGNIZER_RATE) for seconds in around])
    return (heard + rng.normal(0.0, 10 ** (-rng.uniform(60.0, 90.0) / 20), len(heard))).astype(np.float32)


def _paced(samples: Samples, rng: Generator) -> Samples:
    return soxr.resample(samples, RECOGNIZER_RATE * (1 + rng.uniform(-0.022, 0.022)), RECOGNIZER_RATE)


def _query(heard: Samples) -> Query:
    energies = energies_of(heard)
    return Query(logs_of(energies), bits_of(energies)[0], levels(energies[:, 0]))


def over_a_line(samples: Samples, rng: Generator, sources: Sources) -> Samples:
    """As it is (45 %), in noise (25 %), or by telephone (30 %), of which half in noise."""
    way = rng.random()
    if way < 0.45:
        return samples
    if 0.7 <= way < 0.85:
        return telephone(at_peak(samples, 0.7), rng)
    snr = rng.uniform(8.0, 25.0 if way < 0.7 else 15.0)
    heard = noisy(samples, sources.noise(len(samples), rng), snr)
    return heard if way < 0.7 else telephone(np.asarray(heard / 4, np.float32), rng)


def over_a_usual_line(samples: Samples, rng: Generator, sources: Sources, same: bool) -> Samples:
    """As it is, in noise mostly of 3 to 15 dB, by telephone in noise or not, by a net that loses packets, in a room,
    through a codec, or anyhow. Strangers are heard clean more often: there the hardest are hard still."""

    def in_noise(lowest: float, highest: float) -> Samples:
        return noisy(samples, sources.noise(len(samples), rng), rng.uniform(lowest, highest)).astype(np.float32)

    def levelled(some: Samples) -> Samples:
        return at_peak(some, 10 ** (-rng.uniform(1.0, 18.0) / 20))

    line = str(rng.choice(list(USUAL_LINES), p=[shares[0 if same else 1] for shares in USUAL_LINES.values()]))
    if line == "noise":
        return in_noise(3.0, 15.0) if rng.random() < 0.65 else in_noise(-1.0, 25.0)
    if line == "telephone":
        return telephone(levelled(samples), rng)
    if line == "telephone in noise":
        return telephone(levelled(in_noise(4.0, 15.0)), rng)
    if line == "net":
        sent = levelled(samples if rng.random() < 0.7 else in_noise(10.0, 25.0))
        return concealed(sent, float(rng.choice(PACKET_RATES)), rng)
    if line == "losses":
        return with_losses(samples, rng, rng.uniform(0.03, 0.15))
    if line == "room":
        return in_a_room(samples, rng).astype(np.float32)
    if line == "codec":
        return any_codec(levelled(samples), rng)
    return distorted(samples, rng, sources.noise) if line == "any" else samples


def any_codec(samples: Samples, rng: Generator) -> Samples:
    """Opus (half), GSM (30 %) or MP3, at some rate."""
    if rng.random() < 0.5:
        return opus(samples, float(rng.choice([0.93, 0.95, 0.97, 1.0])))
    return gsm(samples) if rng.random() < 0.6 else mp3(samples, float(rng.choice([0.9, 0.95])))


def at_peak(samples: Samples, peak: float) -> Samples:
    return np.asarray(samples * (peak / max(float(np.abs(samples).max(initial=0.0)), 1e-6)), np.float32)
